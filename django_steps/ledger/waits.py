"""Runs that wait for others: which of them have what they wait for, and waking those.

What a run waits for is derived from rows: the events that it can take, its children that have not ended. So nothing that is
counted or noted can be wrong. `waits_for` only says which events concern it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core import clock
from ..core.states import WITH_CHILDREN
from . import database, dialect, lines, moves
from .tables import EVENT, RUN, STEP, TIMED

# A run that has just been suspended is looked at once more after so long: its worker may have died before it did so.
NET_US: Final = 60_000_000
# How often a run is looked at that waits for children: the worker of the last one may have died before it told the parent.
CHILDREN_NET_US: Final = 300_000_000
_AT_ONCE = 100  # runs that one statement looks at
_KINDS = ", ".join(f"'{kind}'" for kind in WITH_CHILDREN)


class Waiting(NamedTuple):
    """What one call of a run waits for: events of these names, or the children of this step. `until_us`: machine time; None:
    for good."""

    events: tuple[str, ...] = ()
    step: str | None = None
    until_us: int | None = None


class Suspension(NamedTuple):
    """How a run is suspended: when it is looked at again (machine time), and if it waits for others, for what and until
    when; and what it carries of its trace from then on (None: the same as before)."""

    available_us: int
    waits_for: str | None = None
    until_us: int | None = None
    trace: str | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether not only time can wake the run."""
        return self.waits_for is not None

    @property
    def parameters(self) -> list[Any]:
        """What `moves.suspended()` or `moves.waiting()` takes."""
        return [self.available_us, self.waits_for, self.until_us] if self.is_waiting else [self.available_us]


def suspension(waiting: Sequence[Waiting], until_us: int, now_us: int) -> Suspension:
    """How a run is suspended until a time (`clock.NEVER_US`: for good), of which these calls wait for others."""
    if not waiting:
        return Suspension(until_us)
    names = {name for call in waiting for name in call.events}
    names |= {moves.CHILDREN + call.step for call in waiting if call.step is not None}
    return Suspension(
        min(until_us, now_us + NET_US), moves.listed(sorted(names)), None if until_us >= clock.NEVER_US else until_us
    )


def look_again(connection: BaseDatabaseWrapper, run_id: UUID) -> bool:
    """After the commit of a suspension: whether what the run waits for is there by now, and it is woken."""
    return bool(_wake_served(connection, [dialect.key(connection, run_id)]))


def _wake_served(connection: BaseDatabaseWrapper, ids: Sequence[Any]) -> int:
    """Make those of these runs ready that have what they wait for; how many."""

    def wake() -> list[_Row]:
        served = [row for row in _look(connection, ids) if row.is_served]
        if served:
            _make_ready(connection, [row.id for row in served])
        return served

    woken = database.retrying(connection, wake)
    lines.promote_after_commit(connection, {name for row in woken for name in row.limits})
    return len(woken)


def wake_all(connection: BaseDatabaseWrapper) -> bool:
    """As `look_again()`, of all waiting runs, in a test, where nobody hears of commits; whether any is ready now."""
    rows = database.fetch_all(
        connection,
        f"SELECT id FROM {RUN} WHERE phase = {TIMED} AND status = 'waiting' AND worker_id IS NULL ORDER BY id",
        [],
    )
    ids = [row[0] for row in rows]
    return sum(_wake_served(connection, ids[first : first + _AT_ONCE]) for first in range(0, len(ids), _AT_ONCE)) > 0


def check(connection: BaseDatabaseWrapper, ids: Sequence[Any]) -> None:
    """Waiting runs that are due to be looked at: those become ready that have what they wait for, or whose time is over. The
    others are looked at when their time is over, or seldom: whoever has something for them wakes them."""
    found = _look(connection, ids)
    if ready := [row.id for row in found if row.is_served or row.is_over]:
        _make_ready(connection, ready)
    if rest := [row.id for row in found if not row.is_served and not row.is_over]:
        now = dialect.now(connection)
        for_children = dialect.contains(connection, "waits_for", "%s")
        later = f"CASE WHEN {for_children} THEN {now} + {CHILDREN_NET_US} ELSE {clock.NEVER_US} END"
        until = f"COALESCE(waits_until_us, {clock.NEVER_US})"
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {RUN} SET available_at_us = {dialect.least(connection, until, later)}"
                # One that has gone on and waits anew has a net of its own.
                f" WHERE id IN ({dialect.marks(rest)}) AND {_UNHELD} AND available_at_us <= {now}",
                [f"\n{moves.CHILDREN}", *rest],
            )


_UNHELD = "status = 'waiting' AND worker_id IS NULL"


class _Row(NamedTuple):
    """A waiting run: whether it has what it waits for, and whether the first of its times is over."""

    id: Any
    is_served: bool
    is_over: bool
    limits: Sequence[str]


