"""Runs in line for a slot of a limit, and letting them go on: *promoting* them.

A run that is limited is in phase *in line* where another one would be ready: `line_key` is the name of the limit that it
waits for. It has at most three limits (`limit_1`, `limit_2`, `limit_queue`), which it gets in line for one after the other, and
holds a slot of each (`slot_1`, …) until it ends or is suspended. A limit stands in the row of a run with a rule of two letters
before its name:
- `u`: the slot is kept until the end of the run; `e`: until its pass ends; `r`: there are no slots, only a rate
- `t`: it has a rate (which counts runs that begin, so that those that go on need not wait for it), or `-`

Slots are counted from the rows of runs, and set and cleared by the statements that move these; so none is lost when a process
dies. Whoever frees a slot, or gets a run in line, commits that first and promotes then, in a transaction that locks the row of
the limit and waits for nobody: who has the lock looks once more after its commit. Slot and line of one limit are looked at by
statements of their own, after the lock: a snapshot that is older than the lock would let too many go on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.limit import Stage, definition_of
from . import database, dialect, moves, notify
from .tables import IN_LINE, LIMIT, PARKED, READY, RUN

COLUMNS = "limit_1, limit_2, limit_queue"
SLOTS = {Stage.FIRST: "slot_1", Stage.SECOND: "slot_2", Stage.QUEUE: "slot_queue"}
_STAGES = tuple(SLOTS)
_AT_ONCE = 50  # limits that one transaction promotes for
_MOST = 200  # runs of a limit that one transaction promotes
_SECOND = 1_000_000
LOOK_EACH_US = _SECOND  # how often a worker looks at lines without a reason, as long as there are any
_LINES_AT_ONCE = 20  # that it looks at then
_TRIES = 3  # where others hold what is to be promoted


def names(*limits: str | None) -> list[str]:
    """The names of limits, of the columns of a run."""
    return [limit[2:] for limit in limits if limit]


def with_rate(*limits: str | None) -> list[str]:
    """The names of those of the limits of a run that have a rate: its first claim makes room for another run."""
    return [limit[2:] for limit in limits if limit and limit[1] == "t"]


def of_runs(connection: BaseDatabaseWrapper, ids: Collection[UUID]) -> set[str]:
    """The names of the limits of some runs."""
    if not ids:
        return set()
    keys = [dialect.key(connection, run_id) for run_id in ids]
    one_of_them, parameters = dialect.one_of(connection, keys)
    rows = database.fetch_all(
        connection,
        f"SELECT {COLUMNS} FROM {RUN} WHERE id {one_of_them} AND (limit_1 IS NOT NULL OR limit_queue IS NOT NULL)",
        parameters,
    )
    return {name for row in rows for name in names(*row)}


# -- After a commit ----------------------------------------------------------------------------------


def promote_after_commit(connection: BaseDatabaseWrapper, limits: Iterable[str]) -> None:
    """Promote runs in line for these limits once the caller's transaction is committed: for all of them together."""
    wanted: set[str] = vars(connection).setdefault("_django_steps_lines", set())
    own = set(limits)
    wanted |= own

    def promote_wanted() -> None:
        if wanted.isdisjoint(own):  # with those of another statement of the transaction
            return
        # Also what was rolled back: to look once too often does no harm.
        some = set(wanted)
        wanted.clear()
        promote(connection, some)

    if own:
        connection.on_commit(promote_wanted, robust=True)


def move(
    connection: BaseDatabaseWrapper, ids: Sequence[Any], condition: str, sets: str, parameters: Sequence[Any] = ()
) -> int:
    """Move those of these runs `r` that the condition holds for and that nobody has locked; how many. They become ready, get in
    line, or cease to be either: `sets` is what `moves` says of that.

    By their ids: MySQL would lock the rows through another index first, and so deadlock with whoever locks them by their ids.
    """
    if not ids:  # nothing is to be locked, SQLite's file neither
        return 0
    with database.writing(connection), connection.cursor() as cursor:
        cursor.execute(
            f"SELECT r.id, {COLUMNS} FROM {RUN} r WHERE r.id IN ({dialect.marks(ids)}) AND {condition}"
            f" ORDER BY r.id{dialect.locking(connection, of='r')}",
            [*ids, *parameters],
        )
        rows = cursor.fetchall()
        moved = [row[0] for row in rows]
        if moved:
            cursor.execute(f"UPDATE {RUN} SET {sets} WHERE id IN ({dialect.marks(moved)})", moved)
    promote_after_commit(connection, {name for row in rows for name in names(*row[1:])})
    return len(moved)


