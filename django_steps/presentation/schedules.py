"""Schedules as people read them: when they fire, how their runs went, and why one doesn't fire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models import WorkflowRun, WorkflowSchedule
from . import cron


def when(schedule: WorkflowSchedule) -> str:
    """When it fires, in words: `every day at 02:30 (Europe/Berlin)`."""
    if schedule.every:
        return _("every %(duration)s") % {"duration": schedule.every}
    return _("%(times)s (%(zone)s)") % {"times": cron.in_words(schedule.cron), "zone": schedule.timezone}


def state(schedule: WorkflowSchedule) -> str:
    """Why it doesn't fire; empty where it does."""
    if schedule.is_disabled:
        return _("disabled: %(reason)s") % {"reason": schedule.disabled_reason}
    if not schedule.is_paused:
        return ""
    by = _(" by %(who)s") % {"who": schedule.paused_by} if schedule.paused_by else ""
    return _("paused%(by)s%(reason)s") % {
        "by": by,
        "reason": f": {schedule.pause_reason}" if schedule.pause_reason else "",
    }


def tags(schedule: WorkflowSchedule) -> list[tuple[str, str]]:
    """The tags of its runs; none where the row is damaged."""
    return sorted(schedule.tags.items()) if isinstance(schedule.tags, dict) else []


def skipped(schedule: WorkflowSchedule) -> str:
    """How often it has left a time out, and why: `3 (2 overlap, 1 missed)`; empty for never."""
    counts = schedule.skipped["counts"]
    if not counts:
        return ""
    reasons = ", ".join(f"{count} {reason_text(reason)}" for reason, count in sorted(counts.items()))
    total = sum(counts.values())
    return ngettext("%(count)d skipped: %(reasons)s", "%(count)d skipped: %(reasons)s", total) % {
        "count": total,
        "reasons": reasons,
    }


def reason_text(reason: str) -> str:
    """Why a time was left out."""
    texts = {"overlap": _("while a run was active"), "missed": _("with no worker there")}
    return texts.get(reason, reason)


def last_runs(schedules: Sequence[WorkflowSchedule], alias: str) -> dict[int, WorkflowRun]:
    """The runs that these schedules have started last, as far as they are not deleted, by the ids of the schedules."""
    ids: dict[UUID, int] = {s.last_run_id: s.pk for s in schedules if s.last_run_id is not None}
    runs = WorkflowRun.objects.using(alias).only("id", "status", "started_at", "finished_at").in_bulk(list(ids))
    return {ids[run_id]: run for run_id, run in runs.items()}


def as_json(schedule: WorkflowSchedule, last: WorkflowRun | None) -> dict[str, Any]:
    """A schedule as plain JSON types; times are ISO 8601 text. The keys are stable."""
    said = schedule.skipped
    return {
        "name": schedule.name,
        "source": schedule.source,
        "workflow": schedule.workflow,
        "version": schedule.version,
        "cron": schedule.cron or None,
        "every": schedule.every or None,
        "timezone": schedule.timezone or None,
        "spread": schedule.spread or None,
        "overlap": schedule.overlap,
        "missed": schedule.missed,
        "pause_after": schedule.pause_after,
        "queue": schedule.queue,
        "priority": schedule.priority,
        "tags": schedule.tags,
        "next_at": _iso(schedule.next_at),
        "next_times": [_iso(moment) for moment in next_times(schedule)],
        "paused_at": _iso(schedule.paused_at),
        "paused_by": schedule.paused_by or None,
        "pause_reason": schedule.pause_reason or None,
        "disabled_reason": schedule.disabled_reason or None,
        "last_slot": _iso(schedule.last_slot),
        "last_run": None if last is None else {"id": str(last.pk), "status": last.status},
        "skipped": {
            "counts": said["counts"],
            "since": _iso(said["since"]),
            "last": [{"slot": _iso(skip["slot"]), "reason": skip["reason"]} for skip in said["last"]],
        },
    }


def next_times(schedule: WorkflowSchedule, count: int = 5) -> list[Any]:
    """Its next times in its zone; none for a row that is damaged."""
    try:
        return schedule.next_times(count)
    except (TypeError, ValueError):
        return []


def _iso(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat()
