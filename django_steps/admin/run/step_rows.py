"""The table of steps on the page of a run: a page of the tree, with results and what went wrong in each attempt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db import router
from django.db.models import Case, F, Q, When
from django.db.models.functions import Length
from django.http import HttpRequest
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from ...ledger import database, relatives
from ...models import StepRecord, WorkflowRun
from ...presentation import steps, tree
from ...presentation.steps import FailedAttempt
from ...presentation.text import clipped
from ...presentation.tree import Node
from ...presentation.values import Mask, readable
from .. import html
from ..base import RunAdminBase
from . import children, folds
from .folds import Shown

SHOWN = 20_000  # characters of one step's value; larger ones are shown on a page of their own
_POSITION = re.compile(r"[0-9]{1,9}")
_LINE = 100  # characters of a value that are shown unfolded
_NOT_ATTEMPTED = (tree.BRANCH, tree.MAP, StepRecord.Kind.EVENT, StepRecord.Kind.INVOKE)
_WITHOUT_DEFAULT = (StepRecord.Kind.EVENT, StepRecord.Kind.INVOKE)
_DEEPEST = 4  # levels that are indented


class Failure(NamedTuple):
    """An attempt that failed, as it is shown folded and unfolded."""

    label: str
    line: str
    at: Any
    text: str


class Fold(NamedTuple):
    """What is in a branch or group: the members that are shown, and where the others are."""

    id: str
    counts: str
    is_open: bool
    rows: list[StepRow]
    first: int
    last: int
    total: int
    links: list[tuple[str, str]]


@dataclass
class StepRow:
    """A row of the table: a step, a branch or a group."""

    id: str
    name: str  # in the branch that it is in
    path: str
    kind: str
    level: int
    status: str
    started: Any
    took: str
    position: int | None = None
    result: str = ""
    line: str = ""  # the same in one line
    is_last_value: bool = False  # of a poll that has not found what it waits for
    taken: str = ""  # where the result of a wait is from
    mark: str = ""  # what is to be said of a record that the body does not come to any more
    child: str = ""  # the id of the child that it has invoked, in short, or of the run that it has started
    child_url: str = ""
    is_child: bool = False
    until: str = ""
    attempts: str = ""
    failures: list[Failure] = field(default_factory=list)
    retry_url: str = ""
    size: int = 0
    whole_url: str = ""
    fold: Fold | None = None

    @property
    def is_folded(self) -> bool:
        return len(self.line) > _LINE

    @property
    def first_line(self) -> str:
        return clipped(self.line, _LINE)


def whole_step(request: HttpRequest, records: Iterable[StepRecord]) -> StepRecord | None:
    """The one step that is asked for, whose result is shown however large it is: by its position, and its name where others
    share that."""
    match, name = _POSITION.fullmatch(request.GET.get("step", "")), request.GET.get("name")
    if match is None:
        return None
    position = int(match[0])
    return next((one for one in records if one.position == position and (not name or one.name == name)), None)


def alone(run: WorkflowRun, record: StepRecord) -> Node:
    """A body in which nothing but this was recorded."""
    root, node = Node("", "", ""), Node(record.kind, record.name, "", record)
    node.status = steps.status_of(run, record)
    root.members.append(node)
    return root


def rows(
    admin: RunAdminBase, run: WorkflowRun, mask: Mask, shown: Sequence[Shown], can_retry: bool, *, whole: bool
) -> list[StepRow]:
    """The rows of what is shown of the tree: one query, and one for maps of child runs. `whole`: with results of any size."""
    limit = 1 << 30 if whole else SHOWN
    keys = [node.record.pk for node in _nodes(shown) if node.record is not None]
    records = (
        StepRecord.objects.filter(pk__in=keys)
        .defer("output_text")
        .annotate(size=Length("output_text"))
        # Of a map it says what there was, which is counted.
        .annotate(shown_output=Case(When(Q(size__lte=limit) | Q(kind=tree.MAP), then=F("output_text"))))
    )
    maker = _RowMaker(
        admin,
        run,
        mask,
        {record.pk: record for record in records},
        _children(run, shown),
        admin.url_of("retry", run.pk) if can_retry else "",
    )
    return maker.rows(shown, 0)


def by_path(rows: Sequence[StepRow]) -> dict[str, str]:
    """The ids of the rows, by what they are recorded as."""
    found: dict[str, str] = {}
    for row in rows:
        found[row.path] = row.id
        if row.fold is not None:
            found.update(by_path(row.fold.rows))
    return found


def _children(run: WorkflowRun, shown: Sequence[Shown]) -> Mapping[str, Mapping[str, int]]:
    """The children of the maps that are not decided yet, by path and status."""
    maps = [node.path for node in _nodes(shown) if node.record is not None and steps.planned(node.record)]
    connection = database.connection_for(router.db_for_read(WorkflowRun))
    return relatives.count_children(connection, run.pk, maps)


def _nodes(shown: Sequence[Shown]) -> Iterator[Node]:
    for one in shown:
        yield one.node
        yield from _nodes(one.members)


class _RowMaker:
    """Makes the rows of one page."""

    def __init__(
        self,
        admin: RunAdminBase,
        run: WorkflowRun,
        mask: Mask,
        records: dict[Any, Any],
        children: Mapping[str, Mapping[str, int]],
        retry_url: str,
    ) -> None:
        self._admin, self._run, self._mask, self._records = admin, run, mask, records
        self._children, self._retry_url = children, retry_url

    def rows(self, shown: Sequence[Shown], level: int) -> list[StepRow]:
        return [self._row(one, level) for one in shown]

    def _row(self, shown: Shown, level: int) -> StepRow:
        node, run = shown.node, self._run
        row = StepRow(
            id=folds.row_id(node),
            name=node.label,
            path=node.path,
            kind=node.kind_label,
            level=min(level, _DEEPEST),
            status=html.status_word(node.status),
            started=html.moment(tree.started_at(node)),
            took=html.duration(tree.took(run, node)),
        )
        record = None if node.record is None else self._records.get(node.record.pk)
        if self._retry_url:
            row.retry_url = f"{self._retry_url}?{html.query(from_step=node.path)}"
        if record is not None:
            self._describe(row, record)
        if node.members or node.kind == tree.MAP:
            row.fold = self._fold(shown, level, record)
        return row

    def _describe(self, row: StepRow, record: Any) -> None:
        """What is recorded of a step, or of how a branch or map ended."""
        row.position = record.position
        row.until, row.attempts, row.mark = steps.until(record), steps.attempts(record), steps.mark(record)
        row.failures = [_failure(attempt, record.kind) for attempt in steps.failed_attempts(record)]
        if record.kind in (StepRecord.Kind.MAP, StepRecord.Kind.SLEEP):
            return
        row.is_last_value, row.taken = steps.has_last_value(record), steps.taken(record)
        if record.kind == StepRecord.Kind.START and (started := steps.run_started(record.shown_output)) is not None:
            row.child, row.child_url = f"…{str(started)[-12:]}", self._admin.url_of("change", started)
            return
        if (child := steps.child_id(record)) is not None:
            row.child, row.child_url, row.is_child = f"…{str(child)[-12:]}", self._admin.url_of("change", child), True
        if record.timed_out and record.kind in _WITHOUT_DEFAULT:  # a default is not recorded
            return
        row.result = readable(record.shown_output, self._mask)
        row.line = readable(record.shown_output, self._mask, indent=None)
        if record.size and record.shown_output is None:
            name = {"name": record.name} if record.kind == StepRecord.Kind.INVOKE else {}
            row.size, row.whole_url = record.size, f"?{html.query(step=record.position, **name)}#{row.id}"

    def _fold(self, shown: Shown, level: int, record: Any) -> Fold:
        node = shown.node
        never_began = tree.never_began(node, record.shown_output) if record is not None and node.kind == tree.MAP else 0
        first, last, total = shown.start + 1, shown.start + len(shown.members), len(node.members)
        links = list(_links(shown, last, total))
        if node.record is not None and steps.planned(node.record):
            links.append((_("show"), children.address(node.path)))
        return Fold(
            f"fold-{folds.mark(node)}",
            str(tree.Counts(node, never_began, self._children.get(node.path))),
            shown.is_open,
            self.rows(shown.members, level + 1),
            first,
            last,
            total,
            links,
        )


def _links(shown: Shown, last: int, total: int) -> Iterator[tuple[str, str]]:
    """Where the members are that are not shown."""
    node, before = shown.node, max(shown.start - folds.PER_FOLD, 0)
    if not shown.members and total:
        yield _("show"), folds.address(node)
        return
    if before > 0:
        yield _("first"), folds.address(node)
    if shown.start:
        yield _("previous"), folds.address(node, before)
    if last < total:
        yield _("next"), folds.address(node, last)
    if last + folds.PER_FOLD < total:
        yield _("last"), folds.address(node, (total - 1) // folds.PER_FOLD * folds.PER_FOLD)


def _failure(attempt: FailedAttempt, kind: str) -> Failure:
    error = attempt.error or {"traceback": "", "message": ""}
    at = "" if attempt.at is None else html.moment(attempt.at)
    label = _("Failed") if kind in _NOT_ATTEMPTED else capfirst(attempt.label)
    return Failure(label, attempt.line, at, str(error["traceback"] or error["message"]))
