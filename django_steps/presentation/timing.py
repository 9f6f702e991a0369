"""How long a run may last or wait to begin, and what has lasted too long."""

from __future__ import annotations

from django.utils.translation import gettext as _

from ..durations import to_text
from ..models import WorkflowRun
from . import durations
from .text import clipped

_LONGEST_NAME = 100


def timeout(run: WorkflowRun) -> str:
    """The timeout of a run, and when it is over: `2h, until 2026-03-01 03:00:05`; empty for none."""
    if run.timeout is None:
        return ""
    return _text(to_text(run.timeout), run, is_counted=run.attempting_since_us is not None)


def start_within(run: WorkflowRun) -> str:
    """How long a run may wait to begin, and until when that is; empty for one that has begun."""
    if run.start_within is None or run.started_at is not None:
        return ""
    return _text(to_text(run.start_within), run, is_counted=True)


def _text(length: str, run: WorkflowRun, *, is_counted: bool) -> str:
    if not is_counted or run.expires_at is None:
        return length
    return _("%(length)s, until %(moment)s") % {"length": length, "moment": durations.moment(run.expires_at)}


def overdue(run: WorkflowRun) -> str:
    """Which step has lasted longer than its timeout, in a line; empty for none."""
    said = run.overdue
    if said is None:
        return ""
    text = _("Step “%(step)s” is overdue since %(moment)s, and can't be interrupted. It was here then:")
    return text % {"step": clipped(str(said["step"]), _LONGEST_NAME), "moment": durations.moment(said["since"])}


def stack(run: WorkflowRun) -> str:
    """Where that step was then; empty for none."""
    return "" if run.overdue is None else str(run.overdue["stack"])
