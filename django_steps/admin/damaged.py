"""Pages that show a row whose text is damaged, instead of an error for everybody."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any

from django.db import router
from django.http import HttpRequest, HttpResponse
from django.template.response import SimpleTemplateResponse

from ..ledger import database
from ..models import WorkflowRun


def reading_damaged(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """The view of a page that also reads texts which are no UTF-8: SQLite takes any bytes, and its client refuses to read
    the whole page of rows because of one of them."""

    @wraps(view)
    def reading(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        with ExitStack() as stack:
            connection = database.connection_for(router.db_for_read(WorkflowRun))
            stack.enter_context(database.reading_damaged(connection))
            response = view(request, *args, **kwargs)
            if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
                kept = (
                    stack.pop_all()
                )  # a template may read more, and is rendered after middleware has seen the response
                response.add_post_render_callback(lambda _response: kept.close())
            return response

    return reading
