"""Recording the outcome of a step: one fenced statement, one commit.

Every write checks the claim token *and locks the run's row*, so that a recovery in flight can't slip in between.
A write carries a `write_id` of its own: if the answer to it is lost, writing it again finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import failures
from ..core.ids import random_token
from ..core.states import Status
from . import database, details, dialect, moves
from .details import Details
from .postgresql import prepared
from .postgresql.prepared import Statement
from .tables import RUN, STEP


class Outcome(Enum):
    """What became of a fenced write."""

    WRITTEN = "written"
    # The run was canceled meanwhile, or is to be paused: its pass has to release it. The record of a step is written all the
    # same, nothing else.
    NOT_RUNNING = "not running"
    LOST = "lost"  # nothing written: the claim is another's by now, or the run is gone
    TAKEN = "taken"  # nothing written: that name holds another record already


@dataclass(slots=True, kw_only=True)
class StepWrite:
    """One row of StepRecord as a pass wants it to be; times in microseconds, values as encoded text."""

    run_id: UUID
    token: int
    name: str
    kind: str
    branch: str = ""  # the branch whose record it is; empty: the body's
    position: int
    after: int = -1  # the highest position whose outcome the body had been given when it called the step
    status: str
    attempts: int = 1
    output: str | None = None
    error: str | None = None
    attempt_log: str = ""
    started_at: int
    finished_at: int | None = None
    wakes_at_us: int | None = None
    context: str | None = None  # JSON of what only this kind and status has to say
    arguments: int | None = None  # the fingerprint of those that it was called with
    replaces: bool = False  # the row exists already (an earlier attempt failed) and is brought up to date
    details: Details | None = None  # what the run says of itself, which is written in the same transaction
    write_id: int = field(default_factory=random_token)

    @property
    def is_alone(self) -> bool:
        """Whether it can't be written together with others."""
        return self.replaces or self.details is not None

    @property
    def error_type(self) -> str:
        """The dotted path of the class of the exception; empty where there is none."""
        return failures.type_of(self.error) if self.error else ""


# The columns of a record that are written, and their types in PostgreSQL; the others hold what the database has for them.
TYPES = {
    "name": "text",
    "kind": "text",
    "position": "int",
    "after": "int",
    "status": "text",
    "attempts": "int",
    "output": "text",
    "error": "text",
    "error_type": "text",
    "attempt_log": "text",
    "started_at": "timestamptz",
    "finished_at": "timestamptz",
    "wakes_at_us": "bigint",
    "context": "text",
    "arguments": "bigint",
    "branch": "text",
    "claim_token": "bigint",
    "write_id": "bigint",
}
CHANGING = [column for column in TYPES if column not in ("name", "kind", "branch")]
# What the record of a step says that succeeded at once, as most do: the other columns hold what the database has for them.
_FEWER = {"attempts": 1, "error": None, "error_type": "", "attempt_log": "", "wakes_at_us": None}
_OF_GROUPS = {"branch": "", "context": None}  # where nothing is executed side by side
_PLAIN = tuple(column for column in TYPES if column not in _FEWER | _OF_GROUPS)
_MEMBER = tuple(column for column in TYPES if column not in _FEWER)
ALL = tuple(TYPES)
# A run that is to be paused is still `running`, but nothing further begins.
FENCE = f"id = %s AND claim_token = %s AND {moves.goes_on()}"
PAUSING = "id = %s AND claim_token = %s AND status = 'running' AND paused_at IS NOT NULL"
# The pass of a run that is canceling or to be paused may still record the step that it was executing.
HELD = "id = %s AND claim_token = %s AND status IN ('running', 'canceling')"


