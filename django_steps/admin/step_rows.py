"""The table of steps on the page of a run: a page of them, with results and what went wrong in each attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.paginator import Page, Paginator
from django.db.models import Case, F, When
from django.db.models.functions import Length
from django.http import HttpRequest
from django.utils.translation import gettext as _

from ..models import StepRecord, WorkflowRun
from ..presentation import steps as step_states
from . import display

if TYPE_CHECKING:
    from .runs import WorkflowRunAdmin

PER_PAGE = 100
SHOWN = 20_000  # characters of one step's value; larger ones are shown on a page of their own
_LINE = 100  # characters of a value that are shown unfolded


@dataclass
class StepRow:
    """One step in the table."""

    record: Any
    status: str
    result: str
    line: str  # the same in one line
    started: Any
    took: str
    until: str
    errors: list[dict[str, Any]]
    retry_url: str = ""
    size: int = 0
    whole_url: str = ""

    @property
    def is_folded(self) -> bool:
        return len(self.line) > _LINE

    @property
    def first_line(self) -> str:
        return display.clipped(self.line, _LINE)


def chosen_page(request: HttpRequest, steps: Sequence[StepRecord]) -> Page[StepRecord]:
    """The page that is asked for; else the one with the first failed step, else the first."""
    if (number := request.GET.get("step", "")).isdigit():
        steps = [step for step in steps if step.position == int(number)]
    failed = next((index for index, step in enumerate(steps) if step.status == StepRecord.Status.FAILED), 0)
    return Paginator(steps, PER_PAGE).get_page(request.GET.get("steps") or 1 + failed // PER_PAGE)


def rows(
    admin: WorkflowRunAdmin,
    request: HttpRequest,
    run: WorkflowRun,
    mask: display.Mask,
    chosen: Page[StepRecord],
    can_retry: bool,
) -> list[StepRow]:
    """The rows of a page of steps: one query."""
    limit = SHOWN if "step" not in request.GET else 1 << 30
    records = (
        StepRecord.objects.filter(pk__in=[step.pk for step in chosen])
        .defer("output_text")
        .annotate(size=Length("output_text"))
        .annotate(shown_output=Case(When(size__lte=limit, then=F("output_text"))))
        .order_by("position")
    )
    retry_url = admin.url_of("retry", run.pk) if can_retry else ""
    return [_step_row(run, record, mask, retry_url) for record in records]


def _step_row(run: WorkflowRun, record: Any, mask: display.Mask, retry_url: str) -> StepRow:
    status = step_states.status_of(run, record)
    row = StepRow(
        record=record,
        status=display.status_word(status, step_states.label_of(status)),
        result=display.readable(record.shown_output, mask),
        line=display.readable(record.shown_output, mask, indent=None),
        started=display.moment(record.started_at),
        took=display.duration(step_states.took(run, record)),
        until=_until(record),
        errors=_errors(record),
        retry_url=f"{retry_url}?{display.query(from_step=record.name)}" if retry_url else "",
    )
    if record.size and record.shown_output is None:
        row.size, row.whole_url = record.size, f"?step={record.position}#step-{record.position}"
    return row


def _until(record: StepRecord) -> str:
    """When a sleep ends or ended, and when the next attempt is due."""
    if record.wakes_at is None:
        return ""
    moment = f"{display.local_time(record.wakes_at):%Y-%m-%d %H:%M:%S}"
    if record.kind == StepRecord.Kind.SLEEP:
        return _("until %(moment)s") % {"moment": moment}
    if record.status == StepRecord.Status.RETRYING:
        return _("next attempt at %(moment)s") % {"moment": moment}
    return ""


def attempts(step: StepRecord) -> list[dict[str, Any]]:
    """The logged attempts of a step; none where the log can't be read."""
    try:
        return list(step.earlier_attempts)
    except (ValueError, TypeError, LookupError):
        return []


def _errors(record: StepRecord) -> list[dict[str, Any]]:
    """What went wrong in each attempt, the last one first.

    A retry of the run counts from 1 again: attempts before it have no number that would fit the count shown.
    """
    found = []
    if record.error_text is not None:
        found.append(_error(record.error, record.attempts, record.finished_at))
    for entry in reversed(attempts(record)):
        number = 0 if entry["before_retry"] else entry["attempt"]
        found.append(_error(entry["error"], number, entry["finished_at"]))
    return [error for error in found if error]


def _error(error: dict[str, Any] | None, attempt: int, at: Any) -> dict[str, Any]:
    if error is None:
        return {}
    label = _("Attempt %(number)d") % {"number": attempt} if attempt else _("An earlier attempt")
    line = display.error_text(str(error["type"]), str(error["message"]))
    return {**error, "label": label, "line": line, "at": display.moment(at)}
