"""Drives the core of an operation on the calling thread, which blocks while an effect is carried out."""

from __future__ import annotations

from functools import partial
from typing import Any

from ...ledger.histories import Recorded
from ..frame import Frame
from ..interceptors import around_attempt
from ..operations.attempts import Executed
from ..operations.base import Core, Effect, Execute, Record, Wait
from .execute import execute


def drive(core: Core, frame: Frame) -> Recorded:
    """Carry out what the core asks for until it returns the record. Raises what ends the pass."""
    try:
        effect = next(core)
        while True:
            try:
                answer = _carry_out(effect, frame)
            except BaseException as error:
                effect = core.throw(error)
            else:
                effect = core.send(answer)
    except StopIteration as returned:  # of the core: an effect raises into it
        recorded: Recorded = returned.value
        return recorded


def _carry_out(effect: Effect, frame: Frame) -> Any:
    kind = type(effect)
    if kind is Execute:
        return _execute(effect, frame)  # type: ignore[arg-type]
    if kind is Record:
        return frame.host.record(effect.write)  # type: ignore[union-attr]
    if kind is Wait:
        return frame.host.wait(effect.seconds)  # type: ignore[union-attr]
    return frame.host.write(effect.statement)  # type: ignore[union-attr]


def _execute(effect: Execute, frame: Frame) -> Executed:
    attempt = effect.attempt
    if not frame.interceptors:
        return execute(attempt, frame)
    return around_attempt(frame.interceptors, attempt, partial(execute, attempt, frame))
