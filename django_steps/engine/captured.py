"""Capturing the lines that bodies and steps write to the log: whose a line is, and what it must not say.

The lines are handed to whoever writes them (`worker/log_writer.py`). Nothing here waits, asks the database or raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from threading import Lock

from ..core.context import active_pass, step_around
from ..definitions import masked_keys
from ..definitions.logger import LOGGERS
from ..ledger.claims import Claim
from ..ledger.logs import MOST_BYTES, MOST_LINES, NewLine
from ..values.secrets import secrets, without

_LONGEST = 8000  # characters of a line
_LONGEST_NAME = 255
_FORMATTER = logging.Formatter()


class Lines:
    """The lines of one pass.

    Of a workflow that masks keys, those of a step are kept back until the step is recorded: what its result masks is not known
    before.
    """

    __slots__ = ("_claim", "_count", "_held", "_keys", "_lock", "_put", "_secrets", "_size", "_unread", "level")

    def __init__(self, claim: Claim, keys: frozenset[str], level: int, put: Callable[[NewLine], None]) -> None:
        self.level = level
        self._claim, self._keys, self._put = claim, keys, put
        self._count = self._size = 0
        self._lock = Lock()  # what is masked, and what is kept back, is the same for all that is executed side by side
        self._held: list[NewLine] = []
        self._secrets: set[str] = set()
        self._unread = [claim.input] if keys else []  # recorded texts in which nobody has looked for secrets

    def take(self, record: logging.LogRecord) -> None:
        """Take a record, if it is one of the body's logger or was written in a step."""
        if record.levelno < self.level or self._count > MOST_LINES or self._size > MOST_BYTES:
            return
        step = step_around()
        if step is None and not record.name.startswith(LOGGERS):
            return
        try:
            text = _text_of(record)
        except Exception:  # its arguments don't fit, which the other handlers tell
            return
        self._count += 1
        self._size += len(text)
        path = "" if step is None else step.name
        line = NewLine(
            self._claim.run_id, self._claim.now(), path, record.levelno, _clean(record.name, _LONGEST_NAME), text
        )
        if not self._keys:
            self._put(line)
            return
        with self._lock:
            if step is not None:
                self._held.append(line)
            else:
                self._put_masked(line)

    def knows(self, text: str | None) -> None:
        """The body or a step gets this recorded value."""
        if self._keys and text:
            self._unread.append(text)

    def recorded(self, step: str, output: str | None) -> None:
        """A step is recorded: its lines may be written."""
        self.knows(output)
        if self._held:
            self._release(lambda line: line.step == step)

    def end(self) -> None:
        """The pass is over, and nothing more is going to be recorded."""
        if self._held:
            self._release(lambda line: True)

    def _release(self, is_ready: Callable[[NewLine], bool]) -> None:
        with self._lock:
            held, self._held = self._held, []
            for line in held:
                if is_ready(line):
                    self._put_masked(line)
                else:
                    self._held.append(line)

    def _put_masked(self, line: NewLine) -> None:
        while self._unread:
            self._secrets |= secrets(self._unread.pop(), self._keys)
        self._put(line._replace(text=without(line.text, self._secrets)))


class Capture:
    """What captures lines in one process, from a level up, and hands them to `put`."""

    def __init__(self, level: int, put: Callable[[NewLine], None]) -> None:
        self._level, self._put = level, put
        self._keys = cache(masked_keys)  # the workflows of a worker don't change

    def lines_of(self, claim: Claim) -> Lines:
        """The lines of a pass that begins."""
        return Lines(claim, self._keys(claim.workflow), self._level, self._put)


class _Handler(logging.Handler):
    """Gives each record that comes by to the pass in which it was written.

    That there is a handler keeps Python from printing warnings of projects that have none, so this does it then.
    """

    def handle(self, record: logging.LogRecord) -> bool:  # without the lock of the handler: there is nothing to share
        frame = active_pass.get()
        if frame is not None and frame.state.lines is not None:
            frame.state.lines.take(record)
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and self._is_alone(record.name):
            last.handle(record)
        return True

    def _is_alone(self, name: str) -> bool:
        """Whether no other handler gets the records of a logger."""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return False
            logger = logger.parent if logger.propagate else None
        return True


_handler = _Handler()
_attached: list[logging.Logger] = []
_users = 0


def attach() -> None:
    """Let lines be captured in this process, until `detach()` is called as often."""
    global _users
    _users += 1
    if _users == 1:
        for logger in _ends():
            logger.addHandler(_handler)
            _attached.append(logger)


def detach() -> None:
    """Capture no more, if nobody else wants to."""
    global _users
    _users -= 1
    if _users == 0:
        while _attached:
            _attached.pop().removeHandler(_handler)


def _ends() -> list[logging.Logger]:
    """Where records come by: each one once, at the root or at the first logger that passes nothing on."""
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(one for one in known if isinstance(one, logging.Logger) and not one.propagate)]


def _text_of(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        text = f"{text}\n{_FORMATTER.formatException(record.exc_info)}"
    return _clean(text, _LONGEST)


def _clean(text: str, longest: int) -> str:
    """What every database takes."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return text.replace("\0", "�").encode("utf-8", "replace").decode()
