"""The timeline of a run: which bars, hatched spans and marks are drawn where. The drawing is a template.

Its size is bounded: what is in a small branch or group has rows below it, what is in a large one has a drawing of its own
that is folded, and beyond `MOST_ROWS` rows consecutive steps share a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ...models import StepRecord, WorkflowRun
from ...presentation import runs
from ...presentation.durations import duration, local_time
from ...presentation.steps import counted
from ...presentation.text import clipped
from ...presentation.tree import Counts, Node, and_more
from . import folds
from .lines import EXECUTING, Line, Span, add_present, bounds, lines_of
from .scale import Scale

MOST_ROWS = 40
SMALL = 12  # rows of a branch or group that are drawn in place
MOST_FOLDS = 5  # drawings of large branches and groups
ROW_HEIGHT = 34
INDENT = 14
TOP, BOTTOM = 22, 26
_NARROWEST = 0.4  # percent
_EDGE = 0.8  # percent that a mark is wide to each side
_CLOSE = 0.5  # percent: what lies closer together is drawn as one
_KINDS = ("sleep", "wait", "canceled", "step", "failed", "now")  # in a row of several steps: what is drawn over what


@dataclass
class Bar:
    """A placed span: percent of the width."""

    kind: str
    x: float
    width: float


@dataclass
class Row:
    """One row of the drawing: a step, a branch or group, or several."""

    y: int
    x: int
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
class Drawing:
    """Rows on one scale."""

    rows: list[Row]
    height: int
    width_of_time: str
    is_compressed: bool
    summary: str
    recovery_log: list[Recovery] = field(default_factory=list)


class Fold(NamedTuple):
    """The drawing of what is in a large branch or group."""

    id: str
    name: str
    counts: str
    drawing: Drawing


@dataclass
class Timeline(Drawing):
    """The drawing of a run."""

    steps_in_a_row: int = 1
    folds: list[Fold] = field(default_factory=list)

    @property
    def drawings(self) -> list[Drawing]:
        return [self, *(fold.drawing for fold in self.folds)]

    @property
    def has_canceled(self) -> bool:
        """Whether the bar of something canceled is in it."""
        return any(bar.kind == "canceled" for drawing in self.drawings for row in drawing.rows for bar in row.bars)


def draw(run: WorkflowRun, root: Node, steps: Sequence[StepRecord], failures: dict[int, list[Any]]) -> Timeline:
    """The timeline of a run. `steps` are all its records in order, `root` the same as a tree, and `failures` the logged
    attempts by position."""
    begin, end = bounds(run, steps, timezone.now())
    lines = lines_of(run, root, failures, end)
    add_present(run, lines, end)
    for index, line in enumerate(lines):
        line.page = 1 + max(min(index, len(root.members) - 1), 0) // folds.PER_PAGE
    begin = min([begin, *(span.start for line in lines for span in line.spans)])
    scale = _scale(lines, begin, end)
    in_a_row = -(-len(lines) // MOST_ROWS) or 1
    large = [line for line in lines if line.members]
    if in_a_row == 1:
        shown, large = _unfolded(lines)
        groups = [[line] for line in shown]
    else:
        groups = [lines[index : index + in_a_row] for index in range(0, len(lines), in_a_row)]
    rows = _rows(groups, scale)
    return Timeline(
        rows=rows,
        height=_height(rows),
        width_of_time=duration(end - begin),
        is_compressed=scale.is_compressed,
        summary=_summary(lines, end - begin),
        recovery_log=[_recovery(entry, scale) for entry in runs.recovery_log(run)],
        steps_in_a_row=in_a_row,
        folds=[_fold(line) for line in _first_of(large)],
    )


def _unfolded(lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """The lines with those of the small branches and groups among them, and the large ones, which are only a line."""
    room = MOST_ROWS - len(lines)
    shown, large = [], []
    for line in lines:
        shown.append(line)
        if not line.members:
            continue
        if line.height - 1 <= min(SMALL, room):
            room -= line.height - 1
            shown += _below(line, 1)
        else:
            large.append(line)
    return shown, large


def _below(line: Line, level: int) -> Iterator[Line]:
    for member in line.members:
        member.level = level
        yield member
        yield from _below(member, level + 1)


def _first_of(large: Iterable[Line]) -> list[Line]:
    """Those that get a drawing of their own: those first in which something has not gone well."""
    return sorted(large, key=lambda line: line.node is None or line.node.is_smooth)[:MOST_FOLDS]


def _fold(line: Line) -> Fold:
    """The drawing of what is in a branch or group, on a scale of its own; what there is no room for shares a row."""
    node = line.node
    assert node is not None
    begin = min((span.start for span in line.spans), default=0.0)
    end = max((span.end for span in line.spans), default=begin)
    scale = _scale(line.members, begin, end)
    most = len(line.members) if len(line.members) <= MOST_ROWS else MOST_ROWS - 1
    rows = _rows([[member] for member in line.members[:most]], scale)
    if rest := line.members[most:]:
        row = _row(len(rows), rest, scale)
        row.label, row.href = and_more(len(rest)), folds.address(node, most // folds.PER_FOLD * folds.PER_FOLD)
        rows.append(row)
    drawing = Drawing(
        rows, _height(rows), duration(end - begin), scale.is_compressed, _summary(line.members, end - begin)
    )
    return Fold(f"line-{folds.mark(node)}", line.name, str(Counts(node)), drawing)


# -- Where it is drawn -------------------------------------------------------------------------------


def _scale(lines: Iterable[Line], begin: float, end: float) -> Scale:
    spans = (span for line in lines for span in line.spans)
    return Scale(begin, end, ((span.start, span.end) for span in spans if span.kind in EXECUTING))


def _height(rows: Sequence[Row]) -> int:
    return TOP + len(rows) * ROW_HEIGHT + BOTTOM


def _rows(groups: Iterable[list[Line]], scale: Scale) -> list[Row]:
    return [_row(index, group, scale) for index, group in enumerate(groups)]


def _row(index: int, lines: list[Line], scale: Scale) -> Row:
    spans = [span for line in lines for span in line.spans]
    failed = sum(line.failures for line in lines)
    status = "failed" if any(line.status == "failed" for line in lines) else lines[-1].status
    taken = duration(max((s.end for s in spans), default=0) - min((s.start for s in spans), default=0))
    first, last = lines[0], lines[-1]
    is_one = len(lines) == 1 and not first.is_group
    if len(lines) == 1:
        label, note = first.name, f"{first.contents or _counted(lines)}, {taken}" if first.is_group else taken
        parts = [first.name, _status_text(first), taken]
    else:
        label = f"{first.name} … {last.name}"
        note = f"{_counted(lines)}, {taken}"
        parts = [label, note]
    marks = dict.fromkeys(mark for line in lines if (mark := line.mark))
    if marks:
        note = ", ".join([note, *marks]) if len(lines) == 1 else note
        parts += marks
    if failed:
        parts.append(ngettext("%d failed attempt", "%d failed attempts", failed) % failed)
    return Row(
        y=TOP + index * ROW_HEIGHT,
        x=2 + min(first.level, 4) * INDENT,
        label=clipped(label, 60),
        note=note,
        title=", ".join(parts),
        href=first.href,
        status=status,
        bars=list(_bars(spans, scale)) if is_one else _merged_bars(spans, scale),
        marks=list(_marks(spans, scale)),
    )


def _bars(spans: Iterable[Span], scale: Scale, kinds: Sequence[str] = ("step", "sleep")) -> Iterator[Bar]:
    """The spans in their places; of these kinds those that touch are one bar."""
    open_bars: dict[str, Bar] = {}
    for span in sorted(spans, key=lambda span: span.start):
        x, stop = scale.percent(span.start), scale.percent(span.end)
        bar = open_bars.get(span.kind)
        if bar is not None and x - (bar.x + bar.width) < _CLOSE and span.kind in kinds:
            bar.width = max(bar.width, stop - bar.x)
            continue
        if bar is not None:
            yield _rounded(bar)
        open_bars[span.kind] = Bar(span.kind, min(x, 100 - _NARROWEST), max(stop - x, _NARROWEST))
    for bar in open_bars.values():
        yield _rounded(bar)


def _merged_bars(spans: Iterable[Span], scale: Scale) -> list[Bar]:
    """The bars of several steps, which may lie over each other: what failed is not hidden by what didn't."""
    return sorted(_bars(spans, scale, _KINDS), key=lambda bar: _KINDS.index(bar.kind))


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


def _summary(lines: Sequence[Line], seconds: float) -> str:
    failed = sum(line.failures for line in lines)
    text = _("%(steps)s in %(time)s") % {"steps": _counted(lines), "time": duration(seconds)}
    return f"{text}; {ngettext('%d failed attempt', '%d failed attempts', failed) % failed}" if failed else text


def _counted(lines: Sequence[Line]) -> str:
    return counted(sum(line.steps for line in lines), sum(line.sleeps for line in lines))
