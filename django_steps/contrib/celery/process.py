"""What a Celery worker tells of its end: to passes, that they end after their present step, and to the table of workers. And
how a process of it is ended that a step is stuck in.

The main process hears of a warm shutdown; the children of a prefork pool, which execute, don't. They have inherited a pipe
that the main process writes to then, and nobody reads.
"""

from __future__ import annotations

import os
import select
from typing import Any

from celery import signals
from celery.worker import state

from ...worker.receiver import close_receivers
from ...worker.stopping import STUCK, end_at_once

_pipe: tuple[int, int] | None = None
_main: int | None = None  # the process that has begun


def connect() -> None:
    """Listen to Celery's signals."""
    signals.worker_init.connect(_begin)
    signals.worker_shutting_down.connect(_tell)
    signals.worker_process_shutdown.connect(_close)
    signals.worker_shutdown.connect(_close)


def is_ending() -> bool:
    """Whether the Celery worker of this process is shutting down."""
    if _pipe is None:
        return False
    poll = select.poll()  # any file number, however large
    poll.register(_pipe[0], select.POLLIN)
    return bool(poll.poll(0))


def end() -> None:
    """End this process, which has a thread that never ends; called by the task that has waited for it.

    The child of a prefork pool executes nothing else, and ends at once: another one takes its place. Any other worker shuts
    down warmly, and whoever has started it is to start it again.
    """
    if _main is None:  # no worker: a task that was called eagerly
        return
    if os.getpid() == _main:
        state.should_stop = STUCK
        return
    close_receivers()
    end_at_once(STUCK)


def _begin(**_kwargs: Any) -> None:
    """A Celery worker begins; it forks later, or never."""
    global _pipe, _main
    _pipe, _main = os.pipe(), os.getpid()


def _tell(**_kwargs: Any) -> None:
    # In a signal handler: nothing here may wait for a lock.
    if _pipe is not None and not is_ending():
        os.write(_pipe[1], b"!")


def _close(**_kwargs: Any) -> None:
    close_receivers()
