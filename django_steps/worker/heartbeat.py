"""The thread that keeps what a worker holds: renews the leases, learns of cancels, pauses and lost runs, says that it is alive.

It does nothing else: whatever takes long or waits for a lock here costs leases.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.repeated import Repeated
from ..engine.ending import Ended
from ..ledger import database, leases
from ..ledger.leases import Holding, Renewal
from ..ledger.recovery import RENEWALS_PER_LEASE
from .held import Held

logger = logging.getLogger("django_steps")

_CHECK_INTERVAL = 1.0  # how long a cancel or a pause may go unnoticed between two steps
# Renewals for which a run may wait for the answer to its own write: a lease, and one more. A run whose connection has gone
# silent would be held for good, since this thread's is well.
_SILENT = RENEWALS_PER_LEASE + 1
_LEFT_OUT = 2  # renewals after which a run is waited for
_Step = tuple[UUID, int, str]  # a run, the token of its claim, and the name of the step that it is in
# So many characters of checkpoints go with a renewal, or a single longer one: it must not become too large or too slow.
_MOST_CHECKPOINTS = 4_000_000
_SOON = 0.1  # when to ask again for leases that somebody's lock kept from being renewed


class Heartbeat:
    """Renews the leases of a worker's tasks until it is stopped.

    `look_after` is called about each second with the lease in seconds, and must not take long.
    """

    def __init__(
        self,
        alias: str,
        worker_id: int,
        lease: float,
        jobs: Callable[[], Mapping[UUID, Held]],
        look_after: Callable[[float], None] = lambda lease: None,
    ) -> None:
        self._alias, self._worker_id, self._jobs = alias, worker_id, jobs
        self._look_after = look_after
        self._lease = int(lease * 1_000_000)
        self._interval = lease / RENEWALS_PER_LEASE
        # Steps as `_steps_of` gives them: those of the last look at the tasks, and the lasting ones that are written.
        self._seen: set[_Step] = set()
        self._written: set[_Step] = set()
        self._repeated = Repeated(logger)
        self._left_out: dict[UUID, int] = {}  # runs that were locked at so many renewals in succession
        self._carries_checkpoints = True
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
                self._look_after(self._lease / 1_000_000)
                if time.monotonic() >= renew_at:
                    is_complete = self._renew(connection)
                    renew_at = time.monotonic() + (self._interval if is_complete else min(_SOON, self._interval))
                else:
                    self._check(connection)
                self._repeated.over("renew", "The leases can be renewed again.")
            except Exception as error:  # whatever it is: without this thread every run would be lost
                self._repeated.warning("renew", "The leases could not be renewed, trying again: %s", error)
                database.drop(connection)
                self._carries_checkpoints = False  # for once: what the database refuses may be one of them
                renew_at = time.monotonic() + min(_SOON * 5, self._interval)
        database.drop(connection)

    def _renew(self, connection: BaseDatabaseWrapper) -> bool:
        """Renew all leases; False if some could not be, because somebody has locked their runs."""
        jobs = self._jobs()
        holdings = self._renewable(jobs)
        found = self._extend(connection, jobs, holdings)
        steps = _steps_of(holdings)
        self._seen, self._written = steps, steps & self._seen
        leases.beat(connection, self._worker_id)
        self._renew_locked(connection, jobs, holdings, found)
        is_complete = found.renewed | found.lost == holdings.keys()
        if not is_complete:
            self._check(connection)  # which also tells the deleted from the locked
        return is_complete

    def _renew_locked(
        self,
        connection: BaseDatabaseWrapper,
        jobs: Mapping[UUID, Held],
        holdings: Mapping[UUID, Holding],
        found: Renewal,
    ) -> None:
        """Wait a moment for runs that were found locked again and again, by writes of their own."""
        left_out = holdings.keys() - found.renewed - found.lost
        self._left_out = {run_id: self._left_out.get(run_id, 0) + 1 for run_id in left_out}
        for run_id, times in self._left_out.items():
            if times < _LEFT_OUT or not jobs[run_id].writes_in_succession():
                continue
            asked_on = time.monotonic()
            one = leases.renew_waiting(connection, run_id, holdings[run_id], self._lease)
            self._take_in(jobs, holdings, one, asked_on)
            found.renewed |= one.renewed
            found.lost |= one.lost

    def _check(self, connection: BaseDatabaseWrapper) -> None:
        jobs = self._jobs()
        if jobs:
            tokens = {run_id: Holding(job.claim.token) for run_id, job in jobs.items()}
            _interrupt(jobs, leases.check(connection, tokens))
        self._write_steps(connection, jobs)

    def _write_steps(self, connection: BaseDatabaseWrapper, jobs: Mapping[UUID, Held]) -> None:
        """Renew early where a run has been in a step since the last look, or is out of one that was written: so people see
        what a run does after a second or two, and if the step kills the worker, it can be named. Short steps cost nothing.
        """
        holdings = self._renewable(jobs)
        steps = _steps_of(holdings)
        lasting, self._seen = steps & self._seen, steps
        changed = {run_id for run_id, _, _ in lasting ^ self._written} & holdings.keys()
        renewed = self._extend(connection, jobs, {run_id: holdings[run_id] for run_id in changed}).renewed
        self._written = {step for step in lasting if step in self._written or step[0] in renewed}

    def _renewable(self, jobs: Mapping[UUID, Held]) -> dict[UUID, Holding]:
        return {run_id: job.holding() for run_id, job in jobs.items() if job.silent_for() <= self._interval * _SILENT}

    def _extend(
        self, connection: BaseDatabaseWrapper, jobs: Mapping[UUID, Held], holdings: Mapping[UUID, Holding]
    ) -> Renewal:
        holdings = _with_some_checkpoints(jobs, holdings, _MOST_CHECKPOINTS if self._carries_checkpoints else None)
        asked_on = time.monotonic()
        found = leases.renew(connection, holdings, self._lease)
        self._carries_checkpoints = True
        self._take_in(jobs, holdings, found, asked_on)
        return found

    def _take_in(
        self, jobs: Mapping[UUID, Held], holdings: Mapping[UUID, Holding], found: Renewal, asked_on: float
    ) -> None:
        for run_id in found.renewed:
            jobs[run_id].claim.held_until = asked_on + self._lease / 1_000_000
            if (text := holdings[run_id].checkpoint) is not None:
                jobs[run_id].checkpoint_written(text)
        _interrupt(jobs, found)


def _steps_of(holdings: Mapping[UUID, Holding]) -> set[_Step]:
    """The steps that runs are in."""
    return {(run_id, held.token, held.current_step) for run_id, held in holdings.items() if held.current_step}


def _with_some_checkpoints(
    jobs: Mapping[UUID, Held], holdings: Mapping[UUID, Holding], most: int | None
) -> dict[UUID, Holding]:
    """Leave out checkpoints that are too many for one renewal, or all of them (None): they come with a later one.

    Those that have waited longest come first.
    """
    holdings = dict(holdings)
    having = [run_id for run_id, holding in holdings.items() if holding.checkpoint is not None]
    size = 0
    for run_id in sorted(having, key=lambda run_id: jobs[run_id].checkpoint_written_on):
        length = len(holdings[run_id].checkpoint or "")
        if most is None or (size and size + length > most):
            holdings[run_id] = replace(holdings[run_id], checkpoint=None)
        else:
            size += length
    return holdings


def _interrupt(jobs: Mapping[UUID, Held], found: Renewal) -> None:
    for run_id in found.lost:
        jobs[run_id].stop(Ended.LOST)
    for run_id in found.halted:
        jobs[run_id].stop(Ended.CANCELED)
