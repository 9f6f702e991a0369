"""An event as users make and get it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .names import check_name

if TYPE_CHECKING:
    import typing_extensions

    R = typing_extensions.TypeVar("R", covariant=True, default=Any)
else:
    R = TypeVar("R", covariant=True)


class Event(Generic[R]):
    """An event for a run: what `send_event()` returns, `wait_for_any_event()` gives, and `start(event=)` takes.

    - `name`: text, at most 255 characters without `#`; `payload`: anything that can be recorded.
    - `id`: text or None, the sender's own: sent twice it is one event. `by`: text, who sends it, for people.
    - `sent_at`: a datetime once it is sent. `created`: whether this call has sent it; False: its id had been sent before.

    >>> Event("paid", {"amount": 5}, id="evt_1")
    Event('paid', {'amount': 5}, id='evt_1')
    """

    sent_at: datetime | None = None
    created: bool = True

    def __init__(self, name: str, payload: Any = None, *, id: str | None = None, by: str = "") -> None:
        self.name = check_event_name(name)
        self.payload: R = payload
        self.id = None if id is None else check_name(id, "event id")
        if not isinstance(by, str):
            raise TypeError(f"by of an event takes text, such as str(request.user), got {by!r}.")
        self.by = by

    def __repr__(self) -> str:
        id_ = "" if self.id is None else f", id={self.id!r}"
        by = f", by={self.by!r}" if self.by else ""
        return f"Event({self.name!r}, {self.payload!r}{id_}{by})"


def check_event_name(name: Any) -> str:
    """Raise `InvalidName` or `TypeError` for what can be no event's name."""
    return check_name(name, "event name", forbidden="#")