# -- Promoting ---------------------------------------------------------------------------------------


class _Limit(NamedTuple):
    """A limit as it was looked at."""

    name: str
    at_once: int | None
    interval_us: int | None
    burst: int

    @property
    def slot(self) -> str:
        return SLOTS[self.name[0]]

    @property
    def is_none(self) -> bool:
        return self.at_once is None and self.interval_us is None


class _Moved(NamedTuple):
    """What a transaction has promoted: of which limits, those that have room or a line by that, the runs that it has parked,
    since a pause holds them, and whether one is ready."""

    promoted: set[str]
    next_lines: set[str]
    parked: list[Any]
    has_ready: bool


def promote(connection: BaseDatabaseWrapper, limits: Iterable[str]) -> bool:
    """Let runs go on that are in line for these limits, as many as may; whether any is ready now.

    To be called after the commit of what may have made room.
    """
    todo = sorted(set(limits))
    tries: dict[str, int] = {}
    has_ready = False
    while todo:
        some, todo = todo[:_AT_ONCE], todo[_AT_ONCE:]
        found = _with_room(connection, some)
        if not found:
            continue
        moved = _promoted(connection, found)
        has_ready = has_ready or moved.has_ready
        if moved.parked:  # a pause that has ended meanwhile has not brought these back
            is_free = f"r.phase = {PARKED} AND r.status <> 'paused' AND NOT {moves.held_by_pause(connection)}"
            database.retrying(
                connection, partial(move, connection, moved.parked, is_free, moves.ready("available_at_us"))
            )
        for name in found:
            if name not in moved.promoted:
                tries[name] = tries.get(name, 0) + 1
        again = {name for name in moved.promoted if tries.get(name, 0) < _TRIES}
        todo = sorted({*todo, *again, *moved.next_lines})
    if has_ready:
        notify.workers(connection)
    return has_ready


def _promoted(connection: BaseDatabaseWrapper, found: Mapping[str, _Limit]) -> _Moved:
    return database.retrying(connection, lambda: _promote(connection, found))


def sweep(connection: BaseDatabaseWrapper) -> bool:
    """Promote all that may go on, whoever should have done it and died; whether any is ready now."""
    rows = database.fetch_all(connection, f"SELECT DISTINCT line_key FROM {RUN} WHERE line_key IS NOT NULL", [])
    return promote(connection, [row[0] for row in rows])


def after(connection: BaseDatabaseWrapper, name: str, most: int = _LINES_AT_ONCE) -> list[str]:
    """The next limits, by their names, that runs are in line for. However many runs there are in a line, an entry of the index
    is read for it: by a statement each, since not every database could skip from line to line in one."""
    found: list[str] = []
    while len(found) < most:
        ((following,),) = database.fetch_all(
            connection, f"SELECT MIN(line_key) FROM {RUN} WHERE line_key > %s", [found[-1] if found else name]
        )
        if following is None:
            break
        found.append(following)
    return found


def due(connection: BaseDatabaseWrapper) -> list[str]:
    """The limits of which a run may begin by the rate, for which somebody has to look."""
    rows = database.fetch_all(
        connection,
        f"SELECT name FROM {LIMIT} WHERE due_us IS NOT NULL AND due_us <= {dialect.now(connection)} ORDER BY due_us LIMIT 100",
        [],
    )
    return [row[0] for row in rows]


