"""The Celery app of W1s, as a project has it that has only said where the broker is."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from benchmarks.drivers import protocol

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")

app = Celery("benchmarks", broker=os.environ["BENCHMARK_PLAIN_BROKER"])


@app.task  # type: ignore[untyped-decorator]
def one_step(number: int, is_noted: bool) -> dict[str, Any]:
    """What the step of a run does; the first and the last ones note when."""
    if is_noted:
        protocol.note("task")
    return {"number": number, "ok": True}
