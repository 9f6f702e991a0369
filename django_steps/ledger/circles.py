"""Limits that wait for each other: all slots of each are held by runs that can't go on, because what is active below them is in
line for a slot of the next limit, and so on in a circle. Only a person can end that.

What can go on is found first. A limit has room, or one of its holders goes on: it, or a run below it, is executed, ready,
asleep, parked, waits for an event or until a time, or may pass the limit that it is in line for because its own ancestors hold
the slots. Such limits are taken away until nothing changes; what is left can't go on. The work is bounded; where a bound is
exceeded, a limit counts as one that goes on, so that nothing is said rather than something wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from . import database, dialect, limits, lines, moves
from .limits import Standing
from .tables import RUN, TIMED

MOST_LINES = 50  # lines that `find()` begins with
MOST_LIMITS = 100  # limits that one look reads
MOST_HOLDERS = 50  # of a limit
MOST_RUNS = 1_000  # runs that one look reads


class Circle(NamedTuple):
    """Limits of which each waits for the next one, and the last one for the first; and for each of them a run that holds a slot
    of it and can't go on."""

    names: tuple[str, ...]
    holders: tuple[UUID, ...]


def find(connection: BaseDatabaseWrapper) -> list[Circle]:
    """The circles of limits, each limit in at most one of them. Where no run is in line: one statement, which reads one entry
    of an index."""
    names = lines.after(connection, "", MOST_LINES)
    return _circles(_look(connection, names)) if names else []


def of_limit(connection: BaseDatabaseWrapper, name: str) -> Circle | None:
    """The circle that a limit is in, or that it waits for; None if it can go on."""
    found = _circles(_look(connection, [name]))
    return next((circle for circle in found if name in circle.names), found[0] if found else None)


# -- Looking -----------------------------------------------------------------------------------------


class _Run(NamedTuple):
    """A run that has not ended, as far as it matters here; `parent` is None unless the parent was read, too."""

    id: Any
    parent: Any
    line: str | None
    waits_for_children: bool

    @property
    def may_be_stuck(self) -> bool:
        return self.line is not None or self.waits_for_children


@dataclass(slots=True)
class _Seen:
    """What a look has read: limits without room, who holds their slots, and what is active below these."""

    full: dict[str, Standing] = field(default_factory=dict)
    holders: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    runs: dict[Any, _Run] = field(default_factory=dict)
    parents: set[Any] = field(default_factory=set)  # runs that have children that have not ended
    looked_below: set[Any] = field(default_factory=set)

    @property
    def is_too_much(self) -> bool:
        return len(self.runs) > MOST_RUNS

    def ancestors(self, run: _Run) -> Iterator[_Run]:
        """The ancestors of a run that were read, the parent first."""
        while (found := self.runs.get(run.parent)) is not None:
            yield found
            run = found


def _look(connection: BaseDatabaseWrapper, names: Sequence[str]) -> _Seen:
    """Read the limits, and those that what is below their holders is in line for, and so on."""
    seen, known = _Seen(), set(names)
    todo: list[str] = sorted(known)
    while todo:
        full = [
            limit
            for limit in limits.numbers(connection, todo)
            if limit.at_once is not None and limit.at_once <= limit.held <= MOST_HOLDERS
        ]
        holders = _read_holders(connection, seen, [limit.name for limit in full])
        stuck = {limit.name: limit for limit in full if all(run.may_be_stuck for run in holders[limit.name])}
        seen.full.update(stuck)
        _read_below(connection, seen, [run.id for name in stuck for run in holders[name]])
        if seen.is_too_much:
            return _Seen()
        wanted = {run.line for run in seen.runs.values() if run.line is not None} - known
        todo = sorted(wanted)[: MOST_LIMITS - len(known)]
        known.update(todo)
    return seen


_COLUMNS = (
    "r.open_parent_id, r.line_key,"
    f" CASE WHEN r.status = 'waiting' AND r.phase = {TIMED} AND r.waits_until_us IS NULL THEN r.waits_for END"
)


def _run(run_id: Any, parent: Any, line: str | None, waits_for: str | None) -> _Run:
    names = [name for name in (waits_for or "").split("\n") if name]
    return _Run(run_id, parent, line, bool(names) and all(name.startswith(moves.CHILDREN) for name in names))


