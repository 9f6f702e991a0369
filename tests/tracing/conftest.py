"""Tracing in this process, by OpenTelemetry's SDK, with the spans in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from django_steps.contrib.opentelemetry.carrier import carried
from django_steps.contrib.opentelemetry.tracing import Tracing
from django_steps.core import traces
from django_steps.engine.interceptors import everywhere
from tests.tracing.spans import Spans


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Iterator[Tracer]:
    """A tracer of the project, while runs are traced."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    everywhere.append(Tracing(provider.get_tracer("django_steps")))
    traces.carry_by(carried)
    yield provider.get_tracer("tests")
    traces.carry_by(None)
    everywhere.clear()


@pytest.fixture
def spans(tracer: Tracer, exporter: InMemorySpanExporter) -> Spans:
    """What was exported, while runs are traced."""
    return Spans(exporter)