def record(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    """Write one record, in one transaction."""
    if (said := write.details) is not None:
        return database.retrying(connection, lambda: _record_with_details(connection, write, said))
    if write.replaces:
        return database.retrying(connection, lambda: _replace(connection, write))
    return Outcome.WRITTEN if insert(connection, write) else explain(connection, write)


def insert(connection: BaseDatabaseWrapper, write: StepWrite) -> bool:
    """Write a new record, waiting for whoever has locked the run; whether it is written."""
    return bool(database.retrying(connection, lambda: _insert(connection, write, FENCE)))


class _Refused(Exception):
    """Takes back what was written; `outcome` says why."""

    def __init__(self, outcome: Outcome | None) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def record_with(
    connection: BaseDatabaseWrapper,
    write: StepWrite,
    also: Callable[[], bool] = lambda: True,
    *,
    first: Callable[[], None] = lambda: None,
) -> Outcome | None:
    """Write a record together with something else, in one transaction: all or nothing.

    `first` comes before the record, `also` after it. None: `also` said that it can't be. A run that is canceled, or to be
    paused, gets nothing.
    """

    def statements() -> None:
        with database.writing(connection):
            first()
            outcome = write_within(connection, write)
            if outcome is not Outcome.WRITTEN:
                raise _Refused(outcome)
            if not also():
                raise _Refused(None)

    try:
        database.retrying(connection, statements)
    except _Refused as refused:
        if refused.outcome is not Outcome.NOT_RUNNING and is_recorded(connection, write):
            return Outcome.WRITTEN  # by the first time it was asked
        return refused.outcome
    return Outcome.WRITTEN


def write_within(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    """Write a record within a transaction of the caller, who takes it back unless the outcome is WRITTEN."""
    if write.details is not None:
        return _write_with_details(connection, write, write.details)
    return _write(connection, write)


def _write(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    if write.replaces:
        return replace_within(connection, write)
    return Outcome.WRITTEN if _insert(connection, write, FENCE) else explain(connection, write)


def insert_unlocked(connection: BaseDatabaseWrapper, write: StepWrite) -> bool:
    """Write a new record unless somebody has locked the run; whether it is written."""
    return _insert(connection, write, FENCE, skip=True)


def columns_of(writes: Iterable[StepWrite]) -> tuple[str, ...]:
    """The columns that an INSERT of these records names: one of three lists, so that there are few statements."""
    writes = list(writes)
    if not _have(writes, _FEWER):
        return ALL
    return _PLAIN if _have(writes, _OF_GROUPS) else _MEMBER


def _have(writes: Sequence[StepWrite], defaults: Mapping[str, Any]) -> bool:
    said, expected = attrgetter(*defaults), tuple(defaults.values())
    return all(said(write) == expected for write in writes)


def explain(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    """Why a record was refused; a run that was canceled, or paused, while its step executed still gets the record."""
    # The INSERT said only that it wrote nothing. The reasons look alike and call for opposite things, so the order in
    # which they are asked for matters:
    #
    # 1. The run is gone, its token is another one, or no worker holds it: the claim is lost. Whatever is recorded under
    #    this name is the business of the worker that has the run now. That comes first: with another token even our own
    #    `write_id` says nothing about what this pass may do.
    # 2. The record has our `write_id`: an earlier attempt of this very write was committed, and its answer got lost with
    #    the connection. To call that TAKEN would end the pass, and to write again is what must not happen.
    # 3. The record has another `write_id`: this pass looked the name up and did not find it, so its history is not what
    #    is in the database. The pass must end, and be replayed over the true one.
    # 4. There is no record: the run was canceled, or somebody has asked for a pause, while the step executed. The effect
    #    of the step has happened, so it is recorded all the same; otherwise a retry of the canceled run, or the resumed one,
    #    would repeat it. The fence of this second INSERT is wider by that and no more: once the run waits for a retry,
    #    records before this one may be reset.
    #
    # Nothing is locked between the two statements. If the run changes again in between, the second INSERT is refused too,
    # and the claim is lost.
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT s.write_id, r.claim_token, {moves.standing('r.')} FROM {RUN} r"
            f" LEFT JOIN {STEP} s ON s.run_id = r.id AND s.name = %s WHERE r.id = %s",
            [write.name, dialect.key(connection, write.run_id)],
        )
        row = cursor.fetchone()
    if row is None:
        return Outcome.LOST
    write_id, token, status = row
    if token != write.token or status not in (Status.RUNNING, Status.CANCELING, moves.IS_PAUSING):
        return Outcome.LOST
    if write_id == write.write_id:
        return Outcome.WRITTEN if status == Status.RUNNING else Outcome.NOT_RUNNING
    if write_id is not None:
        return Outcome.TAKEN
    return Outcome.NOT_RUNNING if _insert(connection, write, HELD) else Outcome.LOST


def is_recorded(connection: BaseDatabaseWrapper, write: StepWrite) -> bool:
    """Whether this very write is in the database. Waits for whoever holds the run's row, so that a COMMIT whose
    answer was lost is over before one concludes that it failed."""
    with database.writing(connection), connection.cursor() as cursor:
        cursor.execute(
            # A shared lock would not wait: the transaction in question holds one itself.
            f"SELECT id FROM {RUN} WHERE id = %s{dialect.locking(connection, wait=True)}",
            [dialect.key(connection, write.run_id)],
        )
        cursor.execute(
            f"SELECT 1 FROM {STEP} WHERE run_id = %s AND name = %s AND write_id = %s",
            [dialect.key(connection, write.run_id), write.name, write.write_id],
        )
        return cursor.fetchone() is not None


def hold(connection: BaseDatabaseWrapper, run_id: UUID, token: int) -> str | None:
    """Lock the run against a recovery until this transaction ends; its `moves.standing()`, or None if the claim is lost.

    SQLite locks by writing, which also makes the transaction a writer from its first statement on.
    """
    key = dialect.key(connection, run_id)
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"UPDATE {RUN} SET claim_token = claim_token WHERE {HELD}", [key, token])
        cursor.execute(f"SELECT {moves.standing()} FROM {RUN} WHERE {HELD}{dialect.sharing(connection)}", [key, token])
        row = cursor.fetchone()
    return row[0] if row else None


def _record_with_details(connection: BaseDatabaseWrapper, write: StepWrite, said: Details) -> Outcome:
    with database.writing(connection):
        return _write_with_details(connection, write, said)


def _write_with_details(connection: BaseDatabaseWrapper, write: StepWrite, said: Details) -> Outcome:
    """Write a record and what the run says of itself. Where the run was canceled meanwhile, too: a retry only replays what
    is recorded, and would not say it again."""
    key = dialect.key(connection, write.run_id)
    with connection.cursor() as cursor:
        # Before the record, whose statement shares the row: two that share it could not both go on to change it.
        cursor.execute(f"SELECT tags FROM {RUN} WHERE {HELD}{dialect.keeping(connection)}", [key, write.token])
        row = cursor.fetchone()
    if row is None:
        return Outcome.LOST
    outcome = _write(connection, write)
    if outcome in (Outcome.WRITTEN, Outcome.NOT_RUNNING):
        details.write_said(connection, write.run_id, said, row[0])
    return outcome


def values_of(write: StepWrite, as_date: Callable[[int | None], Any]) -> dict[str, Any]:
    """What a record says, by column."""
    return {
        "name": write.name,
        "kind": write.kind,
        "position": write.position,
        "after": write.after,
        "status": write.status,
        "attempts": write.attempts,
        "output": write.output,
        "error": write.error,
        "error_type": write.error_type,
        "attempt_log": write.attempt_log,
        "started_at": as_date(write.started_at),
        "finished_at": as_date(write.finished_at),
        "wakes_at_us": write.wakes_at_us,
        "context": write.context,
        "arguments": write.arguments,
        "branch": write.branch,
        "claim_token": write.token,
        "write_id": write.write_id,
    }


def parameters(connection: BaseDatabaseWrapper, write: StepWrite, columns: Iterable[str] = ALL) -> list[Any]:
    """The values of these columns, as parameters of a statement."""
    values = values_of(write, lambda microseconds: dialect.date_value(connection, microseconds))
    return [values[column] for column in columns]


def fenced_parameters(connection: BaseDatabaseWrapper, write: StepWrite, columns: Iterable[str]) -> list[Any]:
    return [*parameters(connection, write, columns), dialect.key(connection, write.run_id), write.token]


def _insert(connection: BaseDatabaseWrapper, write: StepWrite, fence: str, *, skip: bool = False) -> bool:
    columns, lock = columns_of([write]), dialect.sharing(connection, skip=skip)
    statement = insertion_of_one(fence, lock, connection.vendor == "mysql", columns)
    with connection.cursor() as cursor:
        try:
            prepared.execute(connection, cursor, statement, fenced_parameters(connection, write, columns))
        except IntegrityError:  # MySQL has no other way to say that the name is taken
            if connection.vendor != "mysql":
                raise
            return False
        return bool(cursor.rowcount > 0)


@cache
def insertion_of_one(fence: str, lock: str, raises_on_conflict: bool, columns: tuple[str, ...]) -> Statement:
    conflict = "" if raises_on_conflict else " ON CONFLICT DO NOTHING"
    return Statement(
        f"INSERT INTO {STEP} (run_id, {', '.join(columns)}) SELECT id, {dialect.marks(columns)} FROM {RUN}"
        f" WHERE {fence}{lock}{conflict}",
        [*[TYPES[column] for column in columns], "uuid", "bigint"],
    )


# PostgreSQL, where `held` is the run: a new record, and the row of a step that was tried before.
INSERTING = (
    f"INSERT INTO {STEP} (run_id, {', '.join(ALL)}) SELECT id, {dialect.marks(TYPES)} FROM held ON CONFLICT DO NOTHING"
)
REPLACING = (
    f"UPDATE {STEP} s SET {', '.join(f'{column} = %s' for column in CHANGING)}"
    f" FROM held WHERE {dialect.looked_up('s.run_id', 'held.id')} AND s.name = %s"
)
# The latter by one statement.
_REPLACEMENT = Statement(
    f"WITH held AS (SELECT id, {moves.standing()} AS status FROM {RUN} WHERE {HELD} FOR SHARE) {REPLACING}"
    " RETURNING held.status",
    ["uuid", "bigint", *[TYPES[column] for column in CHANGING], "text"],
)


def _replace(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    if connection.vendor == "postgresql":
        return replace_within(connection, write)
    with database.writing(connection):
        return replace_within(connection, write)


def replace_within(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    """Bring a record up to date, within a transaction of the caller (PostgreSQL: or by one statement)."""
    if connection.vendor == "postgresql":
        values = [write.run_id, write.token, *parameters(connection, write, CHANGING), write.name]
        with connection.cursor() as cursor:
            prepared.execute(connection, cursor, _REPLACEMENT, values)
            row = cursor.fetchone()
        if row is None:
            return Outcome.LOST
        return Outcome.WRITTEN if row[0] == Status.RUNNING else Outcome.NOT_RUNNING
    status = hold(connection, write.run_id, write.token)
    if status is None:
        return Outcome.LOST
    _replace_held(connection, write)
    return Outcome.WRITTEN if status == Status.RUNNING else Outcome.NOT_RUNNING


def _replace_held(connection: BaseDatabaseWrapper, write: StepWrite) -> None:
    """Bring the row of a step that was tried before up to date; the caller holds the run."""
    assignments = ", ".join(f"{column} = %s" for column in CHANGING)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {STEP} SET {assignments} WHERE run_id = %s AND name = %s",
            [*parameters(connection, write, CHANGING), dialect.key(connection, write.run_id), write.name],
        )
