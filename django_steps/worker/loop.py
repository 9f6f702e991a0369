"""The worker's loop: claim runs, give them to an executor, stop cleanly.

Leases are the heartbeat's (`heartbeat.py`), waiting for work is `wakeups.py`'s, executing is the executor's (`executors/`), and
what a pass does is the engine's.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from django.db import DatabaseError, InterfaceError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import conf
from ..core.repeated import Repeated
from ..definitions import registered_kinds
from ..engine import hooks
from ..engine.ending import Ended, Ending
from ..engine.history_cache import HistoryCache, load_histories
from ..engine.host import Limits
from ..engine.interceptors import Interceptor
from ..ledger import claims, database, notify, timers, workers
from ..ledger.claims import Claim
from ..models import WorkflowRun
from . import registration, wakeups
from .executors.base import Executor
from .executors.threads import Threads
from .group_commit import GroupCommit
from .heartbeat import Heartbeat
from .host import WorkerHost
from .maintenance import Maintenance
from .task import Task
from .wakeups import LOOK_AGAIN_AFTER
from .writers import LONG_IDLE

logger = logging.getLogger("django_steps")

_SHORTEST_POLL = 0.02
# With wake-ups that work, looking without a notification is only a safety net.
_POLLS_SAVED = 10
# A prefetched run that finds no thread for so long is released: another worker may have one.
_LONGEST_WAIT_FOR_THREAD = 0.3


class Worker:
    """Claims and executes runs in this process until it is stopped, or idle if that is what was asked.

    `lease`, `poll_interval` and `shutdown_timeout` are in seconds; no `queues` means all of them. `max_runs` bounds how
    many runs are claimed. `interceptors` stand around each pass.
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
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self.alias = router.db_for_write(WorkflowRun)
        self.queues = list(queues)
        self.concurrency = concurrency or conf.concurrency
        self.lease = conf.lease.total_seconds() if lease is None else lease
        self.poll_interval = conf.poll_interval.total_seconds() if poll_interval is None else poll_interval
        self.claimed = 0
        self._until_idle, self._max_runs, self._shutdown_timeout = until_idle, max_runs, shutdown_timeout
        self._kinds = registered_kinds()
        self._interceptors = interceptors
        self._executor: Executor = Threads(self.alias, self.concurrency, self._has_ended, self._has_room)
        self._wakeups = wakeups.wakeups_of(self.alias)
        self._looks_at = 0.0  # when the loop looks for work again, if nothing wakes it
        self._not_looked_for_due_since: float | None = None
        self._is_stopping = False
        self._commits = GroupCommit(self.alias, writers=1 if connections[self.alias].vendor == "sqlite" else 2)
        self._repeated = Repeated(logger)
        self._limits = Limits.from_settings()
        self._histories = HistoryCache()

    # -- The story ------------------------------------------------------------------------------

    def run(self) -> bool:
        """Work until stopped (or idle); whether everything that ran has ended or was released."""
        self._terms = registration.register(
            connections[self.alias],
            kinds=self._kinds,
            queues=self.queues,
            concurrency=self.concurrency,
            lease_us=int(self.lease * 1_000_000),
        )
        self._heartbeat = Heartbeat(
            self.alias, self._terms.worker_id, self.lease, self._executor.held, self._look_after
        )
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
        """Claim nothing more, let each running step end, release the runs. From any thread, not in a signal handler: the main
        thread may hold the lock of the event."""
        self._is_stopping = True
        self._wakeups.wake()

    def in_progress(self) -> list[tuple[claims.Claim, str]]:
        """The runs that threads are executing now, each with the step it is in, or an empty text."""
        held = self._executor.held().values()
        return [(task.claim, task.holding().current_step) for task in held if task.has_begun]

    def _loop(self) -> None:
        # The order in here keeps wake-ups from getting lost. Whoever has news (an executor with room, a suspended run that
        # is due soon, `stop()`, a notification) changes the state first and then wakes. So the loop forgets the wake-ups
        # first and then looks: news that came before the look is seen by it, news that comes later ends the wait.
        #
        # A run that is suspended while the loop claims may be due before the time for which the loop is about to wait. The
        # loop can't know that time yet, so until it does, `_looks_at` is infinite, and every such run wakes it. Without
        # that, a run that sleeps for two seconds could wait for the ten of an idle worker.
        pause = _SHORTEST_POLL
        while True:
            self._wakeups.clear()
            self._looks_at = math.inf  # whoever suspends a run meanwhile makes it look once more
            if self._is_stopping:  # looked at after the clearing, which may have swallowed the wake-up to stop
                return
            try:
                room = self._room()
                claimed = self._claim(room)
                self._repeated.over("claim", "Runs can be claimed again.")
                if claimed:
                    pause = _SHORTEST_POLL
                if claimed == room > 0:  # there may be more, and the executor may have room by now
                    continue
                if not claimed and self._is_done():
                    return
                # After a notification others may follow that were not sent: a process sends at most one in
                # `notify.INTERVAL`. And a claim after a notification left out what is due.
                timeout = LOOK_AGAIN_AFTER if claimed or self._not_looked_for_due_since else self._patience(pause)
                if self._release_waiting(_LONGEST_WAIT_FOR_THREAD):
                    timeout = min(timeout, _LONGEST_WAIT_FOR_THREAD)
            except (DatabaseError, InterfaceError) as error:
                # Nothing is lost: what a claim has committed although its answer was lost is found by its token
                # (`claims._adopt`), or recovered after its lease.
                self._repeated.warning("claim", "No runs could be claimed, trying again: %s", error)
                database.drop(connections[self.alias])
                timeout = min(1.0, self.poll_interval)
            self._looks_at = time.monotonic() + timeout
            if self._wakeups.wait(timeout):
                pause = _SHORTEST_POLL
            else:
                pause = min(pause * 1.5, self.poll_interval)

    def _finish(self) -> bool:
        # Release first: what waits for a thread can be executed elsewhere at once, while the passes here still end. The
        # heartbeat goes on until they have: a run whose lease expires is recovered, and its step executed a second time.
        self._is_stopping = True
        self._release_waiting(0)
        return self._executor.stop(self._shutdown_timeout)

    # -- Claiming -------------------------------------------------------------------------------

    def _claim(self, room: int) -> int:
        """Claim up to `room` runs and give them to the executor; how many."""
        if room <= 0:
            return 0
        connection = connections[self.alias]
        claimed = claims.claim(connection, self._terms, room, wakes=self._looks_for_due())
        tasks = self._tasks(claimed.runs, connection) if claimed.runs else []
        self.claimed += len(tasks)
        self._executor.take(tasks, is_more_ready=len(tasks) == room)
        for run_id in claimed.ended:
            hooks.run_ended(run_id)
        return len(tasks)

    def _tasks(self, claimed: Sequence[Claim], connection: BaseDatabaseWrapper) -> list[Task]:
        histories = load_histories(connection, claimed, self._histories)
        return [
            Task(
                claim,
                histories.get(claim.run_id),
                WorkerHost(self._commits, self._limits, self._repeated, self._executor.crew),
                self._interceptors,
            )
            for claim in claimed
        ]

    def _room(self) -> int:
        """How many runs to claim."""
        room = self._executor.room()
        return room if self._max_runs is None else min(room, self._max_runs - self.claimed)

    def _is_done(self) -> bool:
        if self._executor.held():
            return False
        if self._max_runs is not None and self.claimed >= self._max_runs:
            return True
        if not self._until_idle:
            return False
        connection = connections[self.alias]
        return not workers.is_anything_left(connection, self._kinds, self.queues, self._limits.inline_wait_us)

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
        """Whether a claim should also make ready what is due: not when it was notified of something that is ready, since
        that takes a little longer, but soon after all the same."""
        now = time.monotonic()
        if self._wakeups.is_notified:
            self._wakeups.is_notified = False
            self._not_looked_for_due_since = self._not_looked_for_due_since or now
            if now - self._not_looked_for_due_since < LOOK_AGAIN_AFTER:
                return False
        self._not_looked_for_due_since = None
        return True

    # -- The executor ---------------------------------------------------------------------------

    def _look_after(self, lease: float) -> None:
        """Each second, on the thread of the heartbeat: what threads wait for too long, and what time has made ready."""
        self._commits.cut_silent(lease)
        self._executor.crew.look()

    def _has_ended(self, task: Task, ending: Ending) -> None:
        """A pass has ended: somebody may have to look for its run again."""
        # On the thread of the pass. The history is kept before the loop is woken, which may claim the run at once.
        if ending.how is Ended.SUSPENDED:
            self._histories.keep(task.claim, task.recorded(), ending.reset)
            wait = ((ending.wakes_at_us or 0) - task.claim.now()) / 1_000_000
            if time.monotonic() + wait < self._looks_at:
                self._wakeups.wake()
        elif ending.how not in (Ended.SUCCEEDED, Ended.FAILED):
            with self._commits.connection() as connection:
                notify.workers(connection)  # others may go on with it at once

    def _has_room(self) -> None:
        self._wakeups.wake()

    def _release_waiting(self, older_than: float) -> bool:
        """Release what was prefetched and has found no thread for so many seconds; whether anything still waits."""
        waited = self._executor.longest_wait()
        if waited is None or waited < older_than:
            return waited is not None
        connection = connections[self.alias]
        try:
            while self._executor.release_next(connection):
                self.claimed -= 1
        except (DatabaseError, InterfaceError) as error:
            self._repeated.warning("release", "A run could not be released, trying again: %s", error)
            database.drop(connection)
            return True
        notify.workers(connection)
        return False
