"""What a run has recorded as a tree: the steps of its body, and what is in its branches, maps and gathers.

Branches and groups are known by their members: an unfinished one has no record of its own, and a gather never has. All of
it is made of the records that are given, without a query, and each record is looked at a constant number of times.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..core.names import first_gathered, inside, is_gather
from ..core.states import UNDO
from ..ledger.order import Place
from ..models import StepRecord, WorkflowRun
from . import children as child_runs
from . import durations, steps, undos
from .steps import UNFINISHED
from .values import UNREADABLE

BRANCH, MAP, GATHER = str(StepRecord.Kind.BRANCH), str(StepRecord.Kind.MAP), "gather"
_KINDS: dict[str, Any] = dict(StepRecord.Kind.choices)
_OPEN = (StepRecord.Status.RETRYING, StepRecord.Status.WAITING)
_ORDER = {"failed": 0, "canceled": 2, "succeeded": 3}  # in a group; what is unfinished comes after what failed
_NAMED = 3  # members in the name of a gather


class Node:
    """A step or a sleep, or what has `members`: a branch, a map or a gather. `record` is None where none is of itself.

    `path` is the name under which it is recorded, or would be; `branch` is the path of the branch that it is in.
    """

    __slots__ = ("branch", "counts", "kind", "members", "path", "record", "status")

    def __init__(self, kind: str, path: str, branch: str, record: StepRecord | None = None) -> None:
        self.kind, self.path, self.branch, self.record = kind, path, branch, record
        self.members: list[Node] = []
        self.status = ""
        self.counts: Counter[str] = Counter()  # of its members, by status

    @property
    def is_container(self) -> bool:
        return self.kind in (BRANCH, MAP, GATHER)

    @property
    def is_group(self) -> bool:
        """Whether its members were executed side by side."""
        return self.kind in (MAP, GATHER)

    @property
    def size(self) -> int:
        """How many members there are: what was undone counts once."""
        return self.counts.total()

    @property
    def is_smooth(self) -> bool:
        """Whether all that is in it succeeded."""
        return all(status == "succeeded" for status in self.counts)

    @property
    def label(self) -> str:
        """What it is called in the branch that it is in; a gather is called by some of its members."""
        if self.kind != GATHER:
            return inside(self.branch, self.path)
        first = first_gathered(self.path)
        others = [member.label for member in self.members[: _NAMED + 1] if member.path != first]
        named = [inside(self.branch, first), *others]
        return ", ".join([*named[:_NAMED], "…"] if len(named) > _NAMED else named)

    @property
    def kind_label(self) -> str:
        return _("gather") if self.kind == GATHER else str(_KINDS.get(self.kind, self.kind))

    def in_order(self) -> list[Node]:
        """The members: those of a branch as they were recorded; of a group the failed ones first, then the unfinished."""
        if not self.is_group or self.is_smooth:
            return self.members
        return sorted(
            self.members, key=lambda member: _ORDER.get("succeeded" if member.kind == UNDO else member.status, 1)
        )

    def records(self) -> Iterator[StepRecord]:
        """Its own record and all that are in it."""
        if self.record is not None:
            yield self.record
        for member in self.members:
            yield from member.records()


def tree(run: WorkflowRun, records: Iterable[StepRecord]) -> Node:
    """The body of a run, with all of these records in it. They are given in the order of their positions."""
    builder = _Builder()
    for record in records:
        builder.add(run, record)
    _settle(run, builder.root)
    return builder.root


def chain_to(root: Node, path: str) -> list[Node]:
    """The branches and groups from the outermost to the one at this path; none if there is no such."""
    for member in root.members:
        if member.is_container and member.path == path:
            return [member]
        if member.members and (found := chain_to(member, path)):
            return [member, *found]
    return []


class _Builder:
    """Puts records into the branches and groups that their contexts name."""

    def __init__(self) -> None:
        self.root = Node("", "", "")
        self._containers: dict[str, Node] = {}  # by path
        self._undoable: dict[str, tuple[Node, Node]] = {}  # steps that have an undo, by path, with what they are in
        self._places: dict[tuple[str, str | None], Node] = {}  # the container of records with this branch and context

    def add(self, run: WorkflowRun, record: StepRecord) -> None:
        around = self._around(record)
        if record.kind in (BRANCH, MAP):
            node = self._container(record.kind, record.name, around)
            node.kind, node.record = record.kind, record
            return
        node = Node(record.kind, record.name, record.branch, record)
        node.status = steps.status_of(run, record)
        if record.kind == UNDO and (step := self._undoable.get(undos.step_of(record))) is not None:
            around, at = step
            node.branch = at.branch
            around.members.insert(around.members.index(at) + 1, node)
            return
        around.members.append(node)
        if record.has_undo:
            self._undoable[record.name] = around, node

    def _around(self, record: StepRecord) -> Node:
        known = record.branch, record.context_text
        found = self._places.get(known)
        if found is None:
            found = self._places[known] = self._find(record)
        return found

    def _find(self, record: StepRecord) -> Node:
        place = Place.read(record.name, 0, 0, record.context_text)
        node = self.root
        for level in place.levels:
            node = self._container(BRANCH, level.branch, self._group(level.group, node))
        if record.branch and node is self.root:  # what the context says is damaged
            node = self._container(BRANCH, record.branch, node)
        return self._group(place.group, node)

    def _group(self, group: str, around: Node) -> Node:
        return self._container(GATHER if is_gather(group) else MAP, group, around) if group else around

    def _container(self, kind: str, path: str, around: Node) -> Node:
        found = self._containers.get(path)
        if found is None:
            branch = around.path if around.kind == BRANCH else around.branch
            found = self._containers[path] = Node(kind, path, branch)
            around.members.append(found)
        return found


# -- How it stands -----------------------------------------------------------------------------------


def _settle(run: WorkflowRun, node: Node) -> None:
    """Give the branches and groups in it a status, and all of them their counts."""
    for member in node.members:
        if member.is_container:
            _settle(run, member)
            member.status = _status(run, member, is_last=member is node.members[-1])
    node.counts = Counter([member.status for member in node.members if member.kind != UNDO])


def _status(run: WorkflowRun, node: Node, *, is_last: bool) -> str:
    if node.record is not None:
        return steps.status_of(run, node.record)
    if node.kind == GATHER and all(map(_is_over, node.members)) and not (is_last and not run.is_finished):
        return min(node.counts, key=lambda status: _ORDER[status])
    if run.is_finished:
        return UNFINISHED
    waits = [status for status in _OPEN if node.counts[status]]
    if run.status in (run.Status.RUNNING, run.Status.CANCELING) and (node.is_group or not waits):
        return "running"
    return str(waits[0]) if waits else UNFINISHED


def _is_over(node: Node) -> bool:
    """Whether it has ended by itself: what the end of the run cut short, which is shown as canceled, has not."""
    was_cut_short = node.status == "canceled" and node.record is not None and node.record.finished_at is None
    return node.status in _ORDER and not was_cut_short


class Counts(NamedTuple):
    """How the members of a branch or group stand, in a line; `never_began` are known of a finished map only.

    `children` are those of a map that is not decided yet, by status: then it has no other members.
    """

    node: Node
    never_began: int = 0
    children: Mapping[str, int] | None = None

    def __str__(self) -> str:
        planned = 0 if self.node.record is None else steps.planned(self.node.record)
        if self.children:
            return child_runs.counted(self.children, planned)
        if planned and not self.node.members:
            return ngettext("%(count)s child run", "%(count)s child runs", planned) % {"count": f"{planned:,}"}
        counts = self.node.counts
        first = [status for status in ("succeeded", "failed", "canceled") if counts[status]]
        rest = [status for status in counts if status not in first]
        parts = [(counts[status], steps.label_of(status)) for status in [*first, *rest]]
        if self.never_began:
            parts.append((self.never_began, _("never began")))
        said = ", ".join(f"{count} {label}" for count, label in parts)
        if len(parts) < 2:
            return said or _("empty")
        total = self.node.size + self.never_began
        # How many there will be is recorded at its end, and not where that was a cancel.
        if self.node.kind == MAP and (self.node.record is None or self.node.status == "canceled"):
            return _("%(counts)s of %(total)d that began") % {"counts": said, "total": total}
        return _("%(counts)s of %(total)d") % {"counts": said, "total": total}


def never_began(node: Node, output_text: str | None) -> int:
    """How many items of a finished map have no record, by what is recorded of it."""
    try:
        planned = len(json.loads(output_text or "")["states"])
    except UNREADABLE:
        return 0
    return max(planned - node.size, 0)


def started_at(node: Node) -> datetime | None:
    """When it began, or the first of what is in it."""
    if node.record is not None:
        return node.record.started_at
    # None where it is damaged.
    return min((record.started_at for record in node.records() if record.started_at is not None), default=None)


def took(run: WorkflowRun, node: Node) -> timedelta | None:
    """How long it took; None while that isn't known. A gather took as long as from its first beginning to its last end."""
    if node.record is not None:
        return steps.took(run, node.record)
    if node.kind != GATHER or node.status not in _ORDER:
        return None
    ends = [steps.finished_at(run, record) for record in node.records()]
    return durations.between(started_at(node), max((end for end in ends if end is not None), default=None))


def and_more(count: int) -> str:
    """What stands for the members of a group that are left out."""
    return ngettext("… and %d more", "… and %d more", count) % count
