"""What a run carries of its trace, as text in its row: the span that its passes are children of, since when the trace lasts,
and the last pass. The spans are written as W3C Trace Context says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Self

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ...core import clock

# A run may go on for a year: a trace that does so is shown nowhere.
_LONGEST_US = 3_600_000_000
_MOST_STATE = 512  # characters of what vendors add to a context; W3C lets everybody leave out what is longer
_W3C = TraceContextTextMapPropagator()
_SINCE = contexts.create_key("django-steps-since")


@dataclass(frozen=True, slots=True)
class Carried:
    """The trace of a run: its passes are children of `parent`; it lasts since `since_us`; and `last` was the last pass."""

    parent: SpanContext
    since_us: int
    last: SpanContext | None = None

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """What a row holds; None where that is nothing, or nothing that can be read."""
        try:
            said: dict[str, Any] = json.loads(text or "{}")
            parent, last = _read(said), _read({"traceparent": said.get("last", "")})
            return None if parent is None else cls(parent, int(said["since_us"]), last)
        except (TypeError, ValueError, KeyError, AttributeError):
            return None

    @property
    def text(self) -> str:
        """What the row holds."""
        said: dict[str, Any] = {**_written(self.parent), "since_us": self.since_us}
        if self.last is not None and self.last != self.parent:
            said["last"] = _written(self.last)["traceparent"]
        return json.dumps(said, separators=(",", ":"))

    def is_over(self, now_us: int) -> bool:
        """Whether a pass that begins now belongs to a new trace."""
        return now_us - self.since_us > _LONGEST_US

    def after(self, last: SpanContext) -> Self:
        """The same trace after another pass."""
        return replace(self, last=last)

    def around(self, span: trace.Span) -> Context:
        """The context in which a span of this trace is the current one."""
        return contexts.set_value(_SINCE, self.since_us, trace.set_span_in_context(span, Context()))


def carried() -> str | None:
    """What a run carries that is started here and now: the current span; None outside of spans."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return None
    # Started by a run, it belongs to a trace that may last for a while by now.
    since_us: Any = contexts.get_value(_SINCE)
    return Carried(current, clock.host_time() if since_us is None else since_us).text


def _read(said: dict[str, str]) -> SpanContext | None:
    found = trace.get_current_span(_W3C.extract(said, Context())).get_span_context()
    return found if found.is_valid else None


def _written(span: SpanContext) -> dict[str, str]:
    said: dict[str, str] = {}
    _W3C.inject(said, trace.set_span_in_context(NonRecordingSpan(span), Context()))
    if len(said.get("tracestate", "")) > _MOST_STATE:
        del said["tracestate"]
    return said
