"""What some worker has to do now and then for all: set runs aside that no live worker knows or a pause
holds, wake the runs of events whose senders could not, and prune what is old.

In a thread of its own, so that neither a long list nor somebody's lock keeps leases from being renewed. What this process
itself has to do now and then is handed in as `every_round`, and what it wants to know of the database now and then as `look`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import conf
from ..core.repeated import Repeated
from ..definitions import registered_kinds, scheduling
from ..definitions.limits import queue_limit
from ..engine import afterwards
from ..ledger import database, events, limits, lines, pauses, pruning, unknown, workers
from .retention import Retention

logger = logging.getLogger("django_steps")

_FIRST_ROUND_AFTER = 1.0  # seconds; a worker that ends sooner need not begin
_INTERVAL = 15.0  # seconds between two rounds
_LOOK_FOR_ORPHANS = 300.0  # seconds between two looks for children whose parent has ended
_PRUNE_EVENTS_AGAIN_AFTER = 3600.0


class Maintenance:
    """Does a round of maintenance now and then, until it is stopped; `look` is called in each, and `every_round` at its end."""

    def __init__(
        self,
        alias: str,
        every_round: Callable[[], None] = lambda: None,
        look: Callable[[BaseDatabaseWrapper], None] = lambda connection: None,
    ) -> None:
        self._alias, self._every_round, self._look = alias, every_round, look
        self._repeated = Repeated(logger)
        self._looks_for_orphans_at = 0.0
        self._prunes_events_on = 0.0
        self._stop = threading.Event()
        self._retention = Retention(self._stop.is_set)
        self._thread = threading.Thread(target=self._run, name="django-steps-maintenance", daemon=True)

    def start(self) -> None:
        """Begin, with a round soon."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the present batch."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        pause = _FIRST_ROUND_AFTER
        while not self._stop.wait(pause):
            pause = _INTERVAL
            try:
                self._do()
                self._repeated.over("round", "Maintenance works again.")
            except Exception as error:
                self._repeated.warning("round", "Maintenance could not be done, trying again: %s", error)
            finally:
                self._every_round()
                connections.close_all()  # not to be held for the little that happens here

    def _do(self) -> None:
        connection = database.connection_for(self._alias)
        self._look(connection)
        self._set_aside(connection)
        self._set_right_pauses(connection)
        self._promote(connection)
        self._look_after_schedules(connection)
        self._look_for_orphans(connection)
        self._tell_untold(connection)
        self._prune_events(connection)
        self._retention.prune(connection)

    def _set_aside(self, connection: BaseDatabaseWrapper) -> None:
        known_here = registered_kinds()
        while not self._stop.is_set() and unknown.bring_back(connection, known_here):
            pass
        known = known_here | workers.known_kinds(connection)
        while not self._stop.is_set() and unknown.set_aside(connection, known):
            pass

    def _set_right_pauses(self, connection: BaseDatabaseWrapper) -> None:
        pauses.park_all(connection)
        pauses.unpark_all(connection)

    def _look_after_schedules(self, connection: BaseDatabaseWrapper) -> None:
        afterwards.look_after_held(connection)
        scheduling.enable_known(self._alias)
        for name in scheduling.disable_unknown(self._alias):
            logger.warning("Schedule %r is disabled: no live code has what it starts.", name)

    def _promote(self, connection: BaseDatabaseWrapper) -> None:
        """Whoever made room for runs that are in line may have died before they could go on."""
        lines.sweep(connection)
        for queue in conf.queues:  # started by processes that don't know its limit
            while not self._stop.is_set() and limits.take_in(connection, queue, str(queue_limit(queue))):
                lines.sweep(connection)
        while not self._stop.is_set() and limits.prune(connection):
            pass

    def _look_for_orphans(self, connection: BaseDatabaseWrapper) -> None:
        if time.monotonic() >= self._looks_for_orphans_at:
            self._looks_for_orphans_at = time.monotonic() + _LOOK_FOR_ORPHANS
            afterwards.cancel_orphans(connection, lambda: not self._stop.is_set())

    def _tell_untold(self, connection: BaseDatabaseWrapper) -> None:
        _, place = events.tell_untold(connection)
        while not self._stop.is_set() and place is not None:
            _, place = events.tell_untold(connection, place)

    def _prune_events(self, connection: BaseDatabaseWrapper) -> None:
        retention = conf.event_retention
        if retention is None or time.monotonic() < self._prunes_events_on:
            return
        before = database.read_clock(connection) - retention // timedelta(microseconds=1)
        _, place = pruning.prune_events(connection, before)
        while not self._stop.is_set() and place is not None:
            _, place = pruning.prune_events(connection, before, place)
        self._prunes_events_on = time.monotonic() + _PRUNE_EVENTS_AGAIN_AFTER
