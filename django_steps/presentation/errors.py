"""Recorded failures as people read them: in one line, and in full.

How a failure is recorded is known in `failures`; here are the texts that are made of its parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.utils.translation import gettext as _

from ..failures.excerpt import type_and_message
from .text import clipped, portable

_LINE = 200  # characters of a message that a line shows


def line(error: dict[str, Any] | None, *, with_step: bool = True) -> str:
    """Why something failed: `send_email: SMTPServerDisconnected: Connection closed`; empty for None.

    `error` is what `run.error` and `step.error` give. `with_step=False` leaves out the step that it names.
    """
    if not error:
        return ""
    text = _line(str(error["type"]), str(error["message"]))
    return portable(f"{error['step']}: {text}") if with_step and error.get("step") else text


def line_of_start(start: str | None) -> str:
    """`Type: message`, from the first characters of a recorded failure that may be cut off anywhere."""
    return _line(*type_and_message(start)) if start else ""


def short_types(types: Iterable[str]) -> dict[str, str]:
    """By the dotted path of each class its name alone, or the path where others of them have the same name.

    >>> short_types(["shop.CardDeclined", "a.Timeout", "b.Timeout"])
    {'shop.CardDeclined': 'CardDeclined', 'a.Timeout': 'a.Timeout', 'b.Timeout': 'b.Timeout'}
    """
    names = {kind: kind.rpartition(".")[2] for kind in dict.fromkeys(types)}
    counts = Counter(names.values())
    return {
        kind: portable(name if counts[name] == 1 else kind) or _("unreadable record") for kind, name in names.items()
    }


def full(error: dict[str, Any]) -> list[str]:
    """The lines of the traceback, which ends with the type and the whole message; those two where there is none.

    Empty where `line` says it all.
    """
    traceback, message = str(error["traceback"]).rstrip(), str(error["message"])
    if not traceback and message == clipped(message, _LINE):
        return []
    return (traceback or f"{error['type']}: {message}").splitlines()


def _line(kind: str, message: str) -> str:
    if not kind:
        return _("unreadable record")
    name = kind.rpartition(".")[2]
    return portable(f"{name}: {clipped(message, _LINE)}" if message else name)