def held(name: str) -> str:
    """SQL for how many slots of a limit are held; `name` is SQL."""
    counts = " ".join(
        f"WHEN '{stage}' THEN (SELECT COUNT(*) FROM {RUN} h WHERE h.{slot} = {name})" for stage, slot in SLOTS.items()
    )
    return f"CASE SUBSTR({name}, 1, 1) {counts} END"


def _with_room(connection: BaseDatabaseWrapper, limits: Sequence[str]) -> dict[str, _Limit]:
    """Those of these limits that some run is in line for and may get past, as far as a look without a lock shows."""
    rows = _look(connection, limits)
    missing = set(limits) - {row[0] for row in rows}
    if missing and _create(connection, missing):
        rows = _look(connection, limits)
    found = {}
    for name, at_once, interval_us, burst, has_line, held in rows:
        limit = _Limit(name, at_once, interval_us, burst)
        if has_line and (at_once is None or held < at_once or _passing(connection, limit, held, [])):
            found[name] = limit
    return found


def _look(connection: BaseDatabaseWrapper, limits: Sequence[str]) -> list[tuple[Any, ...]]:
    return database.fetch_all(
        connection,
        "SELECT l.name, d.at_once, d.interval_us, d.burst,"
        f" EXISTS (SELECT 1 FROM {RUN} r WHERE r.line_key = l.name), {held('l.name')}"
        f" FROM {LIMIT} l JOIN {LIMIT} d ON d.name = l.definition WHERE l.name IN ({dialect.marks(limits)})",
        limits,
    )


def _create(connection: BaseDatabaseWrapper, limits: Collection[str]) -> bool:
    """Insert rows for keys that runs are in line for, of limits that a worker has written; whether there are any."""
    definitions = sorted({definition_of(name) for name in limits})
    rows = database.fetch_all(
        connection, f"SELECT name FROM {LIMIT} WHERE name IN ({dialect.marks(definitions)})", definitions
    )
    known = {row[0] for row in rows}
    new = [name for name in sorted(limits) if definition_of(name) in known]
    conflict = " ON DUPLICATE KEY UPDATE definition = definition" if connection.vendor == "mysql" else ""
    conflict = conflict or " ON CONFLICT DO NOTHING"

    def insert() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {LIMIT} (name, definition) VALUES {', '.join(['(%s, %s)'] * len(new))}{conflict}",
                [value for name in new for value in (name, definition_of(name))],
            )

    if new:
        database.retrying(connection, insert)
    return bool(new)


class _Candidate(NamedTuple):
    """A run in line: whether it is to begin, the limit that it is to get in line for next, if any, and all of its limits."""

    id: Any
    is_new: bool
    next_line: str | None
    limits: list[str]


def _promote(connection: BaseDatabaseWrapper, limits: Mapping[str, _Limit]) -> _Moved:
    moved = _Moved(set(), set(), [], False)
    is_own = not connection.in_atomic_block
    with database.writing(connection):
        if is_own and connection.vendor == "postgresql":  # whatever the level of the session
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        return _promote_locked(connection, limits, moved)


def _promote_locked(connection: BaseDatabaseWrapper, limits: Mapping[str, _Limit], moved: _Moved) -> _Moved:
    rows = database.fetch_all(
        connection,
        f"SELECT name, tat_us, due_us, {dialect.now(connection)} FROM {LIMIT} WHERE name IN ({dialect.marks(limits)})"
        f" ORDER BY name{dialect.locking(connection)}",
        list(limits),
    )
    has_ready = False
    for name, tat_us, due_us, now in rows:
        limit = limits[name]
        paused: list[_Candidate] = []
        chosen = _choose(connection, limit, _Rate(limit, int(tat_us), due_us, int(now)), paused)
        if paused and _park(connection, limit, [candidate.id for candidate in paused]):
            moved.promoted.add(name)  # others are the first in line now
            moved.parked.extend(candidate.id for candidate in paused)
            moved.next_lines.update(other for candidate in paused for other in candidate.limits)
        if chosen and _move(connection, limit, [candidate.id for candidate in chosen]):
            moved.promoted.add(name)
            moved.next_lines.update(c.next_line for c in chosen if c.next_line is not None)
            has_ready = has_ready or any(c.next_line is None for c in chosen)
    return moved._replace(has_ready=has_ready)


