"""How a worker process ends: a signal once to end well, repeated by a person to end at once.

One wish to stop may come as several signals: systemd and Heroku signal every process of a unit, and a supervisor passes
on what it got. So SIGTERM and SIGINT at the same moment are one, and SIGHUP, by which a supervisor passes the wish on
and a terminal says that it is gone, never ends anything at once.

A handler runs between any two instructions of the main thread, which may hold any lock then: it only puts a word into
a queue, and a thread does the rest. Supervised workers also end when their supervisor is gone. Processes that a step
forks have the handlers that were there before: `terminate()` ends them.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

# The exit code of a process that ended with steps still running. They are picked up when their leases run out.
ENDED_AT_ONCE = 1

# The exit code of a worker with a step that can't be interrupted, which others have taken over: it is to be started again.
STUCK = 75

HANG_UP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
_SAME_MOMENT = 0.2  # seconds; who repeats a signal in less than that is a program


def end_at_once(code: int = ENDED_AT_ONCE) -> None:
    """End this process without waiting for anything, not even for somebody to read what it printed."""
    os._exit(code)


def stop_signals(*, is_supervised: bool = False) -> list[int]:
    """The signals that stop a worker. What `nohup` ignores stays ignored, unless a supervisor speaks by it."""
    signals: list[int] = [signal.SIGTERM, signal.SIGINT]
    if HANG_UP is not None and (is_supervised or signal.getsignal(HANG_UP) is not signal.SIG_IGN):
        signals.append(HANG_UP)
    return signals


def restore_handlers(before: dict[int, Any], *, is_ending: bool) -> None:
    """Set the handlers that were there before.

    The last moments of a process that was asked to end are the interpreter's. A SIGHUP that comes then, as systemd sends it
    after SIGTERM to every process, would still kill it, and an end that was clean would count as a failure.
    """
    for signum, handler in before.items():
        if is_ending and signum == HANG_UP and handler == signal.SIG_DFL:
            handler = signal.SIG_IGN
        signal.signal(signum, signal.SIG_DFL if handler is None else handler)  # None: set by C code


class Repetition:
    """Tells a signal that a person repeats from others that carry the same wish."""

    def __init__(self) -> None:
        self._first: float | None = None

    def is_repeated(self, signum: int) -> bool:
        """Whether this signal, which has come now, repeats an earlier one."""
        if signum == HANG_UP:
            return False
        now = time.monotonic()
        if self._first is None:
            self._first = now
        return now - self._first > _SAME_MOMENT


class StopSignals:
    """While this is entered, the first signal calls `on_stop`, and one that is repeated ends the process.

    `is_stopping` tells whether there was one. Signals belong to the main thread: entered in any other, it changes nothing.
    """

    def __init__(self, on_stop: Callable[[], None], *, is_supervised: bool = False) -> None:
        self._on_stop, self._is_supervised = on_stop, is_supervised
        self.is_stopping = False
        self._repetition = Repetition()
        self._words: queue.SimpleQueue[bool] = queue.SimpleQueue()  # the one queue that a handler may use
        self._before: dict[int, Any] = {}
        self._thread = threading.Thread(target=self._act, name="django-steps-signals", daemon=True)

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            signals = stop_signals(is_supervised=self._is_supervised)
            self._before = {signum: signal.getsignal(signum) for signum in signals}
            _entered.append(self)
            for signum in signals:
                signal.signal(signum, self._receive)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self._before:
            return
        restore_handlers(self._before, is_ending=self.is_stopping)
        _entered.remove(self)
        self._words.put(False)

    @property
    def handled(self) -> list[int]:
        """The signals whose handlers this has set."""
        return list(self._before)

    def restore(self) -> None:
        """Set the handlers that were there before."""
        restore_handlers(self._before, is_ending=False)

    def stop_when_closed(self, descriptor: int) -> None:
        """Stop, too, when the other end of a pipe is closed: whoever holds it has gone, or wants this."""
        threading.Thread(target=self._watch, args=(descriptor,), name="django-steps-supervisor", daemon=True).start()

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._repetition.is_repeated(signum):
            end_at_once()
        self.is_stopping = True
        self._words.put(True)

    def _act(self) -> None:
        if self._words.get():
            self._on_stop()

    def _watch(self, descriptor: int) -> None:
        while os.read(descriptor, 1024):
            pass
        self._words.put(True)


_entered: list[StopSignals] = []


# -- Processes that are forked -----------------------------------------------------------------------
#
# Such a process is no worker, and a handler that it inherited would keep it from ending. A signal that comes before it has
# its own handlers would be lost: Python forgets in a child what came before it was one. So signals wait meanwhile.


class _Forking(threading.local):
    mask: Any = None


_forking = _Forking()


def _before_fork() -> None:
    signals = {signum for entered in _entered for signum in entered.handled}
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals) if signals else None


def _after_fork() -> None:
    if _forking.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)
        _forking.mask = None


def _after_fork_in_child() -> None:
    for entered in reversed(_entered):
        entered.restore()
    _entered.clear()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
