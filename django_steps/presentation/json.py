"""Runs as plain JSON types, for `--json`. The keys are stable.

Values are those of `values.py`; whatever can't be read is a dict that says so. Text for people is in `runs.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..ledger.order import Place
from ..models import StepRecord, WorkflowRun
from . import runs, steps
from .text import portable
from .values import UNREADABLE, Mask, plain, unreadable

# In place of what can't be read.
_UNREADABLE_KEY = "unreadable"


def dumps(shown: Any, indent: int | None = 2, *, encoding: str | None = None) -> str:
    """JSON text that a stream of this encoding can carry; None is one of Unicode."""
    is_unicode = encoding is None or encoding.lower().startswith("utf")
    return portable(json.dumps(shown, indent=indent, ensure_ascii=not is_unicode))


def as_json(run: WorkflowRun) -> dict[str, Any]:
    """A run as plain JSON types; times are ISO 8601 text."""
    return {
        "id": str(run.pk),
        "workflow": run.workflow,
        "version": run.version,
        "queue": run.queue,
        "priority": run.priority,
        "key": run.key,
        "status": run.status,
        "attempts": run.attempts,
        "recoveries": runs.recovery_count(run),
        "current_step": run.current_step or None,
        "progress": None if run.progress_total is None else [run.progress_done, run.progress_total],
        "worker": str(run.worker) if run.worker else None,
        "created_at": _iso(run.created_at),
        "started_at": _iso(run.started_at),
        "finished_at": _iso(run.finished_at),
        "wakes_at": _iso(run.wakes_at),
        "cancel_reason": run.cancel_reason or None,
        "canceled_by": run.canceled_by or None,
        "restart_of": str(run.restart_of_id) if run.restart_of_id else None,
        "error": run.error,
    }


def as_detailed_json(run: WorkflowRun) -> dict[str, Any]:
    """A run as `as_json`, with `input`, `output`, `recovery_log` and `steps`."""
    mask = Mask.of(run)
    return as_json(run) | {
        "input": value(run.input_text, mask),
        "output": value(run.output_text, mask),
        "recovery_log": _guarded(lambda: [entry | {"at": _iso(entry["at"])} for entry in run.recovery_log]),
        "steps": [_step_as_json(run, record, mask) for record in run.steps.order_by("position")],
    }


def value(text: str | None, mask: Mask) -> Any:
    """A recorded value, masked; a dict with the key `unreadable` if it can't be read."""
    if text is None:
        return None
    try:
        return plain(text, mask)
    except UNREADABLE:
        return {_UNREADABLE_KEY: unreadable(text, mask)}


def _step_as_json(run: WorkflowRun, record: StepRecord, mask: Mask) -> dict[str, Any]:
    return {
        "name": record.name,
        "kind": record.kind,
        "branch": record.branch or None,
        "group": Place.read(record.name, 0, 0, record.context_text).group or None,
        "position": record.position,
        "status": steps.status_of(run, record),
        "attempts": record.attempts,
        "checks": record.checks,
        "started_at": _iso(record.started_at),
        "finished_at": _iso(steps.finished_at(run, record)),
        "wakes_at": _iso(record.wakes_at),
        "output": value(record.output_text, mask),
        "error": record.error,
        "earlier_attempts": _guarded(
            lambda: [
                entry | {"started_at": _iso(entry["started_at"]), "finished_at": _iso(entry["finished_at"])}
                for entry in record.earlier_attempts
            ]
        ),
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _guarded(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except UNREADABLE as error:
        return {_UNREADABLE_KEY: f"{type(error).__name__}: {error}"}
