"""What a new run carries of the trace in which it is started: nothing, unless an app that traces says what.

It is text in a column of the run. What it means is known to that app only.
"""

from __future__ import annotations

from collections.abc import Callable

_carry: Callable[[], str | None] | None = None


def carry_by(carry: Callable[[], str | None] | None) -> None:
    """Let each run that this process starts from now on carry what `carry` returns where it is started; None: nothing."""
    global _carry
    _carry = carry


def carried() -> str | None:
    """What a run carries that is started here and now."""
    return None if _carry is None else _carry()
