"""What the end of a run means for its family: its parent is woken (upwards), its children are canceled (downwards).

Whoever ends a run commits that first, holding nothing, and then looks at the parent: the last child to end wakes it. Ending a
child and waking its parent in one transaction would let two of them lock each other out. What gets lost in between is found
by a later look: at a parent that waits (`waits.py`), at one that is canceling (`timers.py`), at children whose parent has
ended (`orphaned()`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import CANCELABLE, FINISHED, Cause, Status
from . import contexts, controls, database, dialect, lines, moves, notify, overlaps
from .children import first_open
from .tables import ENDED, RUN, STEP

_AT_MOST = 100
_CHUNK = 500  # children that are canceled at a time


# -- The end of a child ------------------------------------------------------------------------------


# A step or map of a run, and the statuses with which children of it have ended.
Ends = Mapping[tuple[UUID, str], Collection[str]]


def ended(connection: BaseDatabaseWrapper, ids: Collection[UUID]) -> list[UUID]:
    """Runs have ended, and that is committed: tell their parents, and look after their schedules. Returns the runs that ended
    because of it."""
    if not ids:
        return []
    rows = database.fetch_all(
        connection,
        f"SELECT DISTINCT parent_id, parent_step, status, schedule, parent_item IS NULL FROM {RUN}"
        f" WHERE id IN ({dialect.marks(ids)}) AND (parent_item IS NOT NULL OR schedule IS NOT NULL)",
        [dialect.key(connection, run_id) for run_id in ids],
    )
    for schedule in {row[3] for row in rows} - {None}:
        overlaps.look(connection, schedule)
    ends: dict[tuple[UUID, str], set[str]] = {}
    for parent, step, status, _schedule, is_no_child in rows:
        if is_no_child:
            continue
        ends.setdefault((dialect.run_id(parent), step), set()).add(status)
    return tell_parents(connection, ends)


def tell_parents(connection: BaseDatabaseWrapper, ends: Ends) -> list[UUID]:
    """Children have ended, and that is committed: wake each parent for which that was the last one, or that has to look after
    the others. Returns the runs that ended because of it."""
    return [
        run_id
        for (parent, step), statuses in ends.items()
        for run_id in _tell_parent(connection, parent, step, statuses)
    ]


def _tell_parent(connection: BaseDatabaseWrapper, parent: UUID, step: str, ended: Collection[str]) -> list[UUID]:
    key = dialect.key(connection, parent)
    rows = database.fetch_all(
        connection,
        f"SELECT r.status, r.worker_id, {lines.COLUMNS},"
        f" (SELECT s.context FROM {STEP} s WHERE s.run_id = r.id AND s.name = %s),"
        f" EXISTS (SELECT 1 FROM {RUN} c WHERE c.open_parent_id = %s AND c.parent_step = %s) FROM {RUN} r WHERE r.id = %s",
        [step, key, step, key],
    )
    if not rows:
        return []
    status, worker_id, *limits, context, has_open = rows[0]
    if status == Status.CANCELING and worker_id is None:
        return settle_canceling(connection, parent)
    if has_open and not _has_reason_to_look(connection, parent, step, contexts.read(context), ended):
        return []
    if status == Status.WAITING:
        _wake(connection, parent)
        lines.promote_after_commit(connection, lines.names(*limits))
    if status in (Status.WAITING, Status.RUNNING):  # its pass may wait in memory
        notify.workers(connection)
    return []


def _wake(connection: BaseDatabaseWrapper, parent: UUID) -> None:
    def statement() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {RUN} SET {moves.ready(dialect.now(connection))} WHERE id = %s AND status = 'waiting'"
                " AND worker_id IS NULL",
                [dialect.key(connection, parent)],
            )

    database.retrying(connection, statement)


def _has_reason_to_look(
    connection: BaseDatabaseWrapper, parent: UUID, step: str, said: dict[str, Any], ended: Collection[str]
) -> bool:
    """Whether a map may go on or stop although children of it are open: it has more to begin, or is decided by now. Counts
    no children that can't decide it, and no more than are enough."""
    if said.get("window"):
        return True
    for name, statuses in _DECIDING.items():
        number = contexts.number(said, name)
        if number is not None and not statuses.isdisjoint(ended) and _are(connection, parent, step, statuses, number):
            return True
    return False


