"""The page that sends an event to a run: choose which, fill in its form, and confirm it with the button.

A GET changes nothing. Pressed twice, one event is sent.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID, uuid4

from django import forms
from django.contrib import messages
from django.contrib.admin import widgets
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...core.event import check_event_name
from ...core.names import MAX_LENGTH
from ...definitions import masked_keys
from ...errors import InvalidName, InvalidState, StepsError
from ...forms.event import EventForm
from ...forms.members import members_of
from ...forms.waits import events_of, waited_type, waiting_records
from ...models import WorkflowRun
from ...presentation.text import clipped, portable
from .. import html
from ..base import RunAdminBase
from ..fields import ANSWER
from ..list import subject

# No member of a type has a hyphen in its name.
_PRESS = "press-id"
_LONGEST_NAME = 60  # characters of an event's name within a sentence
_LONGEST_COMPLAINT = 1000  # characters


class NameForm(forms.Form):
    """Which event is sent, where the run waits for none or for another one."""

    name = forms.CharField(
        label=gettext_lazy("Event"),
        max_length=MAX_LENGTH,
        widget=widgets.AdminTextInputWidget,
        help_text=gettext_lazy("The name that the workflow waits for."),
    )

    def clean_name(self) -> str:
        try:
            return check_event_name(self.cleaned_data["name"])
        except InvalidName as error:
            raise forms.ValidationError(portable(clipped(str(error), _LONGEST_COMPLAINT))) from None


class Wait(NamedTuple):
    """An event that the run waits for, until when, and the address of its form."""

    event: str
    until: Any
    url: str


def send_event_page(admin: RunAdminBase, request: HttpRequest, object_id: str) -> HttpResponse:
    """Choose the event; then its form; then back to the run."""
    run: WorkflowRun = admin.get_permitted(request, object_id, admin.has_send_event_permission)
    if run.status == run.Status.SUCCEEDED:  # others keep events: a retry may want them
        return _refuse(admin, request, run)
    name = _chosen(request, run)
    name_form = NameForm(None if name is None else {"name": name}, label_suffix="")
    if name is None or not name_form.is_valid():
        return _page(admin, request, run, _("Send an event"), name_form=name_form, waits=_waits(admin, run))
    name = name_form.cleaned_data["name"]
    form = EventForm(
        waited_type(run, name),
        ANSWER,
        request.POST if request.method == "POST" else None,
        mask=masked_keys(run.workflow),
    )
    if request.method == "POST" and form.is_valid() and (answer := _send(admin, request, run, name, form)) is not None:
        return answer
    return _page(
        admin,
        request,
        run,
        _("Send “%(event)s”") % {"event": clipped(name, _LONGEST_NAME)},
        form=form,
        event=name,
        press=(_PRESS, uuid4()),
        waits=[wait for wait in _waits(admin, run) if wait.event == name],
    )


def url_of(admin: RunAdminBase, run: WorkflowRun, event: str) -> str:
    """The address of the form for this event."""
    return f"{admin.url_of('send_event', run.pk)}?{html.query(name=event)}"


def _chosen(request: HttpRequest, run: WorkflowRun) -> str | None:
    """The name in the address. Of a form without it: what was posted as `name`, unless that is a member of what the run's only
    wait takes; or the event of that wait."""
    name = request.GET.get("name")
    if name or request.method != "POST":
        return name
    only = run.waiting_for[0] if len(run.waiting_for) == 1 else None
    posted = request.POST.get("name")
    if posted and not (only and _has_name(waited_type(run, only))):
        return posted
    return only


def _has_name(type_: Any) -> bool:
    return any(member.name == "name" for member in members_of(type_) or ())


def _waits(admin: RunAdminBase, run: WorkflowRun) -> list[Wait]:
    """What the run waits for, by the waits that it has recorded."""
    found: dict[str, Wait] = {}
    for record in waiting_records(run):
        for event in events_of(record):
            until = html.moment(record.wakes_at) if record.wakes_at is not None else ""
            found.setdefault(event, Wait(event, until, url_of(admin, run, event)))
    return list(found.values())


def _send(
    admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, name: str, form: EventForm
) -> HttpResponse | None:
    """Send it, and go back to the run; None if the form says what is wrong."""
    by = str(request.user.get_username())[:MAX_LENGTH]
    try:
        event = run.send_event(name, form.payload, id=_event_id(request), by=by)
    except InvalidState:
        return _refuse(admin, request, run)
    except StepsError as error:
        form.add_error(None, portable(clipped(str(error), _LONGEST_COMPLAINT)))
        return None
    shown = {"event": clipped(name, _LONGEST_NAME)}
    if not event.created:
        text = _("Nothing was done: “%(event)s” was sent already.") % shown
        return _back(admin, request, run, text, messages.WARNING)
    text = _("Sent “%(event)s”.") % shown
    admin.log_change(request, run, text)
    return _back(admin, request, run, text, messages.SUCCESS)


def _event_id(request: HttpRequest) -> str | None:
    """The id of one press of the button; None for what the page did not send, which is an event each time."""
    try:
        return f"press:{UUID(request.POST[_PRESS])}"
    except (LookupError, ValueError):
        return None


def _refuse(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun) -> HttpResponse:
    run.refresh_from_db(fields=["status"])
    text = _("A run that is %(status)s takes no events.") % {"status": run.get_status_display()}
    return _back(admin, request, run, text, messages.WARNING)


def _back(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, text: str, level: int) -> HttpResponseRedirect:
    admin.message_user(request, text, level)
    return HttpResponseRedirect(admin.url_of("change", run.pk))


def _page(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, title: str, **context: Any) -> TemplateResponse:
    form = context.get("form") or context.get("name_form")
    return admin.render(
        request,
        admin.send_event_template,
        title,
        subtitle=" · ".join((run.workflow, *subject.names_of(run))),
        original=run,
        run=run,
        media=admin.media + form.media if form is not None else admin.media,
        errors=form.errors if form is not None else None,
        back_url=admin.url_of("change", run.pk),
        choose_url=admin.url_of("send_event", run.pk),
        **context,
    )
