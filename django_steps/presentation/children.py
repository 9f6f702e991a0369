"""The children of a run: how many there are in each status, and those of them first that one wants to know of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Case, IntegerField, QuerySet, Value, When
from django.utils.translation import gettext as _

from ..models import WorkflowRun
from .steps import label_of

_Status = WorkflowRun.Status
# What failed comes first, then what has not ended.
ORDER = (
    _Status.FAILED,
    _Status.CANCELING,
    _Status.RUNNING,
    _Status.WAITING,
    _Status.SLEEPING,
    _Status.PAUSED,
    _Status.PENDING,
    _Status.CANCELED,
    _Status.SUCCEEDED,
)
# In a sentence how far they are comes first.
_SAID = (_Status.SUCCEEDED, _Status.FAILED, _Status.CANCELED)


def in_order(children: QuerySet[Any]) -> QuerySet[Any]:
    """Children of a run: the failed ones first, then those that have not ended; what was replaced by another one last."""
    ordered: QuerySet[Any] = children.alias(place=place()).order_by("place", "pk")
    return ordered


def place() -> Case:
    """The place of a child in this order, for the database."""
    return Case(
        When(parent_item__isnull=True, then=Value(len(ORDER))),
        *(When(status=status, then=Value(number)) for number, status in enumerate(ORDER)),
        default=Value(len(ORDER)),
        output_field=IntegerField(),
    )


def place_of(child: WorkflowRun) -> int:
    """The same of one that is at hand."""
    return ORDER.index(child.status) if child.parent_item is not None and child.status in ORDER else len(ORDER)


def is_replaced(run: WorkflowRun) -> bool:
    """Whether a run is a child in whose place its parent has another one."""
    return run.parent_id is not None and run.parent_item is None


def sorted_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by status: in the order in which they are shown, without what there is none of."""
    known = [status for status in ORDER if counts.get(status)]
    others = [status for status in counts if status not in ORDER and counts[status]]
    return {str(status): counts[status] for status in [*known, *others]}


def counted(counts: Mapping[str, int], planned: int = 0) -> str:
    """How they stand, in a line: `7 succeeded, 1 failed, 2 running of 10`; empty where there are none."""
    first = [status for status in _SAID if counts.get(status)]
    rest = [status for status in sorted_counts(counts) if status not in first]
    said = ", ".join(f"{counts[status]:,} {label_of(status)}" for status in [*first, *rest])
    total = max(sum(counts.values()), planned)
    if not said or (len(first) + len(rest) == 1 and total == sum(counts.values())):
        return said
    return _("%(counts)s of %(total)s") % {"counts": said, "total": f"{total:,}"}


def path_of(child: WorkflowRun) -> str:
    """What of the parent has invoked a child: the step, or the item of a map, as it is recorded there."""
    step, item = child.parent_step or "", child.parent_item or ""
    return step if not item else item if item.startswith(f"{step}#") else f"{step}#{item}"
