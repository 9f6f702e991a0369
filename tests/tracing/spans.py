"""Looking at the spans that an exporter got."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Seen(NamedTuple):
    """A span as it was exported, with the ids as they are shown."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str | None
    links: tuple[str, ...]
    status: str
    attributes: dict[str, Any]
    events: tuple[dict[str, Any], ...]
    has_ended: bool

    @property
    def outcome(self) -> str:
        """How the pass or the attempt ended."""
        found = [value for key, value in self.attributes.items() if key.endswith(".outcome")]
        return str(found[0]) if found else ""


def seen(span: ReadableSpan) -> Seen:
    """What to look at of a span."""
    own: Any = span.get_span_context()
    return Seen(
        span.name,
        span.kind.name,
        f"{own.trace_id:032x}",
        f"{own.span_id:016x}",
        None if span.parent is None else f"{span.parent.span_id:016x}",
        tuple(f"{link.context.span_id:016x}" for link in span.links),
        span.status.status_code.name,
        dict(span.attributes or {}),
        tuple({"name": event.name, **(event.attributes or {})} for event in span.events),
        span.end_time is not None and span.start_time is not None and span.end_time >= span.start_time,
    )


class Spans:
    """What was exported."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[Seen]:
        return [seen(span) for span in self._exporter.get_finished_spans()]

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> Seen:
        (span,) = self.named(name)
        return span

    def passes(self) -> list[Seen]:
        return [span for span in self.all() if span.kind == "CONSUMER"]

    def names(self) -> list[str]:
        return sorted(span.name for span in self.all())


def check_trees(spans: Sequence[Seen]) -> None:
    """Each span has ended, and those of each trace hang together: one of them has no parent, the others one that is there."""
    assert all(span.has_ended for span in spans)
    for trace in {span.trace for span in spans}:
        own = [span for span in spans if span.trace == trace]
        assert len([span for span in own if span.parent is None]) == 1, own
        assert {span.parent for span in own} - {None} <= {span.id for span in own}, own


def tree(spans: Iterable[Seen], of: Callable[[Seen], Any] = lambda span: span.name) -> dict[Any, Any]:
    """The names of the spans as they hang together."""
    spans = list(spans)

    def below(parent: str | None) -> list[Any]:
        found = [span for span in spans if span.parent == parent]
        return sorted(([of(span), below(span.id)] for span in found), key=str)

    return dict(below(None))
