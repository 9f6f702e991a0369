"""Runs as plain JSON types, for `--json`. The keys are stable.

Values are those of `values.py`; whatever can't be read is a dict that says so. Text for people is in `runs.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..core.limit import shown
from ..ledger import contexts
from ..ledger.order import Place
from ..models import StepRecord, WorkflowRun
from . import children, events, limits, runs, steps
from .text import portable
from .values import UNREADABLE, Mask, masked, plain, unreadable
from .waits import FOR_OTHERS

# What a history says of each record, by the names that replays know, and the fields of the model.
RECORDED = {
    "name": "name",
    "kind": "kind",
    "position": "position",
    "after": "after",
    "status": "status",
    "attempts": "attempts",
    "output": "output_text",
    "error": "error_text",
    "attempt_log": "attempt_log",
    "wakes_at_us": "wakes_at_us",
    "branch": "branch",
    "context": "context_text",
    "arguments": "arguments",
}
# In place of what can't be read.
_UNREADABLE_KEY = "unreadable"
_EVENTS = 100
_ANY_SIZE = 1 << 30


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
        "active_key": run.active_key,
        "schedule": run.schedule,
        "scheduled_for": _iso(run.scheduled_for),
        "tags": run.tags,
        "about": run.about_text or None,
        "limits": limits.names_of(run),
        "waits_for_limit": shown(run.line_key) if run.line_key else None,
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
        "timeout": None if run.timeout is None else run.timeout.total_seconds(),
        "start_within": None if run.start_within is None else run.start_within.total_seconds(),
        "expires_at": _iso(run.expires_at),
        "waiting_for": run.waiting_for,
        "cancel_reason": run.cancel_reason or None,
        "canceled_by": run.canceled_by or None,
        "pause_reason": run.pause_reason or None,
        "paused_by": run.paused_by or None,
        "paused_at": _iso(run.paused_at),
        "restart_of": str(run.restart_of_id) if run.restart_of_id else None,
        "parent": str(run.parent_id) if run.parent_id else None,
        "parent_step": children.path_of(run) or None,
        "continued_as": str(run.continued_as_id) if run.continued_as_id else None,
        "error": run.error,
    }


def as_detailed_json(run: WorkflowRun) -> dict[str, Any]:
    """A run as `as_json`, with `input`, `output`, `details`, `recovery_log`, `steps`, its newest `events`, how many `children`
    it has by status, the run that it `continues`, and the `history` for replays."""
    mask = Mask.of(run)
    around = events.around(run)
    sent = events.of_run(run, 0, _EVENTS, _ANY_SIZE) if around.events else []
    return as_json(run) | {
        "input": value(run.input_text, mask),
        "output": value(run.output_text, mask),
        "details": value(run.details_text or "{}", mask),
        "overdue": _overdue(run),
        "recovery_log": _guarded(lambda: [entry | {"at": _iso(entry["at"])} for entry in run.recovery_log]),
        "steps": [_step_as_json(run, record, mask) for record in run.steps.order_by("position", "pk")],
        "events": [_event_as_json(event, mask) for event in sent],
        "children": children.sorted_counts(around.children),
        "continues": str(around.continues) if around.continues else None,
        "history": _history(run, mask),
    }


def _history(run: WorkflowRun, mask: Mask) -> dict[str, Any]:
    """What `replayworkflows` takes for the run: its input and its records as they are written, but for what is masked."""
    records = run.steps.order_by("position", "pk").values_list(*RECORDED.values())
    return {
        "input": _guarded(lambda: masked(run.input_text, mask)),
        "records": [_record_as_json(dict(zip(RECORDED, row, strict=True)), mask) for row in records],
    }


def _record_as_json(record: dict[str, Any], mask: Mask) -> dict[str, Any]:
    """A record without what is masked: a checkpoint may hold anything, and a placeholder is another argument."""
    output, details = record["output"], contexts.read(record["context"])
    return record | {
        "output": None if output is None else _guarded(lambda: masked(output, mask)),
        "context": contexts.write({**details, "checkpoint": None}),
        "arguments": None if mask.hides_anything else record["arguments"],
    }


def _event_as_json(event: Any, mask: Mask) -> dict[str, Any]:
    return {
        "name": event.name,
        "payload": value(event.shown_payload, mask),
        "id": event.event_id,
        "by": event.by or None,
        "sent_at": _iso(event.sent_at),
        "taken_by": event.consumed_by,
        "taken_at": _iso(event.consumed_at),
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
        "timed_out": record.timed_out,
        "unreached": record.is_unreached,
        "changed_arguments": record.has_changed_arguments,
        "child": str(child) if (child := steps.child_id(record)) else None,
        "started_at": _iso(record.started_at),
        "finished_at": _iso(steps.finished_at(run, record)),
        "wakes_at": _iso(steps.wakes_at(record) if record.kind in FOR_OTHERS else record.wakes_at),
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


def _overdue(run: WorkflowRun) -> dict[str, Any] | None:
    said = run.overdue
    return None if said is None else said | {"since": _iso(said["since"])}


def _guarded(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except UNREADABLE as error:
        return {_UNREADABLE_KEY: f"{type(error).__name__}: {error}"}
