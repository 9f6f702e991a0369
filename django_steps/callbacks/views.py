"""The one view: a GET shows what is asked, a POST sends the event. Whatever comes is answered, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from http import HTTPStatus
from typing import Any

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from .. import values
from ..conf import conf
from ..definitions import masked_keys
from ..errors import InvalidInput, InvalidState, StepsError, ValueTooLarge
from ..forms.checking import check
from ..forms.event import WHOLE, EventForm
from ..forms.look import BROWSERS_OWN
from ..forms.waits import waited_type
from ..models import WorkflowRun
from ..models.event_urls import BadToken, read_token
from . import answers, bodies
from .links import Link, State, look_up

SENT_BY = "callback"

View = Callable[..., HttpResponse]


class _Misfit(Exception):
    """A form that has something to be corrected."""

    def __init__(self, form: EventForm) -> None:
        self.form = form


def _in_autocommit(view: View) -> View:
    """Not in the transaction of the request: the event is there at once, and a second one with its id is no error."""
    return reduce(lambda wrapped, alias: transaction.non_atomic_requests(using=alias)(wrapped), connections, view)


# The token stands for the permission, so there is neither a session to protect nor a cookie that proves anything.
@csrf_exempt
@_in_autocommit
@sensitive_post_parameters()
@sensitive_variables()
def event(request: HttpRequest, token: str) -> HttpResponse:
    """Answer for one token."""
    if request.method not in ("GET", "HEAD", "POST"):
        return answers.not_allowed(request)
    try:
        link = look_up(read_token(token))
    except BadToken:
        return answers.said(request, HTTPStatus.FORBIDDEN, None, _("This address is not valid."))
    if link.run is None or link.state is State.OVER:
        return _over(request, link)
    if link.state is State.USED:
        return answers.said(request, HTTPStatus.OK, link)
    if request.method == "POST":
        return _send(request, link, link.run)
    form = None if link.callback.payload_text is not None else _form(link, link.run)
    return answers.page(request, HTTPStatus.OK, link, form=form)


@sensitive_variables()
def _send(request: HttpRequest, link: Link, run: WorkflowRun) -> HttpResponse:
    callback = link.callback
    try:
        payload = _payload(request, link, run)
        sent = run.send_event(callback.event, payload, id=callback.event_id, by=SENT_BY)
    except bodies.Refused as refused:
        return answers.said(request, refused.status, link, refused.text)
    except _Misfit as misfit:
        return _form_again(request, link, misfit.form)
    except InvalidInput as error:
        return answers.misfit(request, link, error.errors)
    except InvalidState:  # it has succeeded meanwhile, or was deleted
        return _over(request, link)
    except ValueTooLarge as error:
        return answers.said(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, link, str(error))
    except StepsError as error:
        return answers.said(request, HTTPStatus.BAD_REQUEST, link, str(error))
    return answers.said(request, HTTPStatus.ACCEPTED if sent.created else HTTPStatus.OK, link)


def _over(request: HttpRequest, link: Link) -> HttpResponse:
    return answers.said(request, HTTPStatus.GONE, link, _("This is over: no answer is taken any more."))


# -- What is sent -------------------------------------------------------------------------------------


def _payload(request: HttpRequest, link: Link, run: WorkflowRun) -> Any:
    """The payload, which fits the wait that is recorded, if one is. A signed one leaves the body unread."""
    signed = link.callback.payload_text
    if signed is not None:
        return _fitting(link, run, values.decode(signed))
    body = bodies.read(request, conf.max_value_bytes)
    if body.fields is None:
        return _fitting(link, run, body.value)
    form = _form(link, run, body.fields)
    if WHOLE in form.fields and WHOLE not in body.fields:  # the form of another program
        return _fitting(link, run, bodies.plain(body.fields))
    if not form.is_valid():
        raise _Misfit(form)
    return form.payload


def _form(link: Link, run: WorkflowRun, data: Any = None) -> EventForm:
    return EventForm(waited_type(run, link.callback.event), BROWSERS_OWN, data, mask=masked_keys(run.workflow))


def _fitting(link: Link, run: WorkflowRun, payload: Any) -> Any:
    check(waited_type(run, link.callback.event), payload, masked_keys(run.workflow))
    return payload


def _form_again(request: HttpRequest, link: Link, form: EventForm) -> HttpResponse:
    if answers.wants_page(request):
        return answers.page(request, HTTPStatus.BAD_REQUEST, link, form=form)
    return answers.misfit(request, link, form.complaints())
