"""Firing schedules: any worker does, once for each slot, by one transaction that inserts the runs and moves the next times.

Whoever fires locks the rows that are due, and leaves out those that another one has locked. The runs have keys made of the
schedule and the slot, so that no slot ever has two.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core import clock, schedules
from ..core import tags as run_tags
from ..core.schedules import Timing, slot_key
from . import database, dialect, inserts, notify, overlaps
from .inserts import NewRun, Slot
from .tables import RUN, SCHEDULE

logger = logging.getLogger("django_steps")

AT_MOST = 100  # schedules that are fired by one transaction
KEPT_SKIPS = 20

_COLUMNS = (
    "id, name, source, workflow, version, input, input_search, cron, every, timezone, spread, queue, priority, overlap,"
    " missed, next_at_us, skipped, tags"
)


# What else a `NewRun` has of its workflow, by its version, its encoded input and its queue: limits, timeouts and tags.
Own = Callable[[str, str, str], Mapping[str, Any]]


class Target(NamedTuple):
    """What this process knows of a workflow by name: its latest version, where its runs go, and what else they have of it."""

    version: str
    queue: str
    priority: int
    own: Own | None = None


class Row(NamedTuple):
    """A schedule as firing reads it."""

    id: int
    name: str
    source: str
    workflow: str
    version: str
    input: str
    input_search: Any
    cron: str
    every: str
    timezone: str
    spread: str
    queue: str | None
    priority: int | None
    overlap: str
    missed: str
    next_at_us: int
    skipped: str
    tags: Any

    def timing(self) -> Timing:
        """When it fires; raises `ValueError` where the row is damaged, or its zone is unknown here."""
        return schedules.timing(
            name=self.name, cron=self.cron, every=self.every, zone=self.timezone, spread=self.spread
        )

    def new_run(self, slot: int, target: Target | None, *, key: str | None, is_held: bool = False) -> NewRun:
        """The run of a slot. Raises `InvalidInput` where a key function of its limits fails, `ValueError` for too many
        tags."""
        known = target or Target("", "default", 0)
        version = self.version if self.version or self.source == "code" else known.version
        queue = self.queue or known.queue
        search = self.input_search
        own = {} if known.own is None else dict(known.own(version, self.input, queue))
        given = self.tags if isinstance(self.tags, str) else json.dumps(self.tags)
        own["tags"] = run_tags.merged(own.get("tags", {}), run_tags.read(given))
        return NewRun(
            workflow=self.workflow,
            version=version,
            queue=queue,
            priority=known.priority if self.priority is None else self.priority,
            input=self.input,
            input_search=search if search is None or isinstance(search, str) else json.dumps(search),
            key=key,
            created_at=clock.host_time(),
            slot=Slot(self.name, slot, is_held),
            trace=None,  # a trace of its own begins, whoever fires
            **own,
        )


@dataclass(slots=True)
class Fired:
    """What firing has done: how many runs it has started, and whether more schedules are due.

    `held`: the schedules whose new runs are held until the old ones have ended, and whether those are to be canceled;
    `superseded`: the held runs whose places were taken, and which are canceled.
    """

    runs: int = 0
    is_more: bool = False
    held: dict[str, bool] = field(default_factory=dict)
    superseded: list[UUID] = field(default_factory=list)


@dataclass(slots=True)
class _Moves:
    """What the rows of schedules become, by their ids."""

    next_at: dict[int, int | None] = field(default_factory=dict)
    fired: dict[int, tuple[int, UUID]] = field(default_factory=dict)  # the slot and its run
    skipped: dict[int, str] = field(default_factory=dict)
    disabled: dict[int, str] = field(default_factory=dict)


def fire(connection: BaseDatabaseWrapper, targets: Mapping[str, Target], at: int | None = None) -> Fired:
    """Fire what is due of the workflows that this process knows: at most `AT_MOST` schedules, by one transaction. `at`: as if
    this were the time."""
    if not targets or (at is None and connection.vendor == "sqlite" and not is_due(connection, targets)):
        return Fired()  # a lock on a whole file is not to be taken for nothing

    def attempt() -> Fired:
        with database.writing(connection):
            return _fire(connection, targets, dialect.now(connection) if at is None else str(int(at)))

    fired: Fired = database.retrying(connection, attempt)
    if fired.runs:
        notify.workers(connection)
    return fired


def is_due(connection: BaseDatabaseWrapper, workflows: Collection[str]) -> bool:
    """Whether a schedule of these workflows is due."""
    wait = database.fetch_all(connection, f"SELECT {next_due(connection, workflows)}", [*workflows])[0][0]
    return wait is not None and int(wait) <= 0


def next_due(connection: BaseDatabaseWrapper, workflows: Collection[str]) -> str:
    """SQL for: in how many microseconds the next schedule of these workflows is due, NULL: never. Its parameters are their
    names."""
    return (
        f"(SELECT next_at_us - {dialect.now(connection)} FROM {SCHEDULE}{dialect.by_index(connection, 'django_steps_next')}"
        f" WHERE next_at_us IS NOT NULL AND workflow IN ({dialect.marks(workflows)}) ORDER BY next_at_us LIMIT 1)"
    )


def next_at(connection: BaseDatabaseWrapper, workflows: Collection[str]) -> int | None:
    """When the next schedule of these workflows is due; None: never."""
    rows = database.fetch_all(
        connection,
        f"SELECT MIN(next_at_us) FROM {SCHEDULE} WHERE next_at_us IS NOT NULL AND workflow IN ({dialect.marks(workflows)})",
        [*workflows],
    )
    return None if rows[0][0] is None else int(rows[0][0])


def _fire(connection: BaseDatabaseWrapper, targets: Mapping[str, Target], present: str) -> Fired:
    now, rows, active = _lock_due(connection, targets, present)
    runs, moves, held = list[NewRun](), _Moves(), dict[str, bool]()
    for row in rows:
        new = None
        try:
            turn = schedules.take_turn(row.timing(), row.next_at_us, now, row.missed)
            if turn.slot is not None and not (row.overlap == "skip" and row.name in active):
                is_held = row.overlap in ("wait", "cancel") and row.name in active
                key = slot_key(row.name, turn.slot)
                new = row.new_run(turn.slot, targets.get(row.workflow), key=key, is_held=is_held)
        except (ValueError, TypeError) as error:
            logger.warning("Schedule %r can't be fired any more, and is disabled: %s", row.name, error)
            moves.next_at[row.id], moves.disabled[row.id] = None, str(error)
            continue
        moves.next_at[row.id] = turn.next_at
        skips = [("missed", turn.missed, turn.last_missed)] if turn.missed else []
        if turn.slot is not None and new is None:
            skips.append(("overlap", 1, turn.slot))
        elif turn.slot is not None and new is not None:
            if new.is_held:
                held[row.name] = row.overlap == "cancel"
            runs.append(new)
            moves.fired[row.id] = turn.slot, new.id
        if skips:
            moves.skipped[row.id] = _with_skips(row.skipped, skips, now)
    superseded = overlaps.supersede(connection, held)
    inserts.insert_many(connection, runs, where_new=True)
    _move(connection, moves)
    return Fired(len(runs), len(rows) == AT_MOST, held, superseded)


def _lock_due(
    connection: BaseDatabaseWrapper, workflows: Collection[str], present: str
) -> tuple[int, list[Row], set[str]]:
    """The time, the schedules that are due, and the names of those of which a run is active."""
    rows = database.fetch_all(
        connection,
        f"SELECT {_COLUMNS}, overlap <> 'allow' AND EXISTS (SELECT 1 FROM {RUN} r WHERE r.open_schedule = s.name),"
        f" {present} FROM {SCHEDULE} s WHERE next_at_us <= {present}"
        f" AND workflow IN ({dialect.marks(workflows)}) ORDER BY next_at_us LIMIT {AT_MOST}{dialect.locking(connection)}",
        [*workflows],
    )
    found = [Row(*row[:-2]) for row in rows]
    active = {row.name for row, (*_, is_active, _now) in zip(found, rows, strict=True) if is_active}
    return (int(rows[0][-1]) if rows else 0), found, active


def _with_skips(text: str, skips: Iterable[tuple[str, int, int]], now: int) -> str:
    """What is said of skipped slots, with more of them: `(reason, how many, the last one)` each."""
    try:
        said = json.loads(text) if text else {}
        counts, last = dict(said.get("counts", {})), list(said.get("last", []))
    except (ValueError, RecursionError, AttributeError, TypeError):  # damaged
        said, counts, last = {}, {}, []
    for reason, count, slot in skips:
        counts[reason] = counts.get(reason, 0) + count
        last.insert(0, [slot, reason])
    return json.dumps({"counts": counts, "since": said.get("since", now), "last": last[:KEPT_SKIPS]})


def _move(connection: BaseDatabaseWrapper, moves: _Moves) -> None:
    """Write what the rows become, by one statement."""
    if not moves.next_at:
        return
    sets, parameters = ["next_at_us = " + _case(moves.next_at, "next_at_us")], list[Any]()
    if moves.fired:
        sets.append("last_slot_us = " + _case({key: slot for key, (slot, _) in moves.fired.items()}, "last_slot_us"))
        ids = {key: dialect.key(connection, run_id) for key, (_, run_id) in moves.fired.items()}
        sets.append("last_run_id = " + _case(dict.fromkeys(ids, dialect.typed(connection, "uuid")), "last_run_id"))
        parameters += ids.values()
    for column, texts in (("skipped", moves.skipped), ("disabled_reason", moves.disabled)):
        if texts:
            sets.append(f"{column} = " + _case(dict.fromkeys(texts, "%s"), column))
            parameters += texts.values()
    ids_of_all = list(moves.next_at)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {SCHEDULE} SET {', '.join(sets)} WHERE id IN ({dialect.marks(ids_of_all)})",
            [*parameters, *ids_of_all],
        )


def _case(values: Mapping[int, Any], otherwise: str) -> str:
    """SQL for: of the row with this id, this value, which is SQL; of others what the column has."""
    cases = "".join(f" WHEN {int(key)} THEN {'NULL' if value is None else value}" for key, value in values.items())
    return f"CASE id{cases} ELSE {otherwise} END"


def read(connection: BaseDatabaseWrapper, name: str) -> Row | None:
    """A schedule by its name."""
    rows = database.fetch_all(connection, f"SELECT {_COLUMNS} FROM {SCHEDULE} WHERE name = %s", [name])
    return Row(*rows[0]) if rows else None


def start(connection: BaseDatabaseWrapper, runs: Sequence[NewRun]) -> None:
    """Insert runs of a schedule, but for those whose slots have one."""
    inserts.insert_many(connection, runs, where_new=True)
    notify.workers(connection)


# -- What operators say ------------------------------------------------------------------------------


def pause(connection: BaseDatabaseWrapper, ids: Sequence[int], at: datetime, reason: str, by: str) -> int:
    """Pause those of these schedules that are not paused; how many were."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {SCHEDULE} SET paused_at = %s, pause_reason = %s, paused_by = %s, next_at_us = NULL"
            f" WHERE id IN ({dialect.marks(ids)}) AND paused_at IS NULL",
            [connection.ops.adapt_datetimefield_value(at), reason, by, *ids],
        )
        return int(cursor.rowcount)


def resume(connection: BaseDatabaseWrapper, schedule_id: int, next_at: int | None, now: int) -> None:
    """Let a paused schedule fire again, at `next_at` for the first time."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {SCHEDULE} SET paused_at = NULL, pause_reason = '', paused_by = '', next_at_us = %s,"
            " counts_from_us = %s WHERE id = %s AND paused_at IS NOT NULL",
            [next_at, now, schedule_id],
        )
