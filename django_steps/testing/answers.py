"""The events that a test gives by `events=`: what answers waits, by the names of the events, and which of it was taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from ..core.event import Event, check_event_name
from .errors import UnusedStub
from .stubs import misspelled

_SHOWN = 50


class Answers:
    """The events of one call of the kit. Each run gets each of them once, as its waits ask for them."""

    def __init__(self, events: Mapping[str, Any] | None) -> None:
        if events is not None and not isinstance(events, Mapping):
            raise TypeError(
                f'events takes a dict by names of events, as in events={{"approval": {{"ok": True}}}}, got {events!r}.'
            )
        self._events = {check_event_name(name): _events_of(name, given) for name, given in (events or {}).items()}
        self._given: Counter[tuple[Any, str]] = Counter()  # by run and name
        self._ids: set[tuple[Any, str | None]] = set()
        self._waited: dict[str, None] = {}
        self._unanswered: dict[str, None] = {}

    def __bool__(self) -> bool:
        return any(self._events.values())

    def all(self) -> Iterable[Event[Any]]:
        """All events that are given."""
        return (event for events in self._events.values() for event in events)

    def next_for(self, run: Any, names: Collection[str]) -> Event[Any] | None:
        """The next event for a wait of a run, which is any value that stands for it, and takes one of these names."""
        self._waited.update(dict.fromkeys(names))
        for name in self._events:
            event = self._next_of(run, name) if name in names else None
            if event is not None:
                return Event(event.name, event.payload, id=event.id, by=event.by)
        self._unanswered.update(dict.fromkeys(names))
        return None

    def _next_of(self, run: Any, name: str) -> Event[Any] | None:
        for event in self._events[name][self._given[run, name] :]:
            self._given[run, name] += 1
            if event.id is None or (run, event.id) not in self._ids:
                self._ids.add((run, event.id))
                return event  # else it is one that came twice
        return None

    def has(self, name: str) -> bool:
        """Whether events of this name are given, also where all of them are taken."""
        return name in self._events

    def hint(self, name: str) -> str:
        """What may be wrong with what was given, where a wait for an event of this name is not answered; a sentence, or
        nothing."""
        if self._events.get(name):
            number = len(self._events[name])
            return f" events= gives it {_times(number)}, and its wait came {_times(number + 1)}: give a list of {number + 1}."
        meant = misspelled(name, (given for given in self._events if not self._most_given(given)))
        return f" Did you mean it by {meant!r} in events=?" if meant is not None else ""

    def check_used(self, reached: Mapping[str, str]) -> None:
        """Raise `UnusedStub` if an event was not taken; `reached` are the names of all that there was, with their kinds where
        these are known."""
        for name, events in self._events.items():
            taken = self._most_given(name)
            if not taken and events:
                raise UnusedStub(f"No wait took the event {name!r} of events=. {self._advice(name, reached)}")
            if taken < len(events):
                raise UnusedStub(
                    f"events= gives {name!r} {_times(len(events))}, and no run waited for it more than {_times(taken)}."
                )

    def check_spelling(self) -> None:
        """Raise `UnusedStub` if no wait took an event, and there was one for nearly its name that nothing answered."""
        for name, events in self._events.items():
            meant = misspelled(name, self._unanswered) if events and not self._most_given(name) else None
            if meant is not None:
                raise UnusedStub(
                    f"No wait took the event {name!r} of events=, and the wait for {meant!r} was not answered. If it is not"
                    f" {meant!r} that is meant, but an event that was not waited for, leave it out."
                )

    def _most_given(self, name: str) -> int:
        return max((number for (_, given), number in self._given.items() if given == name), default=0)

    def _advice(self, name: str, reached: Mapping[str, str]) -> str:
        if reached.get(name, "event") != "event":
            return f"{name!r} is a step: give what takes its place by stubs=."
        if not self._waited:
            return "No run has waited for an event."
        similar = get_close_matches(name, self._waited, n=1)
        meant = f"Did you mean {similar[0]!r}? " if similar else ""
        return f"{meant}The events that were waited for: {', '.join(map(repr, list(self._waited)[:_SHOWN]))}."


def _events_of(name: str, given: Any) -> list[Event[Any]]:
    """What is given for a name, as events: a payload or an `Event`, or a list of these."""
    return [_event_of(name, one) for one in (given if isinstance(given, list) else [given])]


def _event_of(name: str, given: Any) -> Event[Any]:
    if isinstance(given, Event):
        if given.name != name:
            raise ValueError(f"events= has the event {given.name!r} under the name {name!r}.")
        return given
    if callable(given) or isinstance(given, BaseException):
        raise TypeError(
            f"events= takes payloads, as send_event() does, or Event objects, got {given!r} for {name!r}. To let a wait time"
            " out, leave its event out."
        )
    return Event(name, given)


def _times(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")
