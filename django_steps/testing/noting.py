"""What fake steps note of a body: what it came to, with which arguments, and for how long it would have waited."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple


class Called(NamedTuple):
    """A step that was run, and the arguments of its `.run(…)`."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Slept(NamedTuple):
    """A sleep that was reached: for how long, or until when."""

    name: str
    duration: timedelta | None
    until: datetime | None


class Waited(NamedTuple):
    """A wait that was reached: for which events, and for how long or until when; neither is for good."""

    name: str
    events: tuple[str, ...]
    timeout: timedelta | None
    until: datetime | None


class Continued(NamedTuple):
    """What `continue_as_new()` returns, and the body with it: the input of the run that would go on."""

    input: Any


class Noting:
    """What both fake steps have: what was reached, and the check at the end."""

    __slots__ = ()

    names: list[str]
    calls: list[Called]
    sleeps: list[Slept]
    waits: list[Waited]
    _performer: Any

    def assert_all_run(self) -> None:
        """Raise `StepNotRun` if a step was defined and never run, `UnusedStub` for a stub that no step used, or an event that
        no wait took."""
        self._performer.check()
