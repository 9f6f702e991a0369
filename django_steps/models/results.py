"""Waiting for the end of a run: its row is looked at until the end has come.

Where no worker would execute the run, that is said, once: it would be a wait without an end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.db import models, router
from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.context import active_pass
from ..errors import ResultUnavailable
from ..ledger import chains, database
from .columns import RunColumns
from .diagnosis import Unclaimed, why_unclaimed

Say = Callable[[Unclaimed], None]

_LOOKED_AT = 100  # children at each level, for what is said of a run
_FIRST_LOOK, _LAST_LOOK = 0.005, 0.25  # seconds between two looks for the end of a run
# Seconds between two looks for a worker. The second in succession that finds none is reported: the only worker may just
# be restarting.
LOOK_FOR_WORKERS = 2.5


def wait(run: RunColumns, timeout: float | None, say: Say) -> RunColumns:
    """Wait until the run has ended, or raise `TimeoutError`; `say` is called with why no worker executes it. Returns the run
    whose result it is: where a run has continued as another one, the last of them."""
    ended: list[RunColumns] = []
    for pause in pauses(run, timeout, say, ended):
        time.sleep(pause)
    return ended[0]


def pauses(run: RunColumns, timeout: float | None, say: Say, ended: list[RunColumns]) -> Iterator[float]:
    """Look for the end of a run until it has come; gives the seconds to wait before the next look. Puts the run whose result
    it is into `ended`."""
    if active_pass.get() is not None:
        raise ResultUnavailable(
            "result() in a body or a step would hold its worker. Start the run in a step and end the body."
        )
    connection = database.connection_for(run._state.db or router.db_for_write(type(run)))
    deadline = None if timeout is None else time.monotonic() + timeout
    pause, lookout = _FIRST_LOOK, _Lookout(connection, run, say)
    run.refresh_from_db()
    while not (run := _successor(connection, run)).is_finished:
        if connection.in_atomic_block:
            raise ResultUnavailable(_would_never_return(run))
        lookout.look()
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            raise TimeoutError(f"Run {run.pk} has not ended within {timeout:g} seconds; {_how_it_stands(run)}.")
        yield pause if remaining is None else min(pause, remaining)
        pause = min(pause * 1.5, _LAST_LOOK)
        run.refresh_from_db()
    ended.append(run)


def _successor(connection: BaseDatabaseWrapper, run: RunColumns) -> RunColumns:
    """The run that goes on for this one, which may be itself."""
    while run.continued_as_id is not None:
        chain = chains.successors(connection, run.pk)
        last = type(run)._default_manager.using(run._state.db).filter(pk__in=chain[-1:]).first()
        if last is None:  # it was deleted, and nobody has its result
            return run
        run = last
    return run


def _would_never_return(run: RunColumns) -> str:
    """Why the end of a run can't be waited for in a transaction, which may be that of a test, and what to do."""
    advice = "drain() executes what is due, and drain(advance=…) lets time pass"
    if (waiting := _first_waiting(run)) is not None:
        name = waiting.waiting_for[0]
        advice = (
            f"answer it by events={{{name!r}: payload}} of run_workflow() or drain(), or call"
            f" send_event({name!r}, payload) of that run and then drain() again"
        )
    return (
        "result() inside atomic() would never return: workers see the run after the commit."
        f" Run {run.pk} of {run.workflow!r} has not ended; {_how_it_stands(run)}. In a test, {advice}."
    )


def _how_it_stands(run: RunColumns) -> str:
    """The status of a run as a part of a sentence; of one that waits for others, what it waits for."""
    if run.status != run.Status.WAITING:
        return f"it is {run.status}"
    waiting = _first_waiting(run)
    if waiting is None:
        child = _open_children([run]).first()
        return "it waits for child runs" if child is None else f"it waits for {_named(child)}, which is {child.status}"
    events = " or ".join(map(repr, waiting.waiting_for))
    if waiting.pk == run.pk:
        return f"it waits for event {events}"
    return f"it waits for {_named(waiting)}, which waits for event {events}"


def _named(child: RunColumns) -> str:
    return f"child run {child.pk} of {child.workflow!r}"


def _first_waiting(run: RunColumns) -> RunColumns | None:
    """The first run, this one or one below it, that waits for an event."""
    level = [run]
    while level:
        if (found := next((one for one in level if one.waiting_for), None)) is not None:
            return found
        level = list(_open_children(level)[:_LOOKED_AT])
    return None


def _open_children(parents: Sequence[RunColumns]) -> models.QuerySet[Any]:
    """The runs that these runs wait for."""
    manager = type(parents[0])._default_manager.using(parents[0]._state.db)
    return manager.filter(open_parent_id__in=[parent.pk for parent in parents]).order_by("pk")


class _Lookout:
    """Looks now and then whether a live worker would take a run, or has it, and says once if there is none."""

    def __init__(self, connection: BaseDatabaseWrapper, run: RunColumns, say: Say) -> None:
        self._connection, self._run, self._say = connection, run, say
        self._looks_at = time.monotonic() + LOOK_FOR_WORKERS
        self._found_none = False

    def look(self) -> None:
        if time.monotonic() < self._looks_at:
            return
        self._looks_at = time.monotonic() + LOOK_FOR_WORKERS
        unclaimed = why_unclaimed(self._connection, self._run)
        if unclaimed is not None and self._found_none:
            self._looks_at = math.inf
            self._say(unclaimed)
        self._found_none = unclaimed is not None
