"""What some worker has to do now and then for all: set runs aside that no live worker knows, and prune old ones.

In a thread of its own, so that neither a long list nor somebody's lock keeps leases from being renewed. What this process
itself has to do now and then is handed in as `every_round`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from django.db import connections

from ..conf import conf
from ..core.repeated import Repeated
from ..definitions import registered_kinds
from ..ledger import database, unknown, workers
from ..models.deleting import Pruner

logger = logging.getLogger("django_steps")

_FIRST_ROUND_AFTER = 1.0  # seconds; a worker that ends sooner need not begin
_INTERVAL = 15.0  # seconds between two rounds
_TRY_KEPT_AGAIN_AFTER = 3600.0  # seconds; until then rounds leave out the runs that could not be deleted


class Maintenance:
    """Does a round of maintenance now and then, until it is stopped; `every_round` is called at the end of each."""

    def __init__(self, alias: str, every_round: Callable[[], None] = lambda: None) -> None:
        self._alias, self._every_round = alias, every_round
        self._repeated = Repeated(logger)
        self._pruner, self._began_to_prune = Pruner(), time.monotonic()
        self._stop = threading.Event()
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
        known_here = registered_kinds()
        while not self._stop.is_set() and unknown.bring_back(connection, known_here):
            pass
        known = known_here | workers.known_kinds(connection)
        while not self._stop.is_set() and unknown.set_aside(connection, known):
            pass
        retention = conf.retention
        if retention is None:
            return
        before = database.read_clock(connection) - retention // timedelta(microseconds=1)
        if time.monotonic() - self._began_to_prune > _TRY_KEPT_AGAIN_AFTER:
            self._began_to_prune, self._pruner = time.monotonic(), Pruner()
        kept = self._pruner.kept
        while not self._stop.is_set() and self._pruner.batch(connection, before):
            pass
        if self._pruner.kept > kept:
            logger.warning(
                "%d runs are older than RETENTION and can't be deleted. The first: %s",
                self._pruner.kept,
                self._pruner.reason,
            )
