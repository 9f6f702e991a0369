"""Discarding an event that no wait has taken: a page that asks, and the POST that does it."""

from __future__ import annotations

from django.contrib import messages
from django.db import router
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _

from ...ledger import database, discarding
from ...models import WorkflowEvent, WorkflowRun
from ...presentation import durations, events
from ...presentation.text import clipped
from ...presentation.values import Mask, readable
from ..base import RunAdminBase
from . import confirmation

_LONGEST_PAYLOAD = 2000  # characters


def discard_page(admin: RunAdminBase, request: HttpRequest, object_id: str, number: int) -> HttpResponse:
    """Discard an event of a run, which stays on its page as discarded."""
    run: WorkflowRun = admin.get_permitted(request, object_id, admin.has_send_event_permission)
    found = events.of_run(run, 0, 1, _LONGEST_PAYLOAD, only=number)
    if not found:
        raise Http404(_("The run has no event %(number)d.") % {"number": number})
    event = found[0]
    if request.method == "POST":
        return _discard(admin, request, run, event)
    if event.consumed_at is not None:
        return _back(admin, request, run, _nothing_done(event), messages.WARNING)
    named = {"name": clipped(event.name, 60), "moment": durations.moment(event.sent_at), "by": event.by}
    sent = (
        _("Event “%(name)s” was sent at %(moment)s by %(by)s.")
        if event.by
        else _("Event “%(name)s” was sent at %(moment)s.")
    )
    lines = [
        sent % named,
        _("It will be discarded: no wait takes it any more. It stays on the page of the run as discarded."),
    ]
    if event.shown_payload is not None:
        shown = readable(event.shown_payload, Mask.of(run), indent=None)
        lines.insert(1, _("Its payload: %(payload)s") % {"payload": shown})
    return confirmation.ask(
        admin, request, run, title=_("Discard an event"), lines=lines, button=_("Discard the event"), danger=True
    )


def _discard(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, event: WorkflowEvent) -> HttpResponse:
    connection = database.connection_for(router.db_for_write(WorkflowEvent))
    if not discarding.discard(connection, event.pk):
        event.refresh_from_db(fields=["consumed_at", "consumed_by"])
        return _back(admin, request, run, _nothing_done(event), messages.WARNING)
    done = _("Discarded event “%(name)s”.") % {"name": clipped(event.name, 60)}
    admin.log_change(request, run, done)
    return _back(admin, request, run, done, messages.SUCCESS)


def _nothing_done(event: WorkflowEvent) -> str:
    return _("Nothing was done: the event is %(state)s.") % {"state": events.state_of(event)}


def _back(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, text: str, level: int) -> HttpResponseRedirect:
    admin.message_user(request, text, level)
    return HttpResponseRedirect(admin.url_of("change", run.pk))
