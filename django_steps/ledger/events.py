"""Events: sending them to runs, looking for what is there, and taking it.

Both sides commit first and then look at the other side: whoever sends wakes the run after the commit of the event, and a run
that waits looks once more after the commit of its suspension (`waits.py`). So whichever comes first, nothing is lost. A sender
that dies in between leaves the event untold; a worker's maintenance finds that.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from django.db import IntegrityError, OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.repeated import Repeated
from ..core.states import Status
from ..errors import InvalidState, RunFinished
from . import chains, database, dialect, lines, moves, notify
from .tables import EVENT, RUN

repeated = Repeated(logging.getLogger("django_steps"))

_AT_MOST = 100
_RUNS_AT_ONCE = 500
_MOST_REFUSALS = 20  # of one event by one run: each of them for something that was gone right after
_LONGEST_LOCK_WAIT = 1.0  # seconds


@dataclass(slots=True, kw_only=True)
class NewEvent:
    """An event to be sent: `payload` is encoded, `sent_at` in microseconds."""

    name: str
    payload: str
    event_id: str | None
    by: str
    sent_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class To:
    """Whom an event is sent to: a run, or whichever run of a workflow has a key."""

    run_id: UUID | None = None
    workflow: str = ""
    key: str = ""


class Sent(NamedTuple):
    """An event that is in the table. `is_new`: this call has put it there."""

    is_new: bool
    payload: str
    by: str
    sent_at: int


# -- Sending -----------------------------------------------------------------------------------------


def send(connection: BaseDatabaseWrapper, to: To, event: NewEvent) -> Sent:
    """Store an event, in the caller's transaction, and wake the run after the commit.

    One with the same id that is there already is returned instead. Raises `RunFinished` where the run has succeeded, and
    `InvalidState` where it is gone.
    """
    notify.ensure_possible(connection)
    refused = 0
    while refused < _MOST_REFUSALS:
        if (inserted := _insert(connection, to, event)) is not None:
            wake_after_commit(connection, *inserted, event.name)
            return Sent(True, event.payload, event.by, event.sent_at)
        if event.event_id is not None and (sent := _sent_before(connection, to, event.event_id)) is not None:
            return sent
        chain = _successors(connection, to)
        if chain:
            if (
                event.event_id is not None
                and (sent := _sent_to_any(connection, chain[:-1], event.event_id)) is not None
            ):
                return sent
            to = To(run_id=chain[-1])
        refused = 0 if chain else refused + 1
    raise InvalidState("The event could not be stored: the database refused it again and again.")


def _insert(connection: BaseDatabaseWrapper, to: To, event: NewEvent) -> tuple[int, To] | None:
    """Insert an event; its number, and the run by whatever is known of it. None: there is one with its id, or the run doesn't
    take any."""
    if connection.vendor != "mysql":
        return _insert_selected(connection, to, event)
    # MySQL would lock the row of the run until the caller's transaction ends, and so hold up the renewals of its lease.
    source, parameters = _source(connection, to)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT r.id, r.workflow, {_key('r', connection)}, r.status {source}", parameters)
        row = cursor.fetchone()
    run_id, workflow, key, status = row or (None, None, None, Status.SUCCEEDED)
    if status == Status.SUCCEEDED:
        return None
    has_key = run_id is not None and key is not None
    owner = [run_id, *((workflow, key) if has_key else (to.workflow or None, to.key or None))]
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {EVENT} ({_columns(connection)}) VALUES ({dialect.marks([*owner, *_COLUMNS])})",
                [*owner, *_values(connection, event)],
            )
            return int(cursor.lastrowid), to if run_id is None else To(run_id=dialect.run_id(run_id))
    except IntegrityError:
        return None


def _insert_selected(connection: BaseDatabaseWrapper, to: To, event: NewEvent) -> tuple[int, To] | None:
    source, parameters = _source(connection, to)
    key = _key("r", connection)
    if to.run_id is not None:
        owner, owners = f"CASE WHEN {key} IS NOT NULL THEN r.workflow END, {key}", []
    else:
        owner, owners = (
            f"{dialect.typed(connection, 'text')}, {dialect.typed(connection, 'text')}",
            [to.workflow, to.key],
        )
    marks = ", ".join(dialect.typed(connection, type_) for type_ in _COLUMNS.values())
    returning = " RETURNING id, run_id" if connection.vendor == "postgresql" else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {EVENT} ({_columns(connection)}) SELECT r.id, {owner}, {marks} {source}"
            f" ON CONFLICT DO NOTHING{returning}",
            [*owners, *_values(connection, event), *parameters],
        )
        if returning:
            row = cursor.fetchone()
            return None if row is None else (int(row[0]), to if row[1] is None else To(run_id=row[1]))
        return (int(cursor.lastrowid), to) if cursor.rowcount > 0 else None


_COLUMNS = {"name": "text", "event_id": "text", "payload": "text", "by": "text", "sent_at": "timestamptz"}


def _columns(connection: BaseDatabaseWrapper) -> str:
    return ", ".join(["run_id", "workflow", *map(connection.ops.quote_name, ["key", *_COLUMNS])])


def _values(connection: BaseDatabaseWrapper, event: NewEvent) -> list[Any]:
    return [event.name, event.event_id, event.payload, event.by, dialect.date_value(connection, event.sent_at)]


def _source(connection: BaseDatabaseWrapper, to: To) -> tuple[str, list[Any]]:
    """The run as the source of an INSERT: one row, unless the run doesn't take events. By key it is a row without a run where
    no run has the key."""
    if to.run_id is not None:
        return f"FROM {RUN} r WHERE r.id = %s AND r.status <> 'succeeded'", [dialect.key(connection, to.run_id)]
    return (
        f"FROM (SELECT 1) one LEFT JOIN {RUN} r ON r.id = {_found_by_key(connection)}"
        " WHERE r.id IS NULL OR r.status <> 'succeeded'"
    ), [to.workflow, to.key] * 2


def _found_by_key(connection: BaseDatabaseWrapper) -> str:
    """SQL for the id of the run that is active under a key, else of the one that has it; takes workflow and key twice."""
    active = f"SELECT a.id FROM {RUN} a WHERE a.workflow = %s AND a.active_key = %s"
    keyed = f"SELECT k.id FROM {RUN} k WHERE k.workflow = %s AND {_key('k', connection)} = %s"
    return f"COALESCE(({active}), ({keyed}))"


def _key(table: str, connection: BaseDatabaseWrapper) -> str:
    return f"{table}.{connection.ops.quote_name('key')}"


def _sent_before(connection: BaseDatabaseWrapper, to: To, event_id: str) -> Sent | None:
    """The event with this id; by run also one that was sent by its key, and the reverse."""
    key = _key("e", connection)
    conditions, parameters = [f"e.workflow = %s AND {key} = %s"], [to.workflow, to.key, event_id]
    if to.run_id is not None:
        of_run = f"(SELECT {{}} FROM {RUN} r WHERE r.id = %s)"
        its_key = of_run.format(_key("r", connection))
        conditions = ["e.run_id = %s", f"e.workflow = {of_run.format('r.workflow')} AND {key} = {its_key}"]
        run_id = dialect.key(connection, to.run_id)
        parameters = [run_id, event_id, run_id, run_id, event_id]
    return _find_sent(connection, conditions, parameters)


def _sent_to_any(connection: BaseDatabaseWrapper, runs: Sequence[UUID], event_id: str) -> Sent | None:
    """The event with this id that one of these runs has taken."""
    for start in range(0, len(runs), _RUNS_AT_ONCE):
        some = runs[start : start + _RUNS_AT_ONCE]
        parameters = [*(dialect.key(connection, run_id) for run_id in some), event_id]
        if (sent := _find_sent(connection, [f"e.run_id IN ({dialect.marks(some)})"], parameters)) is not None:
            return sent
    return None


def _find_sent(connection: BaseDatabaseWrapper, conditions: Sequence[str], parameters: list[Any]) -> Sent | None:
    """The event for which one of these conditions holds, each followed by the id."""
    columns = f"e.payload, e.{connection.ops.quote_name('by')}, e.sent_at"
    found = [f"SELECT {columns} FROM {EVENT} e WHERE {condition} AND e.event_id = %s" for condition in conditions]
    if connection.vendor == "mysql":
        # In a transaction of the caller's that has a snapshot MySQL shows what is committed since to a locking read only.
        found = [f"({select}{dialect.sharing(connection)})" for select in found]
    rows = database.fetch_all(connection, " UNION ALL ".join(found), parameters)
    return Sent(False, rows[0][0], rows[0][1], dialect.read_date(connection, rows[0][2]) or 0) if rows else None


def _successors(connection: BaseDatabaseWrapper, to: To) -> list[UUID]:
    """The runs that go on for one that takes no events any more; empty where another one has taken its place meanwhile.
    Raises what says that there is none."""
    rows = database.fetch_all(
        connection,
        f"SELECT r.id, r.status, r.continued_as_id {_any_source(connection, to)[0]}",
        _any_source(connection, to)[1],
    )
    if not rows:
        raise InvalidState(f"Run {to.run_id} is gone: no event can be sent to it.")
    run_id, status, successor = rows[0]
    if successor is not None:
        return chains.successors(connection, dialect.run_id(run_id)) or [dialect.run_id(successor)]
    if status == Status.SUCCEEDED:
        raise RunFinished(dialect.run_id(run_id))
    return []  # it was another one, which is gone since


def _any_source(connection: BaseDatabaseWrapper, to: To) -> tuple[str, list[Any]]:
    if to.run_id is not None:
        return f"FROM {RUN} r WHERE r.id = %s", [dialect.key(connection, to.run_id)]
    return f"FROM {RUN} r WHERE r.id = {_found_by_key(connection)}", [to.workflow, to.key] * 2


# -- Waking ------------------------------------------------------------------------------------------


def wake_after_commit(connection: BaseDatabaseWrapper, number: int, to: To, name: str) -> None:
    """Wake the run that waits for an event once that is committed."""

    def wake() -> None:
        try:
            tell(connection, number, to, name)
        except Exception as error:  # the event is committed; a worker's maintenance finds it
            repeated.warning("wake", "The run of an event could not be woken; a worker will do that soon: %s", error)
        else:
            repeated.over("wake", "The runs of events can be woken again.")

    connection.on_commit(wake, robust=True)


def tell(connection: BaseDatabaseWrapper, number: int, to: To, name: str) -> None:
    """Wake the run that waits for an event, and note that it was told: one statement on PostgreSQL."""

    def statements() -> To | None:
        if connection.vendor == "postgresql":
            return _tell(connection, number, to, name)
        with database.writing(connection):
            return _tell(connection, number, to, name)

    successor = database.retrying(connection, statements)
    if successor is not None:
        _pass_on(connection, number, successor, name)
    notify.workers(connection)  # also those that hold the run: its pass may wait for this in memory


def _pass_on(connection: BaseDatabaseWrapper, number: int, to: To, name: str) -> None:
    """The run of an event has continued as another one while the event was not committed: it is that one's now."""
    assert to.run_id is not None
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {EVENT} SET run_id = %s WHERE id = %s AND consumed_at IS NULL",
                [dialect.key(connection, to.run_id), number],
            )
    except IntegrityError:  # one with its id was sent there by now
        return
    tell(connection, number, to, name)


