"""`health/` and `metrics/`: for programs, by GET and HEAD.

Both also answer where the database does not, so they are outside of `ATOMIC_REQUESTS`. Who may ask is the project's to say.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import DatabaseError, InterfaceError, router, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import translation
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from ..ledger import database
from ..models import WorkflowRun
from . import metrics as numbers
from .cached import Cached
from .health import problems, refused

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _connection() -> Any:
    return database.connection_for(router.db_for_write(WorkflowRun))


def _problems() -> list[str]:
    with translation.override(None):  # for whoever asks next, too
        try:
            return problems(_connection())
        except (DatabaseError, InterfaceError) as error:
            return [refused(error)]


_found_problems = Cached(_problems)
_found_numbers = Cached(lambda: numbers.text(numbers.collect(_connection())))


@transaction.non_atomic_requests
@never_cache
@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """`{"ok": true, "problems": []}`, what `showworkflows --check --json` prints; with status 503 where there are problems."""
    found = _found_problems.get()
    answer = JsonResponse({"ok": not found, "problems": found}, status=503 if found else 200)
    return _without_mails(answer) if found else answer


@transaction.non_atomic_requests
@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The numbers in the text format of Prometheus; 503 where the database does not answer."""
    answer = partial(HttpResponse, content_type=_CONTENT_TYPE)
    try:
        return answer(_found_numbers.get())
    except (DatabaseError, InterfaceError) as error:
        with translation.override(None):
            return _without_mails(answer(f"# {refused(error)}\n", status=503))


def _without_mails(answer: HttpResponse) -> HttpResponse:
    """Django logs answers of this status as errors, of which `ADMINS` get a mail each: for somebody who asks every ten seconds
    that is no help."""
    answer._has_been_logged = True  # type: ignore[attr-defined]
    return answer
