"""What the list shows of each run. The queries behind it are in `changelist.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ...models import WorkflowRun
from ...presentation import durations, errors, pauses, runs, steps
from ...presentation.text import clipped
from .. import html
from . import failures, subject, tags

_USUAL_QUEUE = WorkflowRun._meta.get_field("queue").get_default()


class RunColumns:
    """The columns of the list, as methods that `list_display` names."""

    if TYPE_CHECKING:

        def url_of(self, name: str, *args: Any) -> str: ...

    @admin.display(description=_("run"))
    def run_name(self, run: Any) -> SafeString:
        """The workflow above what the run is about and the end of the id: together they fit a narrow column."""
        version = format_html(" <small>{}</small>", clipped(run.version, 20)) if run.version else ""
        about = subject.of(run, run.input_start)
        title = subject.key_of(run) or about
        return format_html(
            '{}{}{}<code title="{}">{}</code>',
            clipped(run.workflow, 60),
            version,
            format_html('<span class="steps-subject" title="{}">{}</span>', title, about)
            if about
            else mark_safe("<br>"),
            run.pk,
            subject.short_id(run),
        )

    @admin.display(description=_("status"))
    def status_word(self, run: WorkflowRun) -> SafeString:
        notes: list[Any] = []
        if run.queue != _USUAL_QUEUE:
            notes.append(gettext("queue %(queue)s") % {"queue": clipped(run.queue, 40)})
        if tries := runs.tries(run):
            notes.append(tries)
        if run.parent_id is not None:
            notes.append(format_html('<a href="{}">{}</a>', self.url_of("change", run.parent_id), gettext("child run")))
        word = html.status_word(run.status)
        return format_html("{}{}", word, format_html_join("", "<br><small>{}</small>", ((note,) for note in notes)))

    @admin.display(description=_("tags"))
    def run_tags(self, run: WorkflowRun) -> SafeString:
        """Each with a link to the runs that have it, what the run is about first."""
        return tags.links(self.url_of, run)

    @admin.display(description=_("progress"))
    def progress(self, run: Any) -> SafeString:
        """How far it is, what it does now, and the error of a failed run."""
        recorded = steps.counted(run.step_count, run.sleep_count)
        failing = runs.failing(run, run.retrying, errors.line_of_start(run.error_start))
        held = pauses.held(run)
        where = runs.where_now(run, failing, run.waits, held)
        is_waiting = run.status == run.Status.WAITING
        now = runs.where_now(run, "", run.waits, held) if is_waiting else held if failing else where
        lines: list[Any] = [", ".join(filter(None, [recorded, now]))]
        if failing:
            lines.append(
                format_html('<span class="steps-error-line" title="{}">{}</span>', where, clipped(failing, 200))
            )
            if run.wakes_at and not is_waiting:
                text = gettext("next attempt at %(moment)s") % {"moment": durations.moment(run.wakes_at)}
                lines.append(format_html('<small class="steps-quiet">{}</small>', text))
        if bar := html.progress_bar(run):
            lines.append(bar)
        if run.status == run.Status.FAILED:
            line = errors.line_of_start(run.error_start)
            step = self._failed_step(run) if run.failed_step else ""
            # The line is a block of its own.
            lines.append(
                format_html('<span class="steps-error-line" title="{}">{}</span>{}', line, clipped(line, 160), step)
            )
        return format_html_join(mark_safe("<br>"), "{}", ((line,) for line in lines))

    def _failed_step(self, run: WorkflowRun) -> SafeString:
        """The step, which leads to the runs that failed in the same way."""
        kind = html.query(**failures.parameters_of(run.workflow, run.error_type, run.failed_step))
        return format_html(
            '<small class="steps-quiet">{} <a href="{}?status__exact=failed&amp;{}">{}</a></small>',
            gettext("in step"),
            self.url_of("changelist"),
            kind,
            clipped(run.failed_step, 60),
        )

    @admin.display(description=_("started"))
    def started(self, run: WorkflowRun) -> SafeString | str:
        """When, and how long it took, or has been taking."""
        if run.started_at is None:
            return html.NOTHING
        text = gettext("took %(time)s") if run.is_finished else gettext("for %(time)s")
        taken = text % {"time": html.duration(runs.took(run))}
        return format_html('{} <br><small class="steps-quiet">{}</small>', html.moment(run.started_at), taken)