def _tell(connection: BaseDatabaseWrapper, number: int, to: To, name: str) -> To | None:
    """Wake the run that waits for an event. Returns another run, where the one that it was sent to has continued as that."""
    found, limits = _tell_it(connection, number, to, name)
    lines.promote_after_commit(connection, limits)
    return found


def _tell_it(connection: BaseDatabaseWrapper, number: int, to: To, name: str) -> tuple[To | None, list[str]]:
    """The same, and the limits that the run may be in line for by that."""
    condition, parameters = _whom(connection, to)
    told = f"UPDATE {EVENT} SET told = %s WHERE id = %s"
    waiting = f"{condition} AND status = 'waiting' AND worker_id IS NULL"
    woken = (
        f"UPDATE {RUN} SET {moves.ready(dialect.now(connection))} WHERE {waiting}"
        f" AND {dialect.contains(connection, 'waits_for', '%s')}"
    )
    wanted = [*parameters, moves.listed([name])]
    continued = (
        f"SELECT r.continued_as_id, NULL, NULL, NULL FROM {EVENT} e JOIN {RUN} r ON r.id = e.run_id WHERE e.id = %s"
        " AND r.continued_as_id IS NOT NULL"
    )
    columns = f"NULL, {lines.COLUMNS}"
    limited = "(limit_1 IS NOT NULL OR limit_queue IS NOT NULL)"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                f"WITH told AS ({told}), woken AS ({woken} RETURNING {lines.COLUMNS}) {continued}"
                f" UNION ALL SELECT {columns} FROM woken WHERE {limited}",
                [True, number, *wanted, number],
            )
            row = cursor.fetchone()
        else:
            cursor.execute(told, [True, number])
            # Most are not limited. For one that is, what it is limited by is to be known, too.
            cursor.execute(f"{woken} AND NOT {limited}", wanted)
            if cursor.rowcount > 0:
                return None, []
            cursor.execute(
                f"{continued} UNION ALL SELECT {columns} FROM {RUN} WHERE {waiting} AND {limited}",
                [number, *parameters],
            )
            row = cursor.fetchone()
            if row is not None and row[0] is None:
                cursor.execute(woken, wanted)
    successor, *limits = row or (None,)
    return None if successor is None else To(run_id=dialect.run_id(successor)), lines.names(*limits)


