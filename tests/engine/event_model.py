"""Events for the model tests: sending them in every way, and what has to hold of them whatever happens to the runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from itertools import chain
from typing import Any

from django.db import connections

from django_steps.ledger import events
from django_steps.models import WorkflowEvent, WorkflowRun

NAMES = ("a", "b")


class Mail:
    """What is sent to one run, which has a key. Each payload is a number of its own; one with the same id is not new."""

    def __init__(self, workflow: Any, run: WorkflowRun) -> None:
        self._workflow, self._run = workflow, run
        self.sent: dict[str, list[int]] = {name: [] for name in NAMES}
        self.count = 0

    def send(self, name: str, *, by_key: bool = False, again: bool = False, dies: bool = False) -> None:
        """Send an event; `again`: the last one once more. The sender `dies` after the commit."""
        if WorkflowRun.objects.get(pk=self._run.pk).status == "succeeded":
            return
        is_new = not again or self.count == 0
        self.count += is_new
        number = self.count
        if not is_new:
            name = next(name for name, numbers in self.sent.items() if number in numbers)
        with dying() if dies else living():
            # In another context than the body's, which may be on this thread.
            event = Context().run(self._send, name, number, by_key)
        assert event.created is is_new
        if is_new:
            self.sent[name].append(number)

    def _send(self, name: str, number: int, by_key: bool) -> Any:
        if by_key:
            return self._workflow.send_event(name, number, key=self._run.key, id=f"id-{number}")
        return WorkflowRun.objects.get(pk=self._run.pk).send_event(name, number, id=f"id-{number}")

    def check(self, *, in_order: bool = True) -> None:
        """Each event is there once, with the wait that has taken it, or none; no wait has taken two. `in_order`: none was taken
        before one of its name that was sent earlier."""
        found = list(WorkflowEvent.objects.filter(run=self._run).order_by("id"))
        assert sorted(event.payload for event in found) == sorted(chain.from_iterable(self.sent.values()))
        taken = {event.consumed_by: event.payload for event in found if event.is_consumed}
        assert len(taken) == sum(event.is_consumed for event in found), "a wait has taken two events"
        assert taken == dict(self.recorded())
        if not in_order:
            return
        for name in NAMES:
            order = [event.is_consumed for event in found if event.name == name]
            assert order == sorted(order, reverse=True), f"{name} was taken out of order: {order}"

    def recorded(self) -> Iterator[tuple[str, Any]]:
        """The waits that have taken an event, as they are recorded, with what they have got."""
        for record in self._run.steps.filter(kind="event", status="succeeded").order_by("position"):
            if not record.context.get("timed_out"):
                yield record.name, record.output


@contextmanager
def living() -> Iterator[None]:
    """As it is."""
    yield


@contextmanager
def dying() -> Iterator[None]:
    """Senders die after their commit in here, before they wake anybody."""
    tell = events.tell
    events.tell = lambda *given: None
    try:
        yield
    finally:
        events.tell = tell


def tell_untold() -> None:
    """What a worker's maintenance does."""
    place: int | None = 0
    while place is not None:
        _, place = events.tell_untold(connections["default"], place)


class Taken:
    """What a body has got in one pass: of each name the first that were sent, in order."""

    def __init__(self, mail: Mail) -> None:
        self._mail, self._counts = mail, Counter[str]()

    def got(self, name: str, payload: Any) -> None:
        expected = self._mail.sent[name][self._counts[name]]
        assert payload == expected, f"{payload} of {name} instead of {expected}"
        self._counts[name] += 1