def _look(connection: BaseDatabaseWrapper, ids: Sequence[Any]) -> list[_Row]:
    """How it stands with these runs, those of them that wait."""
    key = connection.ops.quote_name("key")
    named = dialect.contains(connection, "r.waits_for", dialect.between_line_feeds(connection, "e.name"))
    keyed = (
        f" OR EXISTS (SELECT 1 FROM {EVENT} e{_by_key(connection)} WHERE e.workflow = r.workflow AND e.{key} = r.{{}}"
        f" AND e.run_id IS NULL AND e.consumed_at IS NULL AND {named})"
    )
    # Others may stand there as well: those of a group that is decided.
    step = dialect.joined(connection, f"'{moves.CHILDREN}'", "s.name")
    invoked = dialect.contains(connection, "r.waits_for", dialect.between_line_feeds(connection, step))
    rows = database.fetch_all(
        connection,
        "SELECT r.id, CASE WHEN"
        f" EXISTS (SELECT 1 FROM {EVENT} e{_by_run(connection)} WHERE e.run_id = r.id AND e.consumed_at IS NULL AND {named})"
        f"{keyed.format(key)}{keyed.format('active_key')}"
        f" OR EXISTS (SELECT 1 FROM {STEP} s WHERE s.run_id = r.id AND {_is_over('r.id')} AND {invoked})"
        f" THEN 1 ELSE 0 END, CASE WHEN r.waits_until_us <= {dialect.now(connection)} THEN 1 ELSE 0 END,"
        f" {lines.COLUMNS} FROM {RUN} r WHERE r.id IN ({dialect.marks(ids)}) AND r.status = 'waiting'",
        ids,
    )
    return [_Row(row[0], bool(row[1]), bool(row[2]), lines.names(*row[3:])) for row in rows]


def _make_ready(connection: BaseDatabaseWrapper, ids: Sequence[Any]) -> None:
    now = dialect.now(connection)
    since = dialect.least(connection, f"COALESCE(waits_until_us, {now})", now)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {moves.ready(since)} WHERE id IN ({dialect.marks(ids)}) AND {_UNHELD}",
            ids,
        )


def _is_over(run: str) -> str:
    """SQL: the record `s` of a run waits for children, all of which have ended."""
    return (
        f"s.status = 'waiting' AND s.kind IN ({_KINDS}) AND NOT EXISTS"
        f" (SELECT 1 FROM {RUN} c WHERE c.open_parent_id = {run} AND c.parent_step = s.name)"
    )


def news(connection: BaseDatabaseWrapper, waiting: Mapping[UUID, Sequence[Waiting]]) -> set[UUID]:
    """Of runs whose passes wait in memory, those that could go on: at most one statement for events and one for children."""
    names = {run_id: {name for call in calls for name in call.events} for run_id, calls in waiting.items()}
    found = _with_events(connection, {run_id: wanted for run_id, wanted in names.items() if wanted})
    steps = {run_id: {call.step for call in calls if call.step is not None} for run_id, calls in waiting.items()}
    parents = [run_id for run_id, wanted in steps.items() if wanted]
    if parents:
        rows = database.fetch_all(
            connection,
            f"SELECT s.run_id, s.name FROM {STEP} s WHERE s.run_id IN ({dialect.marks(parents)}) AND {_is_over('s.run_id')}",
            [dialect.key(connection, run_id) for run_id in parents],
        )
        found |= {run_id for value, name in rows if name in steps[run_id := dialect.run_id(value)]}
    return found


def _with_events(connection: BaseDatabaseWrapper, names: Mapping[UUID, set[str]]) -> set[UUID]:
    if not names:
        return set()
    key = connection.ops.quote_name("key")
    one_of_them, ids = dialect.one_of(connection, [dialect.key(connection, run_id) for run_id in names])
    of_a_name, wanted = dialect.one_of(connection, sorted(set().union(*names.values())))
    unconsumed = f"e.consumed_at IS NULL AND e.name {of_a_name}"
    keyed = (
        f" UNION ALL SELECT DISTINCT r.id, e.name FROM {RUN} r CROSS JOIN {EVENT} e{_by_key(connection)}"
        f" WHERE r.id {one_of_them} AND e.workflow = r.workflow AND e.{key} = r.{{}} AND e.run_id IS NULL AND {unconsumed}"
    )
    rows = database.fetch_all(
        connection,
        f"SELECT DISTINCT e.run_id, e.name FROM {EVENT} e{_by_run(connection)} WHERE e.run_id {one_of_them} AND {unconsumed}"
        f"{keyed.format(key)}{keyed.format('active_key')}",
        [*ids, *wanted] * 3,
    )
    return {run_id for value, name in rows if name in names[run_id := dialect.run_id(value)]}


def _by_run(connection: BaseDatabaseWrapper) -> str:
    return dialect.by_index(connection, "django_steps_event_new")


def _by_key(connection: BaseDatabaseWrapper) -> str:
    return dialect.by_index(connection, "django_steps_event_keyed")
