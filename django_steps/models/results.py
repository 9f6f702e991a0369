"""Waiting for the end of a run: its row is looked at until the end has come.

Where no worker would execute the run, that is said, once: it would be a wait without an end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from django.db import router
from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.context import active_pass
from ..errors import ResultUnavailable
from ..ledger import database
from .columns import RunColumns
from .diagnosis import Unclaimed, why_unclaimed

Say = Callable[[Unclaimed], None]

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
    while not (run := _successor(run)).is_finished:
        if connection.in_atomic_block:
            raise ResultUnavailable(
                "result() inside atomic() would never return: workers see the run after the commit."
            )
        lookout.look()
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            raise TimeoutError(f"Run {run.pk} has not ended within {timeout:g} seconds; it is {run.status}.")
        yield pause if remaining is None else min(pause, remaining)
        pause = min(pause * 1.5, _LAST_LOOK)
        run.refresh_from_db()
    ended.append(run)


def _successor(run: RunColumns) -> RunColumns:
    """The run that goes on for this one, which may be itself."""
    while run.continued_as_id is not None:
        successor = type(run)._default_manager.using(run._state.db).filter(pk=run.continued_as_id).first()
        if successor is None:  # it was deleted, and nobody has its result
            return run
        run = successor
    return run


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
