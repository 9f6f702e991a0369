"""The checkpoints of a pass: how far its steps are, as they say themselves by `current_step().checkpoint(…)`.

A checkpoint reaches the database on two ways. The renewal of the lease writes it into the row of the run: so it is there
after a crash. And the record of an attempt that has ended without success holds it in its context. Each checkpoint of a
step has a higher *number* than the one before it, so that of two that are found the newer one is known.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .. import values
from ..core import clock
from ..errors import StepsError


class Checkpoint(NamedTuple):
    """An encoded value, and how many checkpoints of its step there were up to it."""

    number: int
    text: str


class Checkpoints:
    """The last checkpoint of each step of a pass that has no outcome yet; `stored` is what the row of the run holds.

    `text` may be asked for from any thread.
    """

    def __init__(self, stored: str = "") -> None:
        self.latest = _read(stored)
        self._in_records: dict[str, int] = {}  # by step, the number of the one that its record holds
        self._written: tuple[dict[str, Checkpoint], str] = ({}, "")

    def of(self, step: str) -> Checkpoint | None:
        """The last one of a step."""
        return self.latest.get(step)

    def adopt(self, step: str, recorded: Any) -> None:
        """Take in what the record of a step holds, which is older than what the row holds if that is there."""
        found = _checkpoint(recorded)
        if found is not None:
            self._in_records[step] = found.number
            if found.number >= getattr(self.latest.get(step), "number", 0):
                self.latest[step] = found

    def keep(self, step: str, text: str) -> None:
        """A step says how far it is."""
        last = self.latest.get(step)
        self.latest[step] = Checkpoint(last.number + 1 if last else 1, text)

    def recorded(self, step: str, *, is_final: bool) -> None:
        """An attempt of a step is recorded, together with its last checkpoint; a final record leaves nothing to keep."""
        last = self.latest.get(step)
        if last is None:
            return
        if is_final:
            del self.latest[step]
        else:
            self._in_records[step] = last.number

    @property
    def text(self) -> str:
        """What the row of the run has to hold: those that are in no record. Asked for every second, so it is kept."""
        latest = self.latest.copy()  # at once, since the thread of the pass may add to it
        loose = {step: last for step, last in latest.items() if last.number > self._in_records.get(step, 0)}
        if loose != self._written[0]:
            self._written = loose, json.dumps(loose) if loose else ""
        return self._written[1]


class OfAttempt:
    """What `current_step()` gives to one attempt."""

    def __init__(self, checkpoints: Checkpoints, step: str, max_bytes: int, *, is_atomic: bool = False) -> None:
        self._checkpoints, self._step = checkpoints, step
        self._max_bytes, self._is_atomic = max_bytes, is_atomic
        self._before = checkpoints.of(step)
        self.is_over = False
        self.deadline_us: int | None = None  # of a fake step

    def remaining_us(self) -> int:
        return max((self.deadline_us or 0) - clock.host_time(), 0)

    def save(self, value: Any) -> None:
        """Encode a value, and keep it."""
        if self._is_atomic:
            raise StepsError(
                f"Step {self._step!r} is atomic: if it fails, what it has written is rolled back, so that the next attempt"
                " can't go on from a checkpoint. Use a step without atomic=True, and atomic() within it for each part."
            )
        self._checkpoints.keep(self._step, values.encode(value, max_bytes=self._max_bytes))

    def load(self) -> Any:
        """The last one of the attempts before, decoded anew."""
        return None if self._before is None else values.decode(self._before.text)


def _read(stored: str) -> dict[str, Checkpoint]:
    """What the row of a run holds; nothing of what is damaged."""
    try:
        found = json.loads(stored) if stored else {}
    except (ValueError, RecursionError):
        return {}
    read = {step: _checkpoint(value) for step, value in found.items()} if isinstance(found, dict) else {}
    return {step: checkpoint for step, checkpoint in read.items() if checkpoint is not None}


def _checkpoint(value: Any) -> Checkpoint | None:
    match value:
        case [int(number), str(text)]:
            return Checkpoint(number, text)
    return None