def _choose(connection: BaseDatabaseWrapper, limit: _Limit, rate: _Rate, paused: list[_Candidate]) -> list[_Candidate]:
    """The runs that go on, of those in line for a limit whose row is locked; to `paused` it adds those that can't begin."""
    most = _MOST if limit.at_once is None else min(limit.at_once, _MOST)
    count, candidates = _line(connection, limit, "", most, paused)
    room = _MOST if limit.at_once is None else limit.at_once - count
    if limit.is_none or limit.interval_us is None:
        if room > 0:
            return candidates[:room]
        return _passing(connection, limit, count, paused)[:1]
    tokens = rate.tokens(connection)
    chosen: list[_Candidate] = []
    if room > 0:
        if tokens <= 0 and candidates and limit.at_once is not None:
            # Those that have begun don't wait for the rate.
            candidates += _line(connection, limit, " AND attempting_since_us IS NOT NULL", room, paused)[1]
        left = max(0, tokens)
        for candidate in {candidate.id: candidate for candidate in candidates}.values():
            if len(chosen) < room and (left > 0 or not candidate.is_new):
                chosen.append(candidate)
                left -= candidate.is_new
    else:
        chosen = [c for c in _passing(connection, limit, count, paused) if tokens > 0 or not c.is_new][:1]
    begun = sum(candidate.is_new for candidate in chosen)
    rate.take(connection, begun, has_more=any(c.is_new for c in candidates if c not in chosen) and tokens - begun <= 0)
    return chosen


def _line(
    connection: BaseDatabaseWrapper, limit: _Limit, condition: str, most: int, paused: list[_Candidate]
) -> tuple[int, list[_Candidate]]:
    """How many slots are held, and the first of those in line."""
    rows = database.fetch_all(
        connection,
        f"SELECT (SELECT COUNT(*) FROM {RUN} h WHERE h.{limit.slot} = %s), {_columns(connection)} FROM {RUN} r"
        f" WHERE r.line_key = %s{condition} ORDER BY r.priority DESC, r.id LIMIT {int(most)}",
        [limit.name, limit.name],
    )
    return (int(rows[0][0]) if rows else 0), _sorted_out(limit, [row[1:] for row in rows], paused)


_CANDIDATE = f"r.id, r.attempting_since_us, {', '.join(f'r.{c}' for c in (*COLUMNS.split(', '), *SLOTS.values()))}"


def _columns(connection: BaseDatabaseWrapper) -> str:
    return f"CASE WHEN {moves.held_by_pause(connection)} THEN 1 ELSE 0 END, {_CANDIDATE}"


def _sorted_out(limit: _Limit, rows: Sequence[Sequence[Any]], paused: list[_Candidate]) -> list[_Candidate]:
    """Those of the candidates that no pause holds; the others are added to `paused`."""
    found: list[_Candidate] = []
    for is_paused, *row in rows:
        (paused if is_paused else found).append(_candidate(limit, row))
    return found


def _candidate(limit: _Limit, row: Sequence[Any]) -> _Candidate:
    run_id, attempting, *columns = row
    limits, slots = columns[:3], columns[3:]
    later = _STAGES.index(limit.name[0]) + 1
    for wanted, held in zip(limits[later:], slots[later:], strict=True):
        if wanted and held is None and (wanted[0] != "r" or attempting is None):
            return _Candidate(run_id, attempting is None, wanted[2:], names(*limits))
    return _Candidate(run_id, attempting is None, None, names(*limits))


