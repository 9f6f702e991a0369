"""The timeline of a run: which bars, hatched spans and marks are drawn where. The drawing is a template.

Its size is bounded: beyond `MOST_ROWS` steps, consecutive steps share a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ...core import clock
from ...models import StepRecord, WorkflowRun
from ...presentation import runs
from ...presentation import steps as step_states
from ...presentation.durations import duration, local_time
from ...presentation.steps import counted
from ...presentation.text import clipped
from .scale import Scale

MOST_ROWS = 40
ROW_HEIGHT = 34
TOP, BOTTOM = 22, 26
_NARROWEST = 0.4  # percent
_EDGE = 0.8  # percent that a mark is wide to each side
_CLOSE = 0.5  # percent: what lies closer together is drawn as one


class Span(NamedTuple):
    """A stretch of time; `kind` is `step`, `failed`, `sleep`, `wait` or `now`."""

    kind: str
    start: float
    end: float


@dataclass
class Line:
    """What one step did, before it is placed."""

    position: int
    name: str
    status: str
    status_label: str
    attempts: int
    spans: list[Span]
    page: int = 1

    @property
    def is_sleep(self) -> bool:
        return any(span.kind == "sleep" for span in self.spans)

    @property
    def failures(self) -> int:
        return sum(span.kind == "failed" for span in self.spans)


@dataclass
class Bar:
    """A placed span: percent of the width."""

    kind: str
    x: float
    width: float


@dataclass
class Row:
    """One row of the drawing: a step, or several."""

    y: int
    label: str
    note: str
    title: str
    href: str
    status: str
    bars: list[Bar] = field(default_factory=list)
    marks: list[float] = field(default_factory=list)


class Recovery(NamedTuple):
    """A point where the run was recovered."""

    x: float
    title: str


@dataclass
class Timeline:
    """The drawing of a run."""

    rows: list[Row]
    recovery_log: list[Recovery]
    height: int
    width_of_time: str
    is_compressed: bool
    steps_in_a_row: int
    summary: str


def draw(run: WorkflowRun, steps: Sequence[StepRecord], failures: dict[int, list[Any]], per_page: int) -> Timeline:
    """The timeline of a run. `steps` are all its records in order, `failures` the logged attempts by position."""
    now = timezone.now()
    begin, end = _bounds(run, steps, now)
    lines = [
        Line(
            step.position,
            step.name,
            status := step_states.status_of(run, step),
            step_states.label_of(status),
            step.attempts,
            list(_spans(step, failures, end)),
            1 + index // per_page,
        )
        for index, step in enumerate(steps)
    ]
    lines += _present(run, lines, end)
    begin = min([begin, *(span.start for line in lines for span in line.spans)])
    scale = Scale(
        begin, end, ((s.start, s.end) for line in lines for s in line.spans if s.kind in ("step", "failed", "now"))
    )
    in_a_row = -(-len(lines) // MOST_ROWS) or 1
    groups = [lines[index : index + in_a_row] for index in range(0, len(lines), in_a_row)]
    rows = [_row(index, group, scale) for index, group in enumerate(groups)]
    return Timeline(
        rows=rows,
        recovery_log=[_recovery(entry, scale) for entry in runs.recovery_log(run)],
        height=TOP + len(rows) * ROW_HEIGHT + BOTTOM,
        width_of_time=duration(end - begin),
        is_compressed=scale.is_compressed,
        steps_in_a_row=in_a_row,
        summary=_summary(lines, end - begin),
    )


# -- What happened when ------------------------------------------------------------------------------


def _bounds(run: WorkflowRun, steps: Sequence[StepRecord], now: datetime) -> tuple[float, float]:
    begin = run.started_at or run.created_at
    if run.finished_at is not None:
        ends = [run.finished_at, *(step.finished_at for step in steps[-1:] if step.finished_at and step.kind == "step")]
        return begin.timestamp(), max(ends).timestamp()
    due = run.wakes_at if run.status == run.Status.SLEEPING else None
    return begin.timestamp(), max(now, due or now).timestamp()


def _spans(step: StepRecord, failures: dict[int, list[Any]], end: float) -> Iterator[Span]:
    if step.started_at is None:  # damaged: some databases take anything, or a date without a day
        return
    started = step.started_at.timestamp()
    if step.kind == StepRecord.Kind.SLEEP:
        wakes = step.wakes_at.timestamp() if step.wakes_at else started
        yield Span("sleep", min(started, end), min(wakes, end))
        return
    attempts = [
        Span("failed", entry["started_at"].timestamp(), entry["finished_at"].timestamp())
        for entry in failures.get(step.position, ())
        if entry["started_at"] and entry["finished_at"]
    ]
    if step.status != StepRecord.Status.RETRYING and step.finished_at is not None:
        kind = "failed" if step.status == StepRecord.Status.FAILED else "step"
        attempts.append(Span(kind, started, step.finished_at.timestamp()))
    yield from attempts
    for earlier, later in pairwise(attempts):
        yield Span("wait", earlier.end, later.start)
    if step.status == StepRecord.Status.RETRYING and attempts:
        due = clock.to_datetime(step.wakes_at_us).timestamp() if step.wakes_at_us else end
        yield Span("wait", attempts[-1].end, min(max(due, attempts[-1].end), end))


def _present(run: WorkflowRun, lines: list[Line], end: float) -> list[Line]:
    """The step that is executing now, of which nothing is recorded yet."""
    if run.status not in (run.Status.RUNNING, run.Status.CANCELING) or not run.current_step:
        return []
    started = max([span.end for line in lines for span in line.spans] or [end])
    now = Span("now", min(started, end), end)
    for line in lines:
        if line.name == run.current_step:
            line.spans.append(now)
            return []
    return [
        Line(len(lines) + 1, run.current_step, "running", _("executing now"), 1, [now], lines[-1].page if lines else 1)
    ]


# -- Where it is drawn -------------------------------------------------------------------------------


def _row(index: int, lines: list[Line], scale: Scale) -> Row:
    spans = [span for line in lines for span in line.spans]
    failed = sum(line.failures for line in lines)
    status = "failed" if any(line.status == "failed" for line in lines) else lines[-1].status
    taken = duration(max((s.end for s in spans), default=0) - min((s.start for s in spans), default=0))
    first, last = lines[0], lines[-1]
    if len(lines) == 1:
        label, note = first.name, taken
        parts = [first.name, _status_text(first), taken]
    else:
        label = f"{first.name} … {last.name}"
        note = f"{_counted(lines)}, {taken}"
        parts = [label, note]
    if failed:
        parts.append(ngettext("%d failed attempt", "%d failed attempts", failed) % failed)
    return Row(
        y=TOP + index * ROW_HEIGHT,
        label=clipped(label, 60),
        note=note,
        title=", ".join(parts),
        href=f"?steps={first.page}#step-{first.position}",
        status=status,
        bars=list(_bars(spans, scale)),
        marks=list(_marks(spans, scale)),
    )


def _bars(spans: Iterable[Span], scale: Scale) -> Iterator[Bar]:
    """The spans in their places; those of one kind that touch are one bar."""
    open_bars: dict[str, Bar] = {}
    for span in sorted(spans, key=lambda span: span.start):
        x, stop = scale.percent(span.start), scale.percent(span.end)
        bar = open_bars.get(span.kind)
        if bar is not None and x - (bar.x + bar.width) < _CLOSE and span.kind in ("step", "sleep"):
            bar.width = max(bar.width, stop - bar.x)
            continue
        if bar is not None:
            yield _rounded(bar)
        open_bars[span.kind] = Bar(span.kind, min(x, 100 - _NARROWEST), max(stop - x, _NARROWEST))
    for bar in open_bars.values():
        yield _rounded(bar)


def _rounded(bar: Bar) -> Bar:
    return Bar(bar.kind, round(bar.x, 2), round(min(bar.width, 100 - bar.x), 2))


def _marks(spans: Iterable[Span], scale: Scale) -> Iterator[float]:
    """Where attempts failed."""
    last = -1.0
    for span in sorted((span for span in spans if span.kind == "failed"), key=lambda span: span.end):
        x = scale.percent(span.end)
        if x - last >= _CLOSE:
            yield round(min(max(x, _EDGE), 100 - _EDGE), 2)
            last = x


def _recovery(entry: dict[str, Any], scale: Scale) -> Recovery:
    title = f"{local_time(entry['at']):%H:%M:%S}: {runs.recovery_line(entry)}"
    return Recovery(round(scale.percent(entry["at"].timestamp()), 2), title)


def _status_text(line: Line) -> str:
    if line.attempts < 2:
        return line.status_label
    return _("%(status)s after %(count)d attempts") % {"status": line.status_label, "count": line.attempts}


def _summary(lines: list[Line], seconds: float) -> str:
    failed = sum(line.failures for line in lines)
    text = _("%(steps)s in %(time)s") % {"steps": _counted(lines), "time": duration(seconds)}
    return f"{text}; {ngettext('%d failed attempt', '%d failed attempts', failed) % failed}" if failed else text


def _counted(lines: list[Line]) -> str:
    sleeps = sum(line.is_sleep for line in lines)
    return counted(len(lines) - sleeps, sleeps)
