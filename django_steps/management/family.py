"""A run and its children, as `showworkflows` prints them: those that one wants to know of first, and counts of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import F, Window
from django.db.models.functions import RowNumber
from django.utils.translation import gettext as _

from ..ledger import chains, relatives
from ..ledger.relatives import Around
from ..models import WorkflowRun
from ..presentation import children as child_texts
from ..presentation import durations, output, runs, tree, waits
from . import base

SHOWN = 20  # children of a run
MOST = 1_000  # children of a tree, theirs and so on
FIRST, LAST = 2, 3  # of the runs that go on for one; those in between are folded
_BIG = ("input_text", "input_search", "output_text", "details_text", "checkpoint")


class Member(NamedTuple):
    """A run of the tree with those of its children that are shown. `counts` are those of all of them, by status."""

    run: WorkflowRun
    counts: Mapping[str, int]
    children: list[Member]

    @property
    def left_out(self) -> int:
        """How many children are not shown."""
        shown = sum(child.run.parent_item is not None for child in self.children)
        return max(sum(self.counts.values()) - shown, 0)


class Tree(NamedTuple):
    """A run, and the runs that go on for it, one after the other: the first ones and the last ones, `left_out` in between."""

    root: Member
    first: list[Member]
    left_out: int
    last: list[Member]


# -- One level: the children of a run ----------------------------------------------------------------


def children(run: WorkflowRun, around: Around, width: int | None, paint: Mapping[str, output.Paint]) -> list[str]:
    """The lines that show the children of a run; none where it has none."""
    if not around.children and not around.replaced:
        return []
    shown = list(child_texts.in_order(_runs().filter(parent=run))[:SHOWN])
    header = [_("RUN"), _("STEP"), _("WORKFLOW"), _("STATUS"), _("DURATION")]
    rows = [
        [str(child.pk), child_texts.path_of(child), runs.kind_of(child), child.status, _duration(child)]
        for child in shown
    ]
    retrying, waiting = runs.retrying_steps(shown), waits.of_runs(shown)
    notes = [_note(child, runs.detail(child, retrying.get(child.pk), waiting.get(child.pk))) for child in shown]
    lines = output.with_notes(output.table(header, rows, width, shrink=1, paint=paint), notes, width)
    more = sum(around.children.values()) + around.replaced - len(shown)
    return [*lines, tree.and_more(more)] if more > 0 else lines


def _duration(run: WorkflowRun) -> str:
    return durations.duration(runs.took(run))


def _note(run: WorkflowRun, detail: str) -> str:
    replaced = ""
    if child_texts.is_replaced(run):
        replaced = _("continued as another run") if run.continued_as_id else _("replaced by another run")
    return ", ".join(filter(None, [replaced, detail]))


# -- All levels: the tree ----------------------------------------------------------------------------


def read(run: WorkflowRun) -> Tree:
    """A run and those that go on for it, with their children, theirs and so on: of each the first that one wants to know of,
    `MOST` runs in all.

    Two queries for each level.
    """
    chain = [] if run.continued_as_id is None else chains.successors(base.connection(), run.pk)
    ends = chain if len(chain) <= FIRST + LAST else [*chain[:FIRST], *chain[-LAST:]]
    runs_by_id = _runs().in_bulk(ends) if ends else {}
    shown = _with_children([run, *(runs_by_id[pk] for pk in ends if pk in runs_by_id)])
    successors = shown[1:]
    return Tree(shown[0], successors[:FIRST], len(chain) - len(ends), successors[FIRST:])


def _with_children(first: list[WorkflowRun]) -> list[Member]:
    """These runs with what is below them."""
    level = {member.run.pk: member for member in _members(first)}
    found, room = list(level.values()), MOST
    while level and room > 0:
        children = _first_children(list(level))[:room]
        room -= len(children)
        below = _members(children)
        for member in below:
            level[member.run.parent_id].children.append(member)
        level = {member.run.pk: member for member in below if member.counts}
    return found


def _members(found: Sequence[WorkflowRun]) -> list[Member]:
    """These runs with counts of their children, which are yet to be found."""
    counts = relatives.count_children_of(base.connection(), [run.pk for run in found])
    return [Member(run, counts.get(run.pk, {}), []) for run in found]


def _first_children(parents: list[UUID]) -> list[Any]:
    number = Window(RowNumber(), partition_by=[F("parent")], order_by=[child_texts.place(), F("pk").asc()])
    found = _runs().filter(parent__in=parents).alias(number=number).filter(number__lte=SHOWN)
    return sorted(found, key=lambda child: (child_texts.place_of(child), child.pk))


def lines(shown: Tree, width: int | None, paint: Mapping[str, output.Paint]) -> list[str]:
    """The tree as a table, the runs indented below their parents."""
    rows: list[list[str]] = []
    levels: list[int] = []
    notes: list[str] = []
    for member, level, name in _all(shown):
        run = None if member is None else member.run
        rows.append([name, "", "", ""] if run is None else [name, str(run.pk), run.status, _duration(run)])
        levels.append(level)
        notes.append("" if member is None else _about(member))
    header = [_("WORKFLOW"), _("RUN"), _("STATUS"), _("DURATION")]
    return output.with_notes(output.table(header, rows, width, shrink=0, paint=paint, levels=levels), notes, width)


def _all(shown: Tree) -> Iterator[tuple[Member | None, int, str]]:
    yield from _flat(shown.root, runs.kind_of(shown.root.run))
    for number, member in enumerate([*shown.first, *shown.last]):
        if shown.left_out and number == len(shown.first):
            yield None, 0, tree.and_more(shown.left_out)
        yield from _flat(member, _("continued as: %(workflow)s") % {"workflow": runs.kind_of(member.run)})


def _flat(member: Member, name: str, level: int = 0) -> Iterator[tuple[Member | None, int, str]]:
    yield member, level, name
    for child in member.children:
        yield from _flat(child, f"{child_texts.path_of(child.run)}: {runs.kind_of(child.run)}", level + 1)
    if member.left_out:
        yield None, level + 1, tree.and_more(member.left_out)


def _about(member: Member) -> str:
    """How its children stand, and what it does itself, unless that is to wait for them."""
    run = member.run
    waits_for_children = run.status == run.Status.WAITING and not run.waiting_for and member.counts
    detail = "" if waits_for_children else runs.detail(run)
    return "; ".join(filter(None, [child_texts.counted(member.counts), _note(run, detail)]))


def as_json(shown: Tree) -> dict[str, Any]:
    """The tree as plain JSON types."""
    successors = [_as_json(member) for member in (*shown.first, *shown.last)]
    return {**_as_json(shown.root), "successors": successors, "successors_left_out": shown.left_out}


def _as_json(member: Member) -> dict[str, Any]:
    run = member.run
    taken = runs.took(run)
    return {
        "id": str(run.pk),
        "workflow": run.workflow,
        "version": run.version,
        "key": run.key,
        "step": child_texts.path_of(run) or None,
        "is_replaced": child_texts.is_replaced(run),
        "continued_as": str(run.continued_as_id) if run.continued_as_id else None,
        "status": run.status,
        "duration": None if taken is None else taken.total_seconds(),
        "children": [_as_json(child) for child in member.children],
        "child_counts": child_texts.sorted_counts(member.counts),
        "left_out": member.left_out,
    }


def _runs() -> Any:
    return WorkflowRun.objects.using(base.connection().alias).defer(*_BIG)
