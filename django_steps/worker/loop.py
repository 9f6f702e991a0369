"""The worker's loop: claim runs, hand them to threads, stop cleanly.

Leases are the keeper's (`keeper.py`), waiting for work is `wakeups.py`'s, how many runs to hold is `pace.py`'s, and what a
pass does is `execution.py`'s.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import conf
from ..core.repeated import Repeated
from ..definitions import registered_kinds
from ..engine import hooks
from ..engine.ending import Ended, Ending
from ..engine.history_cache import HistoryCache, load_histories
from ..engine.host import Limits
from ..ledger import claims, database, notify, timers, workers
from ..ledger.claims import Claim
from ..models import WorkflowRun
from . import registration, wakeups
from .group_commit import GroupCommit
from .heartbeat import Heartbeat
from .host import WorkerHost
from .maintenance import Maintenance
from .prefetch import Prefetch
from .task import Job
from .thread_connections import ThreadConnections
from .wakeups import LOOK_AGAIN_AFTER
from .writers import LONG_IDLE

logger = logging.getLogger("django_steps")

_SHORTEST_POLL = 0.02
# With wake-ups that work, looking without being told is only a safety net.
_POLLS_SAVED = 10
# A run that was claimed ahead and finds no thread for so long is given back: another worker may have one.
_LONGEST_WAIT_FOR_THREAD = 0.3


class Worker:
    """Claims and executes runs in this process until it is stopped, or idle if that is what was asked.

    `lease`, `poll_interval` and `shutdown_timeout` are in seconds; no `queues` means all of them. `max_runs` bounds how
    many runs are claimed.
    """

    def __init__(
        self,
        *,
        queues: Sequence[str] = (),
        concurrency: int | None = None,
        lease: float | None = None,
        poll_interval: float | None = None,
        until_idle: bool = False,
        max_runs: int | None = None,
        shutdown_timeout: float | None = None,
    ) -> None:
        self.alias = router.db_for_write(WorkflowRun)
        self.queues = list(queues)
        self.concurrency = concurrency or conf.concurrency
        self.lease = conf.lease.total_seconds() if lease is None else lease
        self.poll_interval = conf.poll_interval.total_seconds() if poll_interval is None else poll_interval
        self.claimed = 0
        self._until_idle, self._max_runs, self._shutdown_timeout = until_idle, max_runs, shutdown_timeout
        self._kinds = registered_kinds()
        self._jobs: dict[UUID, Job] = {}
        self._unstarted: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._wakeups = wakeups.wakeups_of(self.alias)
        self._looks_at = 0.0  # when the loop looks for work again, if nothing wakes it
        self._prefetch = Prefetch(self.concurrency)
        self._is_more_ready = True  # the last claim got all that it asked for
        self._not_looked_for_due_since: float | None = None
        self._is_stopping = False
        self._commits = GroupCommit(self.alias, writers=1 if connections[self.alias].vendor == "sqlite" else 2)
        self._thread_connections = ThreadConnections(self.alias)
        self._repeated = Repeated(logger)
        self._limits = Limits.from_settings()
        self._histories = HistoryCache()

    # -- The story ------------------------------------------------------------------------------

    def run(self) -> bool:
        """Work until stopped (or idle); whether everything that ran came to an end or was given back."""
        self._terms = registration.register(
            connections[self.alias],
            kinds=self._kinds,
            queues=self.queues,
            concurrency=self.concurrency,
            lease_us=int(self.lease * 1_000_000),
        )
        self._heartbeat = Heartbeat(self.alias, self._terms.worker_id, self.lease, self._held)
        self._heartbeat.start()
        maintenance = Maintenance(self.alias, lambda: self._commits.close_unused(LONG_IDLE))
        maintenance.start()
        try:
            self._loop()
            return self._finish()
        finally:
            maintenance.stop()
            self._wakeups.close()
            self._heartbeat.stop()
            self._commits.close()
            registration.unregister(connections[self.alias], self._terms.worker_id)

    def stop(self) -> None:
        """Claim nothing more, let each running step end, give the runs back. From any thread, not in a signal handler:
        the main thread may hold the lock of the event."""
        self._is_stopping = True
        self._wakeups.wake()

    def in_progress(self) -> list[tuple[claims.Claim, str]]:
        """The runs that threads are executing now, each with the step it is in, or an empty text."""
        return [(job.claim, job.holding().current_step) for job in self._held().values() if job.has_begun]

    def _loop(self) -> None:
        pause = _SHORTEST_POLL
        while True:
            self._wakeups.clear()
            self._looks_at = math.inf  # whoever puts a run down meanwhile makes it look once more
            if self._is_stopping:  # looked at after the clearing, which may have swallowed the word to stop
                return
            try:
                room = self._room()
                claimed = self._claim(room)
                self._repeated.over("claim", "Runs can be claimed again.")
                if room > 0:
                    self._is_more_ready = claimed == room
                if claimed:
                    pause = _SHORTEST_POLL
                if claimed == room > 0:
                    continue
                if not claimed and self._is_done():
                    return
                timeout = LOOK_AGAIN_AFTER if claimed or self._not_looked_for_due_since else self._patience(pause)
                if self._release_unstarted(_LONGEST_WAIT_FOR_THREAD):
                    timeout = min(timeout, _LONGEST_WAIT_FOR_THREAD)
            except (DatabaseError, InterfaceError) as error:
                self._repeated.warning("claim", "No runs could be claimed, trying again: %s", error)
                database.drop(connections[self.alias])
                timeout = min(1.0, self.poll_interval)
            self._looks_at = time.monotonic() + timeout
            if self._wakeups.wait(timeout):
                pause = _SHORTEST_POLL
            else:
                pause = min(pause * 1.5, self.poll_interval)

    def _finish(self) -> bool:
        self._is_stopping = True
        self._release_unstarted(0)
        for job in self._held().values():
            job.stop(Ended.RELEASED)
        for _ in self._threads:
            self._unstarted.put(None)
        deadline = None if self._shutdown_timeout is None else time.monotonic() + self._shutdown_timeout
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # -- Claiming -------------------------------------------------------------------------------

    def _claim(self, room: int) -> int:
        """Claim up to `room` runs and hand them to the threads; how many."""
        if room <= 0:
            return 0
        connection = connections[self.alias]
        claimed = claims.claim(connection, self._terms, room, wakes=self._looks_for_due())
        if claimed.runs:
            self._hand_out(claimed.runs, connection)
        for run_id in claimed.ended:
            hooks.run_ended(run_id)
        return len(claimed.runs)

    def _hand_out(self, claimed: Sequence[Claim], connection: BaseDatabaseWrapper) -> None:
        histories = load_histories(connection, claimed, self._histories)
        self.claimed += len(claimed)
        for claim in claimed:
            job = Job(claim, histories.get(claim.run_id), WorkerHost(self._commits, self._limits, self._repeated))
            with self._lock:
                self._jobs[claim.run_id] = job
            self._unstarted.put(job)
        self._staff()

    def _room(self) -> int:
        """How many runs to claim."""
        with self._lock:
            room = self._prefetch.room(len(self._jobs))
        return room if self._max_runs is None else min(room, self._max_runs - self.claimed)

    def _staff(self) -> None:
        """Start threads for what waits, up to the concurrency."""
        with self._lock:
            wanted = min(self.concurrency, len(self._jobs)) - len(self._threads)
        for _ in range(wanted):
            number = len(self._threads) + 1
            thread = threading.Thread(target=self._work, name=f"django-steps-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _is_done(self) -> bool:
        if self._held():
            return False
        if self._max_runs is not None and self.claimed >= self._max_runs:
            return True
        if not self._until_idle:
            return False
        connection = connections[self.alias]
        return not workers.is_anything_left(connection, self._kinds, self.queues, self._limits.inline_wait)

    def _patience(self, pause: float) -> float:
        """How long to wait for a wake-up before looking again, in seconds."""
        if self._room() <= 0:
            return _LONGEST_WAIT_FOR_THREAD
        longest = self.poll_interval * _POLLS_SAVED if self._wakeups.is_reliable else pause
        if self._until_idle:
            longest = min(longest, pause)
        microseconds = timers.next_due(connections[self.alias])
        if microseconds == 0:  # somebody has locked it, or it became due just now
            return min(longest, pause)
        return longest if microseconds is None else min(longest, max(microseconds / 1_000_000, 0.001))

    def _looks_for_due(self) -> bool:
        """Whether a claim should also make ready what is due: not when it was told of something that is ready, since
        that takes a little longer, but soon after all the same."""
        now = time.monotonic()
        if self._wakeups.is_notified:
            self._wakeups.is_notified = False
            self._not_looked_for_due_since = self._not_looked_for_due_since or now
            if now - self._not_looked_for_due_since < LOOK_AGAIN_AFTER:
                return False
        self._not_looked_for_due_since = None
        return True

    # -- Threads --------------------------------------------------------------------------------

    def _work(self) -> None:
        """What each thread does: one job after the other."""
        while (job := self._thread_connections.next_job(self._unstarted)) is not None:
            began = time.monotonic()
            try:
                self._left(job, job.run())
            except BaseException:  # a thread that ends takes its share of the concurrency with it
                logger.exception("Run %s is left to others when its lease runs out.", job.claim.run_id)
            self._thread_connections.give_back()
            self._prefetch.note(time.monotonic() - began)
            self._drop(job)
        self._thread_connections.close()

    def _left(self, job: Job, ending: Ending) -> None:
        if ending.how is Ended.SUSPENDED:
            self._histories.keep(job.claim, job.recorded, ending.reset)
            wait = ((ending.wakes_at_us or 0) - job.claim.now()) / 1_000_000
            if time.monotonic() + wait < self._looks_at:
                self._wakeups.wake()
        elif ending.how not in (Ended.SUCCEEDED, Ended.FAILED):
            with self._commits.connection() as connection:
                notify.workers(connection)  # others may go on with it at once

    def _drop(self, job: Job) -> None:
        """A job is done, or given back."""
        with self._lock:
            if self._jobs.get(job.claim.run_id) is job:
                del self._jobs[job.claim.run_id]
            held, low, prefetches = len(self._jobs), self._prefetch.low(), self._prefetch.prefetches
        # Where runs are claimed ahead, not every end is a reason to claim: there are others to go on with, or none at all.
        if held == 0 or not prefetches or (held <= low and self._is_more_ready) or self._is_stopping:
            self._wakeups.wake()

    def _release_unstarted(self, older_than: float) -> bool:
        """Give back what was claimed ahead and has found no thread for so many seconds; whether any still waits."""
        with self._lock:
            oldest = min((job.claimed_on for job in self._jobs.values() if not job.has_begun), default=None)
        if oldest is None or time.monotonic() - oldest < older_than:
            return oldest is not None
        connection = connections[self.alias]
        with suppress(queue.Empty):
            while (job := self._unstarted.get_nowait()) is not None:
                try:
                    job.release(connection)
                except (DatabaseError, InterfaceError) as error:
                    self._repeated.warning("release", "A run could not be released, trying again: %s", error)
                    database.drop(connection)
                    self._unstarted.put(job)
                    return True
                self._prefetch.note_wait()
                self.claimed -= 1
                self._drop(job)
        notify.workers(connection)
        return False

    def _held(self) -> dict[UUID, Job]:
        with self._lock:
            return dict(self._jobs)
