"""The worker's loop: claim runs, give them to an executor, stop cleanly.

Leases are the heartbeat's (`heartbeat.py`), waiting for work is `wakeups.py`'s, executing is the executor's (`executors/`), and
what a pass does is the engine's.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.db import DatabaseError, InterfaceError, connections, router

from ..conf import conf
from ..core.repeated import Repeated
from ..definitions import registered_kinds
from ..engine.afterwards import Aftercare
from ..engine.ending import Ended
from ..engine.host import Limits
from ..engine.interceptors import Interceptor
from ..ledger import claims, database, lines, notify, timers, workers
from ..ledger.terms import Kind
from ..models import WorkflowRun
from . import registration, wakeups
from .executors.base import Executor, Place
from .executors.dispatch import CLAIMED_AHEAD, Elsewhere
from .expiry import Expiry
from .heartbeat import Heartbeat
from .lines import Lines
from .maintenance import Maintenance
from .messenger import messenger_of
from .news import News
from .pauses import Pauses
from .peers import Peers
from .pulse import Pulse
from .schedules import Schedules
from .station import Station, is_async
from .wakeups import LOOK_AGAIN_AFTER

logger = logging.getLogger("django_steps")

_SHORTEST_POLL = 0.02
# With wake-ups that work, looking without a notification is only a safety net.
_POLLS_SAVED = 10
# A prefetched run that finds no thread for so long is released: another worker may have one.
_LONGEST_WAIT_FOR_THREAD = 0.3
# For so long the loop looks after what follows from ends between two claims.
_LONGEST_AFTERCARE = 0.05
# So many times as long as a claim has taken that found nothing beside runs of other executors, none of its kind is made.
_REST = 20
# Seconds that the loop may be silent for before it counts as hanging: at least, and at least a lease.
_SLACK = 30.0


@dataclass(slots=True)
class _Lane:
    """An executor, and the kinds of runs that are claimed for it. `rests_until`: monotonic, when they are looked for again."""

    executor: Executor[Any]
    kinds: Collection[Kind]
    rests_until: float = 0.0


class Worker:
    """Claims and executes runs in this process until it is stopped, or idle if that is what was asked.

    `lease`, `poll_interval` and `shutdown_timeout` are in seconds; no `queues` means all of them. `max_runs` bounds how
    many runs are claimed. `interceptors` stand around each pass. Runs of async workflows are executed on an event loop,
    `async_concurrency` at a time. With another `executor` than "threads", runs are claimed here and executed elsewhere.
    `heartbeat_file` is touched each second while it works.
    """

    def __init__(
        self,
        *,
        queues: Sequence[str] = (),
        concurrency: int | None = None,
        async_concurrency: int | None = None,
        lease: float | None = None,
        poll_interval: float | None = None,
        until_idle: bool = False,
        max_runs: int | None = None,
        shutdown_timeout: float | None = None,
        interceptors: Sequence[Interceptor] = (),
        executor: str | None = None,
        heartbeat_file: Path | None = None,
    ) -> None:
        self.alias = router.db_for_write(WorkflowRun)
        self.queues = list(queues)
        self.executor = executor or conf.executor
        self.concurrency = concurrency or (conf.concurrency if self.executor == "threads" else CLAIMED_AHEAD)
        self.async_concurrency = async_concurrency or conf.async_concurrency
        self.lease = conf.lease.total_seconds() if lease is None else lease
        self.poll_interval = conf.poll_interval.total_seconds() if poll_interval is None else poll_interval
        self.claimed = 0
        self._until_idle, self._max_runs, self._shutdown_timeout = until_idle, max_runs, shutdown_timeout
        self._kinds = registered_kinds()
        self._wakeups = wakeups.wakeups_of(self.alias, self._first_ready, self.poll_interval)
        self._pauses = Pauses(parks=True)
        self._peers = Peers(self.queues)
        self._looks_at = 0.0  # when the loop looks for work again, if nothing wakes it
        self._not_looked_for_due_since: float | None = None
        self._is_stopping = False
        self._schedules, self._expiry, self._lines = Schedules(), Expiry(), Lines()
        self._aftercare = Aftercare()
        self._pulse = Pulse(heartbeat_file, slack=max(self.lease, _SLACK))
        # A step of it can't be interrupted: the process is to end, and another one to take its place.
        self.is_stuck = False
        self._repeated = Repeated(logger)
        self._place = self._make_place(interceptors)
        self._lanes = [_Lane(executor, kinds) for executor, kinds in self._place.executors]
        self._news = News(self.alias, self._place.held, self._place.has_news, self._repeated)

    def _make_place(self, interceptors: Sequence[Interceptor]) -> Place:
        if self.executor != "threads":
            messenger = messenger_of(self.executor)
            return Elsewhere(self.alias, self._kinds, self.concurrency, self.lease, messenger, self._has_room)
        return Station(
            self.alias,
            self._kinds,
            concurrency=self.concurrency,
            async_concurrency=self.async_concurrency,
            interceptors=interceptors,
            is_due_in=self._is_due_in,
            has_room=self._has_room,
            has_room_in=self._has_room_in,
            has_stuck=self._has_stuck,
            repeated=self._repeated,
        )

    def _is_async_here(self) -> bool:
        return self._place.executes_here and any(map(is_async, self._kinds))

    # -- The story ------------------------------------------------------------------------------

    def run(self) -> bool:
        """Work until stopped (or idle); whether everything that ran has ended or was released."""
        self._terms = registration.register(
            connections[self.alias],
            kinds=self._kinds,
            queues=self.queues,
            concurrency=self.concurrency,
            async_concurrency=self.async_concurrency if self._is_async_here() else 0,
            lease_us=int(self.lease * 1_000_000),
            executor=self.executor,
        )
        self._heartbeat = Heartbeat(self.alias, self._terms.worker_id, self.lease, self._place.held, self._look_after)
        self._heartbeat.start()
        maintenance = Maintenance(self.alias, self._place.close_unused, self._peers.look)
        maintenance.start()
        try:
            self._loop()
            return self._finish()
        finally:
            self._place.let_go()
            maintenance.stop()
            self._wakeups.close()
            self._heartbeat.stop()
            self._place.close()
            registration.unregister(connections[self.alias], self._terms.worker_id)

    def stop(self) -> None:
        """Claim nothing more, let each running step end, release the runs. From any thread, not in a signal handler: the main
        thread may hold the lock of the event."""
        self._is_stopping = True
        self._wakeups.wake()

    def _has_stuck(self) -> None:
        self.is_stuck = True
        self.stop()

    def in_progress(self) -> list[tuple[claims.Claim, str]]:
        """The runs that threads are executing now, each with the step it is in, or an empty text."""
        held = self._place.held().values()
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
            self._pulse.works()
            self._wakeups.clear()
            self._news.heard(self._wakeups.notifications)
            self._looks_at = math.inf  # whoever suspends a run meanwhile makes it look once more
            if self._is_stopping:  # looked at after the clearing, which may have swallowed the wake-up to stop
                return
            try:
                self._schedules.fire(connections[self.alias])
                self._expiry.end(connections[self.alias], self._aftercare)
                self._lines.promote(connections[self.alias])
                claimed, is_more_ready = self._claim()
                is_more_ready = self._lines.promote(connections[self.alias]) or is_more_ready
                looks_again = self._news.look_if_heard()
                self._repeated.over("claim", "Runs can be claimed again.")
                if claimed:
                    pause = _SHORTEST_POLL
                is_anything_left = self._aftercare.go_on(connections[self.alias], _LONGEST_AFTERCARE)
                if is_more_ready or is_anything_left:  # there may be more, and the executor may have room by now
                    continue
                if not claimed and self._is_done():
                    return
                # After a notification others may follow that were not sent: a process sends at most one in
                # `notify.INTERVAL`. And a claim after a notification left out what is due.
                looks_again = looks_again or bool(claimed or self._not_looked_for_due_since)
                timeout = LOOK_AGAIN_AFTER if looks_again else self._patience(pause)
                if self._release_waiting(_LONGEST_WAIT_FOR_THREAD):
                    timeout = min(timeout, _LONGEST_WAIT_FOR_THREAD)
            except (DatabaseError, InterfaceError) as error:
                # Nothing is lost: what a claim has committed although its answer was lost is found by its token
                # (`claims._adopt`), or recovered after its lease.
                self._repeated.warning("claim", "No runs could be claimed, trying again: %s", error)
                database.drop(connections[self.alias])
                timeout = min(1.0, self.poll_interval)
            timeout = min([timeout, *self._rests()])
            self._looks_at = time.monotonic() + timeout
            self._pulse.works(timeout)
            if self._wakeups.wait(timeout):
                pause = _SHORTEST_POLL
                if self._wakeups.is_notified:
                    self._wakeups.rest(self._peers.waits_for())
            else:
                pause = min(pause * 1.5, self.poll_interval)

    def _finish(self) -> bool:
        # Release first: what waits for a thread can be executed elsewhere at once, while the passes here still end. The
        # heartbeat goes on until they have: a run whose lease expires is recovered, and its step executed a second time.
        self._is_stopping = True
        self._pulse.works(math.inf)  # as long as the steps take
        self._release_waiting(0)
        deadline = math.inf if self._shutdown_timeout is None else time.monotonic() + self._shutdown_timeout
        for task in self._place.held().values():
            task.stop(Ended.RELEASED)
        # Passes on the event loop need the threads until their steps have ended.
        ended = [lane.executor.stop(_remaining(deadline)) for lane in reversed(self._lanes)]
        return all(ended)

    # -- Claiming -------------------------------------------------------------------------------

    def _claim(self) -> tuple[int, bool]:
        """Claim runs for the executors that have room; how many, and whether there are probably more."""
        rooms = self._rooms()
        if not rooms:
            return 0, False
        if self._has_full_lane(rooms):
            return self._claim_beside_others(*rooms[0])
        wakes = self._looks_for_due()
        if len(rooms) == 1:
            lane, room = rooms[0]
            claimed = self._claim_for(rooms, lane.kinds, room, wakes=wakes)[0]
            return claimed, claimed == room
        # What is first in line may be of any lane. Which it is shows where there is more to claim.
        room = min(room for _, room in rooms)
        found = self._claim_for(rooms, self._kinds, room, wakes=wakes)
        total = sum(found)
        is_more_ready = total == room
        for (lane, most), count in zip(rooms, found, strict=True):
            if is_more_ready and count and (left := min(most - count, self._room(lane))) > 0:
                total += sum(self._claim_for([(lane, left)], lane.kinds, left, wakes=False))
        return total, is_more_ready

    def _claim_beside_others(self, lane: _Lane, room: int) -> tuple[int, bool]:
        """Claim runs for one executor while the others have no room. Runs of theirs may be ahead, and are walked over: where
        that takes long and finds nothing, it is not done all the time."""
        began = time.monotonic()
        if began < lane.rests_until:
            return 0, False
        (claimed,) = self._claim_for([(lane, room)], lane.kinds, room, wakes=self._looks_for_due())
        if not claimed:
            ended = time.monotonic()
            lane.rests_until = ended + _REST * (ended - began)
        return claimed, claimed == room

    def _claim_for(
        self, rooms: Sequence[tuple[_Lane, int]], kinds: Collection[Kind], limit: int, *, wakes: bool
    ) -> list[int]:
        """Claim up to `limit` runs of these kinds and give them to the executors of these lanes; how many each has got."""
        connection = connections[self.alias]
        terms = replace(self._terms, kinds=kinds, paused=self._pauses.now(connection))
        claimed = claims.claim(connection, terms, limit, wakes=wakes)
        tasks = self._place.tasks(claimed.runs, connection) if claimed.runs else []
        self.claimed += len(tasks)
        counts = []
        for lane, _ in rooms:
            own = [task for task in tasks if (task.claim.workflow, task.claim.version) in lane.kinds]
            lane.executor.take(own, is_more_ready=len(tasks) == limit)
            counts.append(len(own))
        self._aftercare.add(claimed)
        begun = {name for claim in claimed.runs if claim.is_new_attempt for name in lines.with_rate(*claim.limits)}
        self._lines.add(claimed.lines | begun)
        return counts

    def _first_ready(self) -> list[Any]:
        """What is first in line for this worker, of the kinds that it has room for. It asks on the connection that is there: a
        new one is opened by the next claim, as rarely as that is tried while the database is away."""
        connection, now = connections[self.alias], time.monotonic()
        rooms = self._rooms()
        is_beside = self._has_full_lane(rooms)  # a claim beside others lets a lane rest
        free = [lane for lane, _ in rooms if not is_beside or lane.rests_until <= now]
        if not free or connection.connection is None:
            return []
        kinds = {kind for lane in free for kind in lane.kinds}
        return claims.first_ready(connection, replace(self._terms, kinds=kinds, paused=self._pauses.now(connection)))

    def _rests(self) -> list[float]:
        """For how many seconds lanes are not asked for."""
        now = time.monotonic()
        return [lane.rests_until - now for lane in self._lanes if lane.rests_until > now]

    def _rooms(self) -> list[tuple[_Lane, int]]:
        """The executors that have room, with how many runs to claim for each."""
        return [(lane, room) for lane in self._lanes if lane.kinds and (room := self._room(lane)) > 0]

    def _has_full_lane(self, rooms: Sequence[tuple[_Lane, int]]) -> bool:
        """Whether these are not all executors that runs are claimed for."""
        return len(rooms) < sum(bool(lane.kinds) for lane in self._lanes)

    def _room(self, lane: _Lane) -> int:
        """How many runs to claim."""
        room = lane.executor.room()
        return room if self._max_runs is None else min(room, self._max_runs - self.claimed)

    def _is_done(self) -> bool:
        if self._place.held():
            return False
        if self._max_runs is not None and self.claimed >= self._max_runs:
            return True
        if not self._until_idle:
            return False
        connection = connections[self.alias]
        horizon = Limits.from_settings().inline_wait_us
        also_held = not self._place.executes_here
        return not workers.is_anything_left(connection, self._kinds, self.queues, horizon, also_held=also_held)

    def _patience(self, pause: float) -> float:
        """How long to wait for a wake-up before looking again, in seconds."""
        if not self._rooms() or any(lane.executor.looks_again_soon() for lane in self._lanes):
            return _LONGEST_WAIT_FOR_THREAD
        longest = self.poll_interval * _POLLS_SAVED if self._wakeups.is_reliable else pause
        if self._until_idle:
            longest = min(longest, pause)
        due = timers.next_due(connections[self.alias], self._schedules.workflows)
        self._schedules.learn(due.schedule)
        self._expiry.learn(due.expires)
        self._lines.learn(due.rate, due.lines)
        microseconds = due.first
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
        """Each second, on the thread of the heartbeat."""
        self._pulse.look()
        self._place.look_after(lease, self._terms.worker_id)
        self._news.look()

    def _is_due_in(self, seconds: float) -> None:
        if time.monotonic() + seconds < self._looks_at:
            self._wakeups.wake()

    def _has_room_in(self, limits: Collection[str]) -> None:
        self._lines.add(limits)
        self._wakeups.wake()

    def _has_room(self) -> None:
        self._wakeups.wake()

    def _release_waiting(self, older_than: float) -> bool:
        """Release what was prefetched and has found no thread for so many seconds; whether anything still waits."""
        waits = [
            (executor, waited)
            for executor, _ in self._place.executors
            if (waited := executor.longest_wait()) is not None
        ]
        connection, still_wait = connections[self.alias], False
        for executor, waited in waits:
            if waited < older_than:
                still_wait = True
                continue
            try:
                while executor.release_next(connection):
                    self.claimed -= 1
            except (DatabaseError, InterfaceError) as error:
                self._repeated.warning("release", "A run could not be released, trying again: %s", error)
                database.drop(connection)
                return True
            notify.workers(connection)
        return still_wait


def _remaining(deadline: float) -> float | None:
    return None if deadline == math.inf else max(0.0, deadline - time.monotonic())
