"""A run and its children, as `showworkflows` prints them: those that one wants to know of first, and counts of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import F, Window
from django.db.models.functions import RowNumber
from django.utils.translation import gettext as _

from ..ledger import relatives
from ..ledger.relatives import Around
from ..models import WorkflowRun
from ..presentation import children as child_texts
from ..presentation import durations, output, runs, tree, waits
from . import base

SHOWN = 20  # children of a run
MOST = 1_000  # runs of a tree
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
    replaced = _("replaced by another run") if child_texts.is_replaced(run) else ""
    return ", ".join(filter(None, [replaced, detail]))


# -- All levels: the tree ----------------------------------------------------------------------------


def read(run: WorkflowRun) -> Member:
    """A run with its children, theirs and so on: of each the first that one wants to know of, `MOST` runs in all.

    Two queries for each level.
    """
    connection = base.connection()
    root = Member(run, relatives.count_children_of(connection, [run.pk]).get(run.pk, {}), [])
    level, room = {run.pk: root}, MOST
    while level and room > 0:
        found = _first_children(list(level))[:room]
        room -= len(found)
        counts = relatives.count_children_of(connection, [child.pk for child in found])
        below = {child.pk: Member(child, counts.get(child.pk, {}), []) for child in found}
        for child in found:
            level[child.parent_id].children.append(below[child.pk])
        level = {pk: member for pk, member in below.items() if member.counts}
    return root


def _first_children(parents: list[UUID]) -> list[Any]:
    number = Window(RowNumber(), partition_by=[F("parent")], order_by=[child_texts.place(), F("pk").asc()])
    found = _runs().filter(parent__in=parents).alias(number=number).filter(number__lte=SHOWN)
    return sorted(found, key=lambda child: (child_texts.place_of(child), child.pk))


def lines(root: Member, width: int | None, paint: Mapping[str, output.Paint]) -> list[str]:
    """The tree as a table, the runs indented below their parents."""
    rows: list[list[str]] = []
    levels: list[int] = []
    notes: list[str] = []
    for member, level, name in _flat(root):
        run = None if member is None else member.run
        rows.append([name, "", "", ""] if run is None else [name, str(run.pk), run.status, _duration(run)])
        levels.append(level)
        notes.append("" if member is None else _about(member))
    header = [_("WORKFLOW"), _("RUN"), _("STATUS"), _("DURATION")]
    return output.with_notes(output.table(header, rows, width, shrink=0, paint=paint, levels=levels), notes, width)


def _flat(member: Member, level: int = 0) -> Iterator[tuple[Member | None, int, str]]:
    kind = runs.kind_of(member.run)
    yield member, level, f"{child_texts.path_of(member.run)}: {kind}" if level else kind
    for child in member.children:
        yield from _flat(child, level + 1)
    if member.left_out:
        yield None, level + 1, tree.and_more(member.left_out)


def _about(member: Member) -> str:
    """How its children stand, and what it does itself, unless that is to wait for them."""
    run = member.run
    waits_for_children = run.status == run.Status.WAITING and not run.waiting_for and member.counts
    detail = "" if waits_for_children else runs.detail(run)
    return "; ".join(filter(None, [child_texts.counted(member.counts), _note(run, detail)]))


def as_json(member: Member) -> dict[str, Any]:
    """The tree as plain JSON types."""
    run = member.run
    taken = runs.took(run)
    return {
        "id": str(run.pk),
        "workflow": run.workflow,
        "version": run.version,
        "key": run.key,
        "step": child_texts.path_of(run) or None,
        "is_replaced": child_texts.is_replaced(run),
        "status": run.status,
        "duration": None if taken is None else taken.total_seconds(),
        "children": [as_json(child) for child in member.children],
        "child_counts": child_texts.sorted_counts(member.counts),
        "left_out": member.left_out,
    }


def _runs() -> Any:
    return WorkflowRun.objects.using(base.connection().alias).defer(*_BIG)
