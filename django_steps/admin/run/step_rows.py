"""The table of steps on the page of a run: a page of them, with results and what went wrong in each attempt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.core.paginator import Page, Paginator
from django.db.models import Case, F, When
from django.db.models.functions import Length
from django.http import HttpRequest
from django.utils.text import capfirst

from ...models import StepRecord, WorkflowRun
from ...presentation import steps
from ...presentation.steps import FailedAttempt
from ...presentation.text import clipped
from ...presentation.values import Mask, readable
from .. import html
from ..base import RunAdminBase

PER_PAGE = 100
SHOWN = 20_000  # characters of one step's value; larger ones are shown on a page of their own
_POSITION = re.compile(r"[0-9]{1,9}")
_LINE = 100  # characters of a value that are shown unfolded


class Failure(NamedTuple):
    """An attempt that failed, as it is shown folded and unfolded."""

    label: str
    line: str
    at: Any
    text: str


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
    attempts: str
    failures: list[Failure]
    retry_url: str = ""
    size: int = 0
    whole_url: str = ""

    @property
    def is_folded(self) -> bool:
        return len(self.line) > _LINE

    @property
    def first_line(self) -> str:
        return clipped(self.line, _LINE)


def chosen_page(request: HttpRequest, records: Sequence[StepRecord], *, is_live: bool) -> Page[StepRecord]:
    """The page that is asked for; else the one with the first failed step; else the last of a run that goes on, and the
    first of one that has ended."""
    if (position := whole_step(request)) is not None:
        records = [record for record in records if record.position == position]
    default = max(len(records) - 1, 0) if is_live else 0
    shown = next((index for index, record in enumerate(records) if record.status == StepRecord.Status.FAILED), default)
    return Paginator(records, PER_PAGE).get_page(request.GET.get("steps") or 1 + shown // PER_PAGE)


def whole_step(request: HttpRequest) -> int | None:
    """The position of the step that is asked for alone, whose result is shown however large it is."""
    match = _POSITION.fullmatch(request.GET.get("step", ""))
    return int(match[0]) if match else None


def rows(
    admin: RunAdminBase,
    request: HttpRequest,
    run: WorkflowRun,
    mask: Mask,
    chosen: Page[StepRecord],
    can_retry: bool,
) -> list[StepRow]:
    """The rows of a page of steps: one query."""
    limit = SHOWN if whole_step(request) is None else 1 << 30
    records = (
        StepRecord.objects.filter(pk__in=[step.pk for step in chosen])
        .defer("output_text")
        .annotate(size=Length("output_text"))
        .annotate(shown_output=Case(When(size__lte=limit, then=F("output_text"))))
        .order_by("position")
    )
    retry_url = admin.url_of("retry", run.pk) if can_retry else ""
    return [_step_row(run, record, mask, retry_url) for record in records]


def _step_row(run: WorkflowRun, record: Any, mask: Mask, retry_url: str) -> StepRow:
    row = StepRow(
        record=record,
        status=html.status_word(steps.status_of(run, record)),
        result=readable(record.shown_output, mask),
        line=readable(record.shown_output, mask, indent=None),
        started=html.moment(record.started_at),
        took=html.duration(steps.took(run, record)),
        until=steps.until(record),
        attempts=steps.attempts(record),
        failures=[_failure(attempt) for attempt in steps.failed_attempts(record)],
        retry_url=f"{retry_url}?{html.query(from_step=record.name)}" if retry_url else "",
    )
    if record.size and record.shown_output is None:
        row.size, row.whole_url = record.size, f"?step={record.position}#step-{record.position}"
    return row


def _failure(attempt: FailedAttempt) -> Failure:
    error = attempt.error or {"traceback": "", "message": ""}
    at = "" if attempt.at is None else html.moment(attempt.at)
    return Failure(capfirst(attempt.label), attempt.line, at, str(error["traceback"] or error["message"]))
