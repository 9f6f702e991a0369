"""HTML of what `presentation` says: the parts that several pages show."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.utils.html import format_html
from django.utils.safestring import SafeString

from ..models import WorkflowRun
from ..presentation import durations, runs, steps

NOTHING = "-"  # in place of a time or duration that isn't known


def status_word(status: str) -> SafeString:
    """A status, of a run or a step, as a coloured word."""
    return format_html('<span class="steps-status steps-status-{}">{}</span>', status, steps.label_of(status))


def moment(value: datetime | None) -> SafeString | str:
    """A time to the second, with what machines read beside it."""
    if value is None:
        return NOTHING
    day, time = durations.moment(value).split()
    return format_html(
        '<time class="steps-moment" datetime="{}"><span>{}</span> <span>{}</span></time>', value.isoformat(), day, time
    )


def duration(value: Any) -> str:
    """A duration, or a dash where it isn't known."""
    return durations.duration(value) or NOTHING


def progress_bar(run: WorkflowRun) -> SafeString | str:
    """How far the body said it is; empty if it said nothing."""
    label = runs.progress(run)
    if not label:
        return ""
    return format_html(
        '<progress class="steps-progress" value="{}" max="{}" aria-label="{}"></progress> <span>{}</span>',
        f"{run.progress_done}",
        f"{run.progress_total}",
        label,
        label,
    )


def query(**parameters: Any) -> str:
    """The parameters as they stand behind the `?` of an address."""
    return urlencode(parameters)
