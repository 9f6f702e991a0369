"""Traces of worker processes: one of them dies. And what a project has that doesn't trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.app import effects
from tests.conftest import ROOT
from tests.staging import eventually, status_of
from tests.tracing.spans import Seen, check_trees, tree
from tests.tracing.workflows import traced_order

pytestmark = pytest.mark.django_db(transaction=True)


def read(path: Path) -> list[Seen]:
    """The spans in a file to which processes have exported them."""
    return [_seen(json.loads(line)) for line in path.read_text().splitlines()]


def _seen(span: dict[str, Any]) -> Seen:
    def plain(number: str) -> str:
        return number.removeprefix("0x")

    return Seen(
        name=span["name"],
        kind=span["kind"].removeprefix("SpanKind."),
        trace=plain(span["context"]["trace_id"]),
        id=plain(span["context"]["span_id"]),
        parent=span["parent_id"] and plain(span["parent_id"]),
        links=tuple(plain(link["context"]["span_id"]) for link in span["links"]),
        status=span["status"]["status_code"],
        attributes=span["attributes"],
        events=tuple(span["events"]),
        has_ended=bool(span["end_time"]),
    )


def test_run_whose_worker_dies_has_one_connected_trace(start_worker, spans, tracer, tmp_path):
    path = tmp_path / "spans.jsonl"
    environment = {"DJANGO_SETTINGS_MODULE": "tests.tracing.settings", "SPANS_FILE": str(path)}
    with tracer.start_as_current_span("POST /orders"):
        run = traced_order.start()
    first = start_worker("--lease", "1", "--concurrency", "2", environment=environment)
    assert first.wait() != 0
    start_worker("--lease", "1", "--concurrency", "2", environment=environment)
    eventually(lambda: status_of(run) == "succeeded", 30)
    eventually(lambda: [span for span in read(path) if span.name == "traced_order" and span.outcome == "succeeded"])
    found = [*spans.all(), *read(path)]
    check_trees(found)
    assert len({span.trace for span in found}) == 1
    of_first = ["charge", "charge", "pack/wrap", "pack/wrap", "pack/wrap", "reserve"]
    assert tree(found) == {
        "POST /orders": [
            # What the worker has executed in the pass in which it died is lost with that: the label.
            ["traced_order", [*([name, []] for name in of_first), ["traced_receipt", [["print", []]]]]],
            ["traced_order", [["deliver", []]]],
        ]
    }
    suspended, recovered = (span for span in found if span.name == "traced_order")
    assert (suspended.status, suspended.outcome, recovered.links) == ("UNSET", "suspended", (suspended.id,))
    assert [span.attributes["django_steps.run.recoveries"] for span in (suspended, recovered)] == [0, 1]
    charges = [(span.status, len(span.events)) for span in found if span.name == "charge"]
    assert charges == [("ERROR", 1), ("UNSET", 0)]
    assert (effects.count("reserve", run), effects.count("label", run), effects.count("deliver", run)) == (1, 1, 2)


def test_nothing_of_opentelemetry_is_imported_without_the_app():
    code = (
        "import django, sys; django.setup(); import django_steps.worker, django_steps.testing, django_steps.admin;"
        " print(sorted(name for name in sys.modules if 'opentelemetry' in name))"
    )
    assert _python(code, "tests.settings").stdout == "[]\n"


def test_app_without_the_package_says_what_to_install():
    code = (
        "import sys; sys.modules['opentelemetry'] = None; import django; from django.conf import settings;"
        "settings.configure(INSTALLED_APPS=['django_steps', 'django_steps.contrib.opentelemetry'],"
        "DATABASES={'default': {'ENGINE': 'django.db.backends.sqlite3'}}); django.setup()"
    )
    done = _python(code, "")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("django.core.exceptions.ImproperlyConfigured: django_steps.contrib.opentelemetry needs")
    assert last.endswith("pip install 'django-steps[opentelemetry]'")


def _python(code: str, settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": settings, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
