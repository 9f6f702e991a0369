"""The answers of the endpoint: pages for people, JSON for machines. Neither is kept or framed, and no address leaks by them."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from ..forms.event import EventForm
from ..presentation import own_keys
from ..presentation.text import portable
from ..presentation.values import UNREADABLE, Mask, plain
from .bodies import FORM_TYPES
from .links import Link, State

logger = logging.getLogger("django_steps")

TEMPLATE = "django_steps/event.html"
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
}


def wants_page(request: HttpRequest) -> bool:
    """Whether a person is waiting: a browser says so, and what sends a form without saying anything is taken for one."""
    if request.method != "POST":
        return True
    accepted = request.headers.get("Accept", "").lower()
    if "text/html" in accepted or "application/json" in accepted:
        return "text/html" in accepted
    return request.content_type in FORM_TYPES


def said(request: HttpRequest, status: HTTPStatus, link: Link | None, problem: str = "") -> HttpResponse:
    """What has become of the event, or what is wrong: a page, or JSON."""
    if wants_page(request):
        return page(request, status, link, problem=problem)
    if status >= HTTPStatus.BAD_REQUEST or link is None:
        return finished(request, JsonResponse({"error": problem}, status=status), link)
    content = {"event": link.callback.event, "created": status == HTTPStatus.ACCEPTED}
    return finished(request, JsonResponse(content, status=status), link)


def misfit(request: HttpRequest, link: Link, errors: list[str]) -> HttpResponse:
    """That a payload doesn't fit what is waited for, and why."""
    problem = _("The payload does not fit what is waited for.")
    if wants_page(request):
        return page(request, HTTPStatus.BAD_REQUEST, link, problem=" ".join([problem, *errors]))
    content = {"error": problem, "errors": errors}
    return finished(request, JsonResponse(content, status=HTTPStatus.BAD_REQUEST), link)


def page(
    request: HttpRequest, status: HTTPStatus, link: Link | None, *, form: EventForm | None = None, problem: str = ""
) -> HttpResponse:
    """The page of the event. `state` is what it says: `ask`, `sent`, `used`, `over`, `bad` or `refused`."""
    context: dict[str, Any] = {"state": _state(request, status, link, form), "form": form, "problem": problem}
    if link is not None and link.run is not None:
        signed = link.callback.payload_text
        context |= {
            "run": link.run,
            "key": "" if link.run.key is None or own_keys.is_own(link.run.key) else link.run.key,
            "event": link.callback.event,
            "answer": None if signed is None else _rows(signed, Mask.of(link.run)),
        }
    return finished(request, render(request, TEMPLATE, context, status=status), link)


def _state(request: HttpRequest, status: HTTPStatus, link: Link | None, form: EventForm | None) -> str:
    if link is None:
        return "bad"
    if status == HTTPStatus.GONE:
        return "over"
    if status == HTTPStatus.ACCEPTED:
        return "sent"
    if form is not None or (request.method != "POST" and link.state is State.OPEN):
        return "ask"
    return "used" if status == HTTPStatus.OK else "refused"


def not_allowed(request: HttpRequest) -> HttpResponse:
    """The answer to another method."""
    response = JsonResponse({"error": _("Send a POST.")}, status=HTTPStatus.METHOD_NOT_ALLOWED)
    response["Allow"] = "GET, HEAD, POST"
    return finished(request, response, None)


def finished(request: HttpRequest, response: HttpResponse, link: Link | None) -> HttpResponse:
    """The answer with the headers that all have.

    It is logged here, since Django would log the address, which is a key and may hold a payload.
    """
    for name, value in _HEADERS.items():
        response[name] = value
    response._has_been_logged = True  # type: ignore[attr-defined]  # what Django looks at before it logs an answer
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        what = (
            "a token that is not valid"
            if link is None
            else f"event {link.callback.event!r} of run {link.callback.run_id}"
        )
        logger.info("A callback by %s was answered with %d: %s.", request.method, response.status_code, what)
    return response


def _rows(text: str, mask: Mask) -> list[tuple[str, str]]:
    """A signed payload for people: its members, or the one value without a name."""
    try:
        value = plain(text, mask)
    except UNREADABLE:
        return []
    members = value.items() if isinstance(value, dict) else [("", value)]
    return [(portable(name), portable(_text(item))) for name, item in members if item is not None or name]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return _("Yes") if value else _("No")
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
