"""The child runs on the page of a run: how many there are in each status, and of those that one wants to know of a row each."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.db.models.functions import Left
from django.http import HttpRequest

from ...ledger.relatives import Around
from ...models import WorkflowRun
from ...presentation import children, errors, runs
from .. import html
from ..base import RunAdminBase
from ..list import subject
from ..list.changelist import BIG_COLUMNS

MOST = 20  # rows
_FEW = 5  # children that are unfolded at first, however they stand
ANCHOR = "steps-children-title"
_ERROR_START = 1200  # characters of a recorded error that hold its type and the beginning of its message


class Count(NamedTuple):
    """How many children have a status, and the list of them."""

    status: Any
    number: str
    url: str


class Row(NamedTuple):
    """A child."""

    name: str
    url: str
    workflow: str
    step: str
    status: Any
    started: Any
    took: str
    error: str
    now: str
    is_replaced: bool


class Section(NamedTuple):
    """All of the children of a run, or those of one of its steps (`of`)."""

    counts: list[Count]
    total: str
    rows: list[Row]
    shown: int
    of: str
    is_cut: bool
    is_open: bool
    url: str


def section(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, around: Around) -> Section | None:
    """The children of a run, one query; None without one where it has none."""
    if not around.children and not around.replaced:
        return None
    of = request.GET.get("of", "").replace("\0", "")
    found = WorkflowRun.objects.filter(parent=run)
    if of:
        found = found.filter(parent_step=of)
    found = children.in_order(found).defer(*BIG_COLUMNS).annotate(error_start=Left("error_text", _ERROR_START))
    some = list(found[: MOST + 1])
    is_cut, some = len(some) > MOST, some[:MOST]
    filtered = f"{admin.url_of('changelist')}?{html.query(parent=run.pk)}"
    return Section(
        counts=[
            Count(html.status_word(status), f"{count:,}", f"{filtered}&{html.query(status__exact=status)}")
            for status, count in children.sorted_counts(around.children).items()
        ],
        total=f"{sum(around.children.values()):,}",
        rows=[_row(admin, child) for child in some if admin.has_view_permission(request, child)],
        shown=len(some),
        of=of,
        is_cut=is_cut,
        is_open=bool(of) or set(around.children) != {WorkflowRun.Status.SUCCEEDED} or len(some) <= _FEW,
        url=filtered,
    )


def address(step: str) -> str:
    """The address of the children of one step."""
    return f"?{html.query(of=step)}#{ANCHOR}"


def _row(admin: RunAdminBase, child: Any) -> Row:
    has_failed = child.status == child.Status.FAILED
    return Row(
        name=subject.key_of(child) or subject.short_id(child),
        url=admin.url_of("change", child.pk),
        workflow=runs.kind_of(child),
        step=children.path_of(child),
        status=html.status_word(child.status),
        started=html.moment(child.started_at),
        took=html.duration(runs.took(child)) if child.started_at else "",
        error=errors.line_of_start(child.error_start) if has_failed else "",
        now="" if has_failed else runs.canceled(child) or runs.where_now(child),
        is_replaced=child.parent_item is None,
    )