def _whom(connection: BaseDatabaseWrapper, to: To) -> tuple[str, list[Any]]:
    if to.run_id is not None:
        return "id = %s", [dialect.key(connection, to.run_id)]
    found = _found_by_key(connection)
    if connection.vendor != "mysql":
        return f"id = {found}", [to.workflow, to.key] * 2
    # MySQL would lock the row through the index of the keys first, and so deadlock with whoever locks it by its id.
    rows = database.fetch_all(connection, f"SELECT {found}", [to.workflow, to.key] * 2)
    return "id = %s", [rows[0][0]]


def tell_untold(connection: BaseDatabaseWrapper, after: int = 0) -> tuple[int, int | None]:
    """Wake the runs of the first events, after that of a number, whose senders could not; how many that were, of at most 100
    events, and the number after which to go on (None: there are no more).

    Doesn't wait for long for a run that somebody has locked: its events are left for another time.
    """
    key = connection.ops.quote_name("key")
    rows = database.fetch_all(
        connection,
        f"SELECT e.id, e.run_id, e.workflow, e.{key}, e.name FROM {EVENT} e WHERE {dialect.is_false(connection, 'e.told')}"
        f" AND e.id > %s ORDER BY e.id LIMIT {_AT_MOST}",
        [after],
    )
    told, locked = 0, set[To]()
    for number, run_id, workflow, its_key, name in rows:
        to = To(run_id=dialect.run_id(run_id)) if run_id is not None else To(workflow=workflow, key=its_key)
        if to in locked:
            continue
        try:
            with database.writing(connection):
                database.limit_lock_waits(connection, _LONGEST_LOCK_WAIT)
                successor = _tell(connection, number, to, name)
            if successor is not None:
                _pass_on(connection, number, successor, name)
        except OperationalError as error:
            if not database.is_transient(error):
                raise
            locked.add(to)
        else:
            told += 1
    if told:
        notify.workers(connection)
    return told, rows[-1][0] if len(rows) == _AT_MOST else None