_DECIDING = {
    "stops_after_failures": frozenset((Status.FAILED, Status.CANCELED)),
    "stops_after_successes": frozenset((Status.SUCCEEDED,)),
}


def _are(connection: BaseDatabaseWrapper, parent: UUID, step: str, statuses: Collection[str], number: int) -> bool:
    """Whether at least `number` children of a map have ended so."""
    if number <= 1:
        return True
    rows = database.fetch_all(
        connection,
        f"SELECT COUNT(*) FROM (SELECT 1 FROM {RUN} WHERE parent_id = %s AND parent_step = %s AND parent_item IS NOT NULL"
        f" AND status IN ({dialect.marks(statuses)}) LIMIT {int(number)}) found",
        [dialect.key(connection, parent), step, *sorted(statuses)],
    )
    return int(rows[0][0]) >= number


# What is done a little at a time: each of these has committed something, and names the runs that ended by it.
Portions = Iterator[list[UUID]]


# -- Canceling ---------------------------------------------------------------------------------------


def settle_canceling(connection: BaseDatabaseWrapper, run_id: UUID) -> list[UUID]:
    """Bring a canceling run that nobody holds to its end: cancel its children, and finish it once all have ended. Returns the
    runs that ended."""
    return list(chain.from_iterable(settling(connection, run_id)))


def settling(connection: BaseDatabaseWrapper, run_id: UUID) -> Portions:
    """The same, a little at a time."""
    has_ended = False
    for finished in _settling(connection, run_id):
        has_ended = has_ended or run_id in finished
        yield finished
    if has_ended:
        yield ended(connection, [run_id])


def _settling(connection: BaseDatabaseWrapper, run_id: UUID) -> Portions:
    """The same; its own parent is not told."""
    yield from canceling_children(connection, run_id, Cause.PARENT_CANCELED)
    if first_open(connection, run_id) is None and controls.end_canceling(connection, run_id):
        lines.promote_after_commit(connection, lines.of_runs(connection, [run_id]))
        yield [run_id]


def after_cancel(connection: BaseDatabaseWrapper, run_id: UUID) -> list[UUID]:
    """A run was just canceled, and that is committed: cancel its children, and tell its parent if it has ended. Returns the
    runs that ended, itself among them."""
    rows = database.fetch_all(
        connection,
        f"SELECT r.status, r.worker_id, r.parent_id, r.parent_step, r.parent_item, r.schedule, {lines.COLUMNS}, EXISTS"
        f" (SELECT 1 FROM {RUN} c WHERE c.open_parent_id = r.id) FROM {RUN} r WHERE r.id = %s",
        [dialect.key(connection, run_id)],
    )
    if not rows:
        return []
    status, worker_id, parent, step, item, schedule, *limits, has_children = rows[0]
    lines.promote_after_commit(connection, lines.names(*limits))
    if status == Status.CANCELING and worker_id is not None:
        return cancel_children(connection, run_id, Cause.PARENT_CANCELED)
    if status == Status.CANCELING:
        return settle_canceling(connection, run_id)
    if status != Status.CANCELED:
        return []
    if schedule is not None:
        overlaps.look(connection, schedule)
    # It has begun them while it was canceled.
    left = cancel_children(connection, run_id, Cause.PARENT_ENDED) if has_children else []
    told = [] if item is None else tell_parents(connection, {(dialect.run_id(parent), step): [status]})
    return [run_id, *left, *told]


def cancel_children(
    connection: BaseDatabaseWrapper,
    parent: UUID,
    reason: str,
    steps: Collection[str] | None = None,
    started_by_us: int | None = None,
) -> list[UUID]:
    """Cancel the children of a run that have not ended; `steps`: only those of these steps and maps; `started_by_us`: only
    those that had been started then, as `oldest_open()`. Returns those that ended by it; others are canceling, and end when
    their workers have released them."""
    return list(chain.from_iterable(canceling_children(connection, parent, reason, steps, started_by_us)))