def _passing(connection: BaseDatabaseWrapper, limit: _Limit, count: int, paused: list[_Candidate]) -> list[_Candidate]:
    """Runs in line that may go on although all slots are held: by so many of their own ancestors that there is room without
    these, which may be waiting for them. Found from the holders downwards, over children that have not ended."""
    below = database.fetch_all(
        connection,
        f"WITH RECURSIVE below (id, level) AS (SELECT h.id, 0 FROM {RUN} h WHERE h.{limit.slot} = %s"
        f" UNION ALL SELECT c.id, b.level + 1 FROM below b JOIN {RUN} c ON c.open_parent_id = b.id)"
        " SELECT id FROM below WHERE level > 0 GROUP BY id HAVING %s - COUNT(*) < %s ORDER BY id",
        [limit.name, count, limit.at_once],
    )
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(below), _MOST):
        some = [row[0] for row in below[start : start + _MOST]]
        found += database.fetch_all(
            connection,
            # Through the index of the line a database may walk over all that are in it.
            f"SELECT r.priority, {_columns(connection)} FROM {RUN} r WHERE r.id IN ({dialect.marks(some)})"
            " AND COALESCE(r.line_key, '') = %s",
            [*some, limit.name],
        )
    found.sort(key=lambda row: (-row[0], row[2]))
    return _sorted_out(limit, [row[1:] for row in found], paused)


def _move(connection: BaseDatabaseWrapper, limit: _Limit, ids: Sequence[Any]) -> int:
    """Let runs past a limit: they hold a slot of it, and are ready or in the next line."""
    following = moves.line_after(limit.name[0])
    sets = (
        f"{limit.slot} = line_key, line_key = {following}, available_at_us = {dialect.now(connection)},"
        f" phase = CASE WHEN {following} IS NULL THEN {READY} ELSE {IN_LINE} END"
    )
    return _update(connection, limit, ids, sets)


def _park(connection: BaseDatabaseWrapper, limit: _Limit, ids: Sequence[Any]) -> int:
    """Take runs out of the line that a pause holds: they would only take a slot, or the place of another one in the rate."""
    return _update(connection, limit, ids, moves.parked())


def _update(connection: BaseDatabaseWrapper, limit: _Limit, ids: Sequence[Any], sets: str) -> int:
    condition = f"id IN ({dialect.marks(ids)}) AND line_key = %s"
    if connection.vendor == "postgresql":  # whoever holds one of them may wait for another
        condition = f"id = ANY(ARRAY(SELECT id FROM {RUN} WHERE {condition} ORDER BY id FOR UPDATE SKIP LOCKED))"
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {RUN} SET {sets} WHERE {condition}", [*ids, limit.name])
        return int(cursor.rowcount)


class _Rate:
    """The rate of a limit whose row is locked: how many runs may begin now (GCRA).

    It is decided when a run is promoted, and no more than `most` are ready and not claimed: or those to which times were given
    ahead would all begin at once after a stall.
    """

    def __init__(self, limit: _Limit, tat_us: int, due_us: int | None, now: int) -> None:
        self._limit, self._due_us, self._now = limit, due_us, now
        self._interval = limit.interval_us or 1
        self._most = max(limit.burst, _SECOND // self._interval, 1)
        self._was_set_back = tat_us > now + self._most * self._interval
        self._tat = now + self._interval if self._was_set_back else tat_us
        self._waits_for_claims = False

    def tokens(self, connection: BaseDatabaseWrapper) -> int:
        """How many runs may begin now."""
        rows = database.fetch_all(
            connection,
            f"SELECT COUNT(*) FROM {RUN} WHERE {self._limit.slot} = %s AND attempting_since_us IS NULL",
            [self._limit.name],
        )
        unclaimed = self._most - int(rows[0][0])
        by_time = (self._now - self._first()) // self._interval + 1
        self._waits_for_claims = unclaimed <= 0 < by_time
        return min(unclaimed, by_time)

    def _first(self) -> int:
        return max(self._tat, self._now - (self._most - 1) * self._interval)

    def take(self, connection: BaseDatabaseWrapper, begun: int, *, has_more: bool) -> None:
        """So many begin. `has_more`: others wait for their time, and somebody has to look then."""
        tat = self._first() + begun * self._interval if begun else self._tat
        due = tat if has_more and not self._waits_for_claims else None
        if not begun and not self._was_set_back and due == self._due_us:
            return
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {LIMIT} SET tat_us = %s, due_us = %s WHERE name = %s", [tat, due, self._limit.name])
