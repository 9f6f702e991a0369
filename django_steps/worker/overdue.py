"""Watches plain functions that have a timeout: says where they are when it is over, and gives them up after `STEP_GRACE`.

Python can't interrupt a thread. So an attempt that is given up is recorded as timed out in place of its thread, whose result is
refused from then on; the run is released, to go on elsewhere; and the worker takes nothing more, lets the other steps end, and
ends its process, in which the thread would be lost. That thread may even come back to life: it can neither write nor release
any more.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from ..core.repeated import Repeated
from ..durations import to_text
from ..engine import conclusion, hooks
from ..engine.drivers import execute
from ..engine.ending import Ended, Ending
from ..engine.interceptors import give_up
from ..engine.overdue import TimedCall
from ..ledger import database, leases
from ..ledger.records import Outcome
from .executors.threads import Threads
from .group_commit import GroupCommit
from .host import WorkerHost
from .task import Task

logger = logging.getLogger("django_steps")

_LOOK_AGAIN = 0.05  # seconds after which the other threads of a run are looked at again
_MOST_OF_STACK = 8000  # characters
_LAST_CALLS = 30


@dataclass(slots=True)
class _Watched:
    task: Task
    call: TimedCall


class Overdue:
    """Watches the calls of a worker on a thread of its own, which begins with the first of them.

    `has_stuck` is called when one is given up.
    """

    def __init__(
        self,
        commits: GroupCommit,
        host: WorkerHost,
        threads: Threads,
        repeated: Repeated,
        has_stuck: Callable[[], None],
    ) -> None:
        self._commits, self._host, self._threads, self._repeated = commits, host, threads, repeated
        self._has_stuck = has_stuck
        self._calls: dict[TimedCall, _Watched] = {}
        self._given_up: list[_Watched] = []  # whose run is not released yet
        self._stuck: set[int] = set()  # threads
        self._no_longer: deque[tuple[UUID, int]] = deque()  # runs, with their tokens, that have a note of what is over
        self._looks_on = math.inf  # monotonic
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def watch(self, task: Task) -> None:
        """Watch the calls of a task from now on."""
        task.watch = partial(self._add, task)

    def stop(self) -> None:
        """Watch no more, once the runs are released whose steps were given up."""
        self._is_stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _add(self, task: Task, call: TimedCall) -> None:
        call.forget = self._forget
        self._calls[call] = _Watched(task, call)
        if self._thread is None:
            self._begin()
        if time.monotonic() - call.late_us() / 1_000_000 < self._looks_on:
            self._wake.set()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="django-steps-overdue", daemon=True)
                self._thread.start()

    def _forget(self, call: TimedCall) -> None:
        self._calls.pop(call, None)
        if call.is_reported:
            self._no_longer.append((call.frame.run_id, call.attempt.claim.token))
            self._wake.set()

    # -- On the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        # Whoever adds a call makes it known first and then looks whether to wake this thread, which does the reverse.
        while not self._is_stopping or self._given_up:
            self._wake.clear()
            self._looks_on = math.inf
            wait = self._look()
            self._looks_on = time.monotonic() + wait
            self._wake.wait(None if wait == math.inf else wait)

    def _look(self) -> float:
        """See to what is due; in how many seconds the next is, or infinity."""
        while self._no_longer:
            self._note(*self._no_longer.popleft(), "")
        grace_us = self._host.limits.step_grace_us
        waits = [math.inf]
        for watched in list(self._calls.values()):
            call = watched.call
            try:
                late_us = call.late_us()
                if late_us >= 0 and not call.is_reported and not call.is_over:
                    self._report(call)
                if late_us >= grace_us:
                    self._give_up(watched)
                else:
                    waits.append((grace_us - late_us if late_us >= 0 else -late_us) / 1_000_000)
            except Exception:
                logger.exception("Step %r is not watched any more.", call.attempt.request.name)
                self._calls.pop(call, None)
        self._given_up = [watched for watched in self._given_up if not self._has_left(watched)]
        return min([*waits, *([_LOOK_AGAIN] if self._given_up else [])])

    def _report(self, call: TimedCall) -> None:
        """Say that a step goes on although its time is over, and where it is."""
        attempt, claim = call.attempt, call.attempt.claim
        stack = _stack_of(call.thread_id)
        logger.warning(
            "Step %r of run %s is overdue: its timeout of %s is over. A plain function can't be interrupted: let what it waits"
            " for have a timeout, current_step().remaining(). It is here:\n%s",
            attempt.request.name,
            claim.run_id,
            to_text(timedelta(microseconds=attempt.request.options.timeout_us or 0)),
            stack,
        )
        said = {
            "token": claim.token,
            "step": attempt.request.name,
            "attempt": attempt.number,
            "since_us": attempt.deadline_us,
            "stack": stack,
        }
        self._note(claim.run_id, claim.token, json.dumps(said))
        call.is_reported = True
        if call.is_over:  # it has not seen that
            self._forget(call)
        hooks.step_overdue(claim, attempt.request.name, attempt.number, stack)

    def _note(self, run_id: UUID, token: int, text: str) -> None:
        with self._commits.connection() as connection:
            try:
                leases.note_overdue(connection, run_id, token, text)
            except (DatabaseError, InterfaceError) as error:
                self._repeated.warning("overdue", "That a step is overdue could not be written: %s", error)
                database.drop(connection)

    def _give_up(self, watched: _Watched) -> None:
        """Record an attempt as timed out in place of its thread, unless that comes first."""
        task, call = watched.task, watched.call
        stack = _stack_of(call.thread_id)
        if not call.give_up():
            return
        self._calls.pop(call, None)
        attempt, frame = call.attempt, call.frame
        logger.error(
            "Step %r of run %s is given up: it has not ended within STEP_GRACE after its timeout. What it still does is not"
            " recorded. This worker takes no more runs, and ends when its other steps have ended.",
            attempt.request.name,
            frame.run_id,
        )
        self._stuck.add(call.thread_id)
        self._has_stuck()
        task.stop(Ended.RELEASED)
        self._threads.give_up(call.thread_id)
        error = attempt.timeout_error()
        error.add_note(f"It could not be interrupted. It was here:\n{stack}")
        if frame.give_up is not None:
            frame.give_up(error)
            return
        write = attempt.failed(error)
        if self._host.record(write) is Outcome.WRITTEN:
            frame.add(write, error)
        self._given_up.append(watched)

    def _has_left(self, watched: _Watched) -> bool:
        """Release the run of a call that was given up, once nothing else of it is executed; whether that is done."""
        task, call = watched.task, watched.call
        if self._is_helped(call):
            return False
        unit = call.frame.unit
        if unit is not None and unit.give_up is not None:
            unit.give_up()  # if another thread has waited for it, that one releases the run
        if call.thread_id == task.thread_id:
            claim = task.claim
            ending = conclusion.carried_out(conclusion.settled(claim, self._host, Ending(Ended.RELEASED)), self._host)
            give_up(call.frame.interceptors, claim, ending)
            hooks.run_left(claim, ending)
            self._threads.let_go(task, ending)
        return True

    def _is_helped(self, call: TimedCall) -> bool:
        """Whether threads execute something that the thread of a call has called: what they record would be refused."""
        frames = tuple(call.frame.state.frames)
        helped = {frame.thread_id: frame.helps.thread_id for frame in frames if frame.helps is not None}
        for thread in helped.keys() - self._stuck:
            while thread in helped:
                thread = helped[thread]
                if thread == call.thread_id:
                    return True
        return False


def _stack_of(thread_id: int) -> str:
    """Where a thread is, from the function of its step on; what is far down counts most."""
    frame = sys._current_frames().get(thread_id)
    if frame is None:
        return ""
    calls = traceback.extract_stack(frame)
    last = max((number for number, call in enumerate(calls) if call.filename == execute.__file__), default=-1)
    lines = traceback.format_list(calls[last + 1 :][-_LAST_CALLS:])
    return "".join(lines)[-_MOST_OF_STACK:].rstrip("\n")
