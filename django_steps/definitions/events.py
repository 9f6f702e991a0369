"""What a wait says of the events that it takes, checked and made into a request."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from ..core import clock
from ..core.event import check_event_name
from ..core.names import check_name
from ..durations import Duration, to_microseconds
from .checked import check_datetime
from .inputs import DataclassInput, InputType, PydanticInput, SimpleInput
from .requests import MISSING, Names, WaitForEvent


def wait(
    names: Names,
    name: str | None,
    event_names: Sequence[str],
    *,
    timeout: Duration | None,
    until: datetime | None,
    default: Any = MISSING,
    type_: Any = None,
    is_any: bool = False,
) -> WaitForEvent:
    """What `wait_for_event()` or `wait_for_any_event()` asks for."""
    checked = tuple(dict.fromkeys(map(check_event_name, event_names)))
    name = check_name(checked[0] if name is None else name, "name of a wait", forbidden="#")
    if timeout is not None and until is not None:
        raise TypeError(f"Wait {name!r} takes timeout, a duration, or until, a datetime, not both.")
    return WaitForEvent(
        names.path(name),
        checked,
        timeout_us=None if timeout is None else to_microseconds(timeout),
        until_us=None if until is None else clock.to_microseconds(check_datetime(until, f"until of wait {name!r}")),
        default=default,
        type=None if type_ is None else type_of(type_),
        type_name=name_of_type(type_),
        is_any=is_any,
    )


def check_names(name: str, events: Any) -> Sequence[str]:
    """The names that `wait_for_any_event()` was given."""
    if isinstance(events, str) or not isinstance(events, Sequence):
        raise TypeError(
            f'Wait {name!r} takes a list of the names of events, as in ["paid", "expired"], got {events!r}.'
        )
    if not events:
        raise ValueError(f"Wait {name!r} takes the names of one event or more, got none.")
    return events


def type_of(type_: Any, mask: Collection[str] = ()) -> InputType:
    """How to validate the payload of an event of this type; the values of the keys in `mask` are in no message."""
    if not isinstance(type_, type):
        raise TypeError(f"type= of a wait takes a class, such as a dataclass or a pydantic model, got {type_!r}.")
    if hasattr(type_, "model_validate"):
        return PydanticInput(type_, mask)
    return DataclassInput(type_, mask) if dataclasses.is_dataclass(type_) else SimpleInput(type_)


def name_of_type(type_: Any) -> str | None:
    """How records name a class, so that others can find it again; None for one that they can't."""
    if not isinstance(type_, type) or "<" in type_.__qualname__:
        return None
    return f"{type_.__module__}:{type_.__qualname__}"