def canceling_children(
    connection: BaseDatabaseWrapper,
    parent: UUID,
    reason: str,
    steps: Collection[str] | None = None,
    started_by_us: int | None = None,
) -> Portions:
    """The same, a little at a time."""
    condition, parameters = "", [dialect.key(connection, parent)]
    if steps is not None:
        condition, parameters = f" AND parent_step IN ({dialect.marks(steps)})", [*parameters, *steps]
    if started_by_us is not None:
        condition += " AND created_at <= %s"
        parameters.append(dialect.date_value(connection, started_by_us))
    while True:
        rows = database.fetch_all(
            connection,
            f"SELECT id FROM {RUN} WHERE open_parent_id = %s{condition} AND status IN"
            f" ({dialect.marks(CANCELABLE)}) ORDER BY id LIMIT {_CHUNK}",
            [*parameters, *CANCELABLE],
        )
        if not rows:
            return
        yield from _canceling(connection, [row[0] for row in rows], reason)


def _canceling(connection: BaseDatabaseWrapper, ids: Sequence[Any], reason: str) -> Portions:
    """Cancel some runs: those that nobody holds and that have no children by one statement, the others one by one."""
    marks = dialect.marks(ids)
    rows = database.fetch_all(
        connection, f"SELECT DISTINCT open_parent_id FROM {RUN} WHERE open_parent_id IN ({marks})", ids
    )
    parents = {row[0] for row in rows}
    childless = [run_id for run_id in ids if run_id not in parents]
    if childless:
        database.retrying(connection, lambda: controls.cancel_free(connection, childless, reason))
    rows = database.fetch_all(
        connection,
        f"SELECT r.id, r.status, EXISTS (SELECT 1 FROM {RUN} c WHERE c.open_parent_id = r.id), {lines.COLUMNS} FROM {RUN} r"
        f" WHERE r.id IN ({marks})",
        ids,
    )
    lines.promote_after_commit(connection, {name for row in rows for name in lines.names(*row[3:])})
    yield [dialect.run_id(key) for key, status, *_ in rows if status == Status.CANCELED]
    for key, status, has_children, *_ in rows:
        run_id = dialect.run_id(key)
        if status == Status.CANCELED and has_children:  # it has begun them since the first look
            yield from canceling_children(connection, run_id, Cause.PARENT_ENDED)
        elif status not in (*FINISHED, Status.CANCELING) and controls.cancel_if_possible(connection, run_id, reason):
            has_ended = False
            for finished in _settling(connection, run_id):
                has_ended = has_ended or run_id in finished
                yield finished
            yield [run_id] if not has_ended and _is_canceled(connection, run_id) else []


def _is_canceled(connection: BaseDatabaseWrapper, run_id: UUID) -> bool:
    rows = database.fetch_all(connection, f"SELECT status FROM {RUN} WHERE id = %s", [dialect.key(connection, run_id)])
    return bool(rows) and rows[0][0] == Status.CANCELED


def orphaned(connection: BaseDatabaseWrapper, after: UUID | None = None) -> list[UUID]:
    """Runs that have ended while children of them are open, and are not canceled yet: their process died in between. The
    first 100 of them, or of those that come after a run."""
    condition, parameters = ("", []) if after is None else (" AND r.id > %s", [dialect.key(connection, after)])
    rows = database.fetch_all(
        connection,
        f"SELECT r.id FROM (SELECT DISTINCT open_parent_id AS id FROM {RUN} WHERE open_parent_id IS NOT NULL) o"
        f" JOIN {RUN} r ON r.id = o.id WHERE r.phase = {ENDED} AND EXISTS (SELECT 1 FROM {RUN} c WHERE c.open_parent_id ="
        f" r.id AND c.status IN ({dialect.marks(CANCELABLE)})){condition} ORDER BY r.id LIMIT {_AT_MOST}",
        [*CANCELABLE, *parameters],
    )
    return [dialect.run_id(row[0]) for row in rows]
