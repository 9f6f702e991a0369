"""What each step of a run did when, and each branch and group: the lines of the timeline before they are placed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from django.utils.translation import gettext as _

from ...core import clock
from ...core.states import FINAL
from ...models import StepRecord, WorkflowRun
from ...presentation import steps as step_states
from ...presentation.tree import Counts, Node
from . import folds

_WAITS = (StepRecord.Kind.POLL, StepRecord.Kind.EVENT, StepRecord.Kind.INVOKE)
EXECUTING = ("step", "failed", "canceled", "now")  # the kinds of spans in which something was executed


class Span(NamedTuple):
    """A stretch of time; `kind` is `step`, `failed`, `canceled`, `sleep`, `wait` or `now`."""

    kind: str
    start: float
    end: float


@dataclass
class Line:
    """What one step did, or all that is in a branch or group."""

    name: str
    status: str
    spans: list[Span]
    attempts: int = 1
    level: int = 0
    node: Node | None = None  # None: the step that is executing now
    around: Node | None = None  # the branch or group that it is in
    page: int = 1  # of the table of steps
    steps: int = 1
    sleeps: int = 0
    members: list[Line] = field(default_factory=list)
    contents: str = ""  # of a map of child runs, which has no steps: how many there are

    @property
    def failures(self) -> int:
        return sum(span.kind == "failed" for span in self.spans)

    @property
    def status_label(self) -> str:
        if self.node is None:
            return _("executing now")
        return str(Counts(self.node)) if self.node.is_group else step_states.label_of(self.status)

    @property
    def mark(self) -> str:
        """What is to be said of its record; empty for most."""
        return "" if self.node is None or self.node.record is None else step_states.mark(self.node.record)

    @property
    def href(self) -> str:
        """The address of its row in the table of steps."""
        if self.node is None:
            return f"?steps={self.page}#steps-table-title"
        if self.around is None:
            return f"?steps={self.page}#{folds.row_id(self.node)}"
        if self.members:
            return folds.address(self.node)
        return f"?{folds.query_of(self.around)}#{folds.row_id(self.node)}"

    @property
    def is_group(self) -> bool:
        return self.node is not None and self.node.is_container

    @property
    def height(self) -> int:
        """How many rows it takes with all that is in it."""
        return 1 + sum(member.height for member in self.members)


def lines_of(run: WorkflowRun, node: Node, failures: Mapping[int, list[Any]], end: float) -> list[Line]:
    """A line for each member of the body, or of a branch or group, with the lines of what is in it."""
    around = node if node.is_container else None
    return [_line(run, member, around, failures, end) for member in node.in_order()]


def _line(run: WorkflowRun, node: Node, around: Node | None, failures: Mapping[int, list[Any]], end: float) -> Line:
    if node.is_container:
        members = lines_of(run, node, failures, end)
        spans, contents = [span for member in members for span in member.spans], ""
        if node.record is not None and not members and step_states.planned(node.record):
            spans, contents = list(_spans_of_wait(node.record, failures, end)), str(Counts(node))
        return Line(
            name=node.label,
            status=node.status,
            spans=spans,
            node=node,
            around=around,
            steps=sum(member.steps for member in members),
            sleeps=sum(member.sleeps for member in members),
            members=members,
            contents=contents,
        )
    assert node.record is not None
    is_sleep = node.kind == StepRecord.Kind.SLEEP
    return Line(
        name=node.label,
        status=node.status,
        spans=list(_spans(node.record, failures, end)),
        attempts=node.record.attempts,
        node=node,
        around=around,
        steps=int(not is_sleep),
        sleeps=int(is_sleep),
    )


def bounds(run: WorkflowRun, steps: Sequence[StepRecord], now: datetime) -> tuple[float, float]:
    """From when to when something happened, or will have."""
    begin = run.started_at or run.created_at
    if run.finished_at is not None:
        last = [step.finished_at for step in steps[-1:] if step.finished_at and step.kind != StepRecord.Kind.SLEEP]
        return begin.timestamp(), max([run.finished_at, *last]).timestamp()
    due = run.wakes_at if run.status == run.Status.SLEEPING else None
    return begin.timestamp(), max(now, due or now).timestamp()


def _spans(step: StepRecord, failures: Mapping[int, list[Any]], end: float) -> Iterator[Span]:
    if step.started_at is None:  # damaged: some databases take anything, or a date without a day
        return
    started = step.started_at.timestamp()
    if step.kind == StepRecord.Kind.SLEEP:
        wakes = step.wakes_at.timestamp() if step.wakes_at else end if step.finished_at else started
        if step.finished_at:  # canceled before it was over
            wakes = min(wakes, step.finished_at.timestamp())
        yield Span("sleep", min(started, end), min(wakes, end))
        return
    if step.kind in _WAITS:
        yield from _spans_of_wait(step, failures, end)
        return
    attempts = _failed(step, failures)
    if step.status != StepRecord.Status.RETRYING and step.finished_at is not None:
        attempts.append(Span(_kind_of(step), started, step.finished_at.timestamp()))
    yield from attempts
    for earlier, later in pairwise(attempts):
        yield Span("wait", earlier.end, later.start)
    if step.status == StepRecord.Status.RETRYING and attempts:
        due = clock.to_datetime(step.wakes_at_us).timestamp() if step.wakes_at_us else end
        yield Span("wait", attempts[-1].end, min(max(due, attempts[-1].end), end))


def _failed(step: StepRecord, failures: Mapping[int, list[Any]]) -> list[Span]:
    return [
        Span("failed", entry["started_at"].timestamp(), entry["finished_at"].timestamp())
        for entry in failures.get(step.position, ())
        if entry["started_at"] and entry["finished_at"]
    ]


def _spans_of_wait(step: StepRecord, failures: Mapping[int, list[Any]], end: float) -> Iterator[Span]:
    """A poll, an event or children are waited for from when it is reached to the outcome. When the checks of a poll were is not
    kept, but for those that failed."""
    if step.started_at is None:
        return
    started = step.started_at.timestamp()
    stop = step.finished_at.timestamp() if step.finished_at and step.status in FINAL else end
    yield Span("wait", min(started, stop), stop)
    yield from _failed(step, failures)
    if step.status in FINAL:
        yield Span(_kind_of(step), stop, stop)


def _kind_of(step: StepRecord) -> str:
    """The kind of the last span of a step that has ended."""
    return str(step.status) if step.status in (StepRecord.Status.FAILED, StepRecord.Status.CANCELED) else "step"


def add_present(run: WorkflowRun, lines: list[Line], end: float) -> None:
    """Add the step that is executing now, of which nothing is recorded yet."""
    if run.status not in (run.Status.RUNNING, run.Status.CANCELING) or not run.current_step:
        return
    started = max([span.end for line in lines for span in line.spans if span.end < end] or [end])
    now = Span("now", min(started, end), end)
    chain = _chain_to(lines, run.current_step)
    for line in chain:
        line.spans.append(now)
    if not chain:
        lines.append(Line(run.current_step, "running", [now]))


def _chain_to(lines: list[Line], path: str) -> list[Line]:
    """The lines around the one of this path, and that one; none if there is no such."""
    for line in lines:
        if line.node is not None and line.node.path == path and not line.is_group:
            return [line]
        if line.members and (found := _chain_to(line.members, path)):
            return [line, *found]
    return []
