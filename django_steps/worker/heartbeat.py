"""The thread that keeps what a worker holds: renews the leases, learns of cancels and lost runs, says that it is alive.

It does nothing else: whatever takes long or waits for a lock here costs leases.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.repeated import Repeated
from ..engine.ending import Ended
from ..ledger import database, leases
from ..ledger.leases import Renewal
from ..ledger.recovery import RENEWALS_PER_LEASE
from .task import Task

logger = logging.getLogger("django_steps")

_CHECK_INTERVAL = 1.0  # how long a cancel may go unnoticed between two steps
# Renewals for which a run may wait for the answer to its own write: a lease, and one more. A run whose connection has gone
# silent would be held for good, since this thread's is well.
_SILENT = RENEWALS_PER_LEASE + 1
_SOON = 0.1  # when to ask again for leases that somebody's lock kept from being renewed


class Heartbeat:
    """Renews the leases of a worker's tasks until it is stopped.

    `cut_silent` cuts the connections on which an answer has been waited for so many seconds.
    """

    def __init__(
        self,
        alias: str,
        worker_id: int,
        lease: float,
        jobs: Callable[[], Mapping[UUID, Task]],
        cut_silent: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._alias, self._worker_id, self._jobs = alias, worker_id, jobs
        self._cut_silent = cut_silent
        self._lease = int(lease * 1_000_000)
        self._interval = lease / RENEWALS_PER_LEASE
        self._repeated = Repeated(logger)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="django-steps-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; what is held is not released by this."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        connection = database.connection_for(self._alias)
        renew_at = time.monotonic() + self._interval
        while not self._stop.wait(max(0.0, min(_CHECK_INTERVAL, renew_at - time.monotonic()))):
            try:
                self._cut_silent(self._lease / 1_000_000)
                if time.monotonic() >= renew_at:
                    is_complete = self._renew(connection)
                    renew_at = time.monotonic() + (self._interval if is_complete else min(_SOON, self._interval))
                else:
                    self._check(connection)
                self._repeated.over("renew", "The leases can be renewed again.")
            except Exception as error:  # whatever it is: without this thread every run would be lost
                self._repeated.warning("renew", "The leases could not be renewed, trying again: %s", error)
                database.drop(connection)
                renew_at = time.monotonic() + min(_SOON * 5, self._interval)
        database.drop(connection)

    def _renew(self, connection: BaseDatabaseWrapper) -> bool:
        """Renew all leases; False if some could not be, because somebody has locked their runs."""
        jobs = self._jobs()
        holdings = {
            run_id: job.holding() for run_id, job in jobs.items() if job.silent_for() <= self._interval * _SILENT
        }
        asked_on = time.monotonic()
        found = leases.renew(connection, holdings, self._lease)
        for run_id in found.renewed:
            jobs[run_id].claim.held_until = asked_on + self._lease / 1_000_000
        leases.beat(connection, self._worker_id)
        _interrupt(jobs, found)
        is_complete = found.renewed | found.lost == holdings.keys()
        if not is_complete:
            self._check(connection)  # which also tells the deleted from the locked
        return is_complete

    def _check(self, connection: BaseDatabaseWrapper) -> None:
        jobs = self._jobs()
        if jobs:
            _interrupt(jobs, leases.check(connection, {run_id: job.holding() for run_id, job in jobs.items()}))


def _interrupt(jobs: Mapping[UUID, Task], found: Renewal) -> None:
    for run_id in found.lost:
        jobs[run_id].stop(Ended.LOST)
    for run_id in found.canceled:
        jobs[run_id].stop(Ended.CANCELED)