def _read_holders(connection: BaseDatabaseWrapper, seen: _Seen, names: Collection[str]) -> dict[str, list[_Run]]:
    """The runs that hold the slots of these limits."""
    found: dict[str, list[_Run]] = defaultdict(list)
    for stage, slot in lines.SLOTS.items():
        own = [name for name in names if name[0] == stage]
        if not own:
            continue
        rows = database.fetch_all(
            connection,
            f"SELECT r.{slot}, r.id, {_COLUMNS} FROM {RUN} r WHERE r.{slot} IN ({dialect.marks(own)})"
            f" ORDER BY r.id LIMIT {MOST_RUNS + 1}",
            own,
        )
        for name, *columns in rows:
            run = _run(*columns)
            found[name].append(run)
            seen.holders[name].append(run.id)
            seen.runs[run.id] = run
    return found


def _read_below(connection: BaseDatabaseWrapper, seen: _Seen, ids: Iterable[Any]) -> None:
    """The runs below these that have not ended, level by level."""
    todo = [*dict.fromkeys(ids)]
    while (todo := [run_id for run_id in todo if run_id not in seen.looked_below]) and not seen.is_too_much:
        seen.looked_below.update(todo)
        rows = database.fetch_all(
            connection,
            f"SELECT r.id, {_COLUMNS} FROM {RUN} r WHERE r.open_parent_id IN ({dialect.marks(todo)})"
            f" LIMIT {MOST_RUNS + 1}",
            todo,
        )
        found = [_run(*row) for row in rows]
        seen.runs.update((run.id, run) for run in found)
        seen.parents.update(run.parent for run in found)
        todo = [run.id for run in found if run.may_be_stuck]


# -- What can't go on --------------------------------------------------------------------------------


def _stuck(seen: _Seen) -> set[str]:
    """The limits of which no holder can go on."""
    stuck = set(seen.full)
    while going := _with_moving_holder(seen, stuck):
        stuck -= going
    return stuck


def _with_moving_holder(seen: _Seen, stuck: Collection[str]) -> set[str]:
    moving: set[Any] = set()
    for run in seen.runs.values():
        if not _is_blocked(seen, run, stuck):
            moving.add(run.id)
            moving.update(ancestor.id for ancestor in seen.ancestors(run))
    return {name for name in stuck if not moving.isdisjoint(seen.holders[name])}


def _is_blocked(seen: _Seen, run: _Run, stuck: Collection[str]) -> bool:
    if run.line is None:
        # Without a child that has not ended it is about to be woken.
        return run.waits_for_children and run.id in seen.parents
    return run.line in stuck and not _may_pass(seen, run, seen.full[run.line])


def _may_pass(seen: _Seen, run: _Run, limit: Standing) -> bool:
    holders = seen.holders[limit.name]
    own = sum(ancestor.id in holders for ancestor in seen.ancestors(run))
    return limit.at_once is None or limit.held - own < limit.at_once


# -- The circles -------------------------------------------------------------------------------------


def _circles(seen: _Seen) -> list[Circle]:
    waits = _waits(seen, _stuck(seen))
    found: list[Circle] = []
    done: set[str] = set()
    for name in sorted(waits):
        names = () if name in done else _shortest(waits, name)
        if names:
            done.update(names)
            following = [*names[1:], names[0]]
            holders = [waits[one][other] for one, other in zip(names, following, strict=True)]
            found.append(Circle(names, tuple(map(dialect.run_id, holders))))
    return found


def _waits(seen: _Seen, stuck: Collection[str]) -> dict[str, dict[str, Any]]:
    """For which limits each limit waits, and the first of its holders that does."""
    names: dict[Any, list[str]] = defaultdict(list)
    for name in stuck:
        for holder in seen.holders[name]:
            names[holder].append(name)
    waits: dict[str, dict[str, Any]] = defaultdict(dict)
    for run in seen.runs.values():
        if run.line is not None and run.line in stuck:
            for holder in (run, *seen.ancestors(run)):
                for name in names.get(holder.id, ()):
                    first = waits[name].get(run.line, holder.id)
                    waits[name][run.line] = min(first, holder.id)
    return waits


def _shortest(waits: dict[str, dict[str, Any]], start: str) -> tuple[str, ...]:
    """The shortest way from a limit to itself; empty if there is none."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen = {start}
    for way in ways:
        for name in sorted(waits.get(way[-1], ())):
            if name == start:
                return way
            if name not in seen:
                seen.add(name)
                ways.append((*way, name))
    return ()
