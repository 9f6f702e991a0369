"""Drives the core of an operation on the calling thread, which blocks while an effect is carried out."""

from __future__ import annotations

from typing import Any

from ..frame import Frame
from ..operations.base import SideBySide
from . import side_by_side
from .effects import carry_out


def drive(core: Any, frame: Frame) -> Any:
    """Carry out what the core asks for until it returns: the record. Raises what ends the pass."""
    answer, error = None, None
    try:
        while True:
            effect = core.send(answer) if error is None else core.throw(error)
            try:
                if type(effect) is SideBySide:
                    answer, error = side_by_side.go_on(effect.group, effect.caller or frame), None
                else:
                    answer, error = carry_out(effect, frame), None
            except BaseException as raised:
                answer, error = None, raised
    except StopIteration as returned:  # of the core: an effect raises into it
        return returned.value
