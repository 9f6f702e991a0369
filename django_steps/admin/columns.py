"""What the list says of each run. The queries behind it are in `changelist.py`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from ..models import WorkflowRun
from . import display, subject

_USUAL_QUEUE = WorkflowRun._meta.get_field("queue").get_default()


class RunColumns:
    """The columns of the list, as methods that `list_display` names."""

    @admin.display(description=_("run"))
    def run_name(self, run: Any) -> SafeString:
        """The workflow above what the run is about and the end of the id: together they fit a narrow column."""
        version = format_html(" <small>{}</small>", display.clipped(run.version, 20)) if run.version else ""
        about = subject.of(run, run.input_start)
        title = subject.key_of(run) or about
        return format_html(
            '{}{}{}<code title="{}">{}</code>',
            display.clipped(run.workflow, 60),
            version,
            format_html('<span class="steps-subject" title="{}">{}</span>', title, about)
            if about
            else mark_safe("<br>"),
            run.pk,
            short_id(run),
        )

    @admin.display(description=_("status"))
    def status_word(self, run: WorkflowRun) -> SafeString:
        notes = [gettext("no worker knows it")] if run.phase == run.Phase.UNKNOWN else []
        if run.queue != _USUAL_QUEUE:
            notes.append(gettext("queue %(queue)s") % {"queue": display.clipped(run.queue, 40)})
        if (count := tries(run)) is not None:
            notes.append(count)
        word = display.status_word(run.status, run.get_status_display())
        return format_html("{}{}", word, format_html_join("", "<br><small>{}</small>", ((note,) for note in notes)))

    @admin.display(description=_("progress"))
    def progress(self, run: Any) -> SafeString:
        """How far it is, what it does now, and the error of a failed run."""
        recorded = display.step_counts(run.step_count, run.sleep_count)
        lines: list[Any] = [", ".join(filter(None, [recorded, where_now(run)]))]
        if run.progress_total and run.status != run.Status.SUCCEEDED:
            lines.append(display.progress_bar(run.progress_done, run.progress_total))
        if run.status == run.Status.FAILED:
            line = display.error_line(run.error_start)
            lines.append(
                format_html('<span class="steps-error-line" title="{}">{}</span>', line, display.clipped(line, 160))
            )
        return format_html_join(mark_safe("<br>"), "{}", ((line,) for line in lines))

    @admin.display(description=_("started"))
    def started(self, run: WorkflowRun) -> SafeString | str:
        """When, and how long it took, or has been taking."""
        if run.started_at is None:
            return display.moment(None)
        text = gettext("took %(time)s") if run.is_finished else gettext("for %(time)s")
        taken = text % {"time": display.duration(took(run))}
        return format_html('{} <br><small class="steps-quiet">{}</small>', display.moment(run.started_at), taken)


def short_id(run: WorkflowRun) -> str:
    """The last group of the id: what differs between runs of the same moment."""
    return f"…{str(run.pk)[-12:]}"


def names_of(run: WorkflowRun) -> list[str]:
    """By what people know a run whose columns are all loaded: what it is about, if that is known, and its id."""
    about = subject.of(run, run.input_text[: subject.READ])
    return [*([about] if about else []), short_id(run)]


def where_now(run: WorkflowRun) -> str:
    """What an active run is doing: `now: charge`, `sleeping until …`; empty for others."""
    if run.status in (run.Status.RUNNING, run.Status.CANCELING) and run.current_step:
        return gettext("now: %(step)s") % {"step": display.clipped(run.current_step, 60)}
    if run.status in (run.Status.SLEEPING, run.Status.PENDING) and (due := run.wakes_at):
        return gettext("waits until %(moment)s") % {"moment": f"{display.local_time(due):%Y-%m-%d %H:%M:%S}"}
    return ""


def tries(run: WorkflowRun) -> str | None:
    """The attempts and recovery_log where there was more than one, or any."""
    parts = []
    if run.attempts > 1:
        parts.append(ngettext("%d attempt", "%d attempts", run.attempts) % run.attempts)
    if run.recoveries:
        parts.append(ngettext("%d recovery", "%d recoveries", run.recoveries) % run.recoveries)
    return ", ".join(parts) or None


def took(run: WorkflowRun) -> Any:
    """How long the run took, or has been taking, since it was first claimed; None before that."""
    if run.started_at is None:
        return None
    return (run.finished_at or timezone.now()) - run.started_at
