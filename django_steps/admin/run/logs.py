"""The log lines on the page of a run: the last ones, and all of them if somebody asks."""

from __future__ import annotations

from typing import NamedTuple

from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import ngettext

from ...models import WorkflowLog, WorkflowRun
from ...presentation import logs
from .. import html

SHOWN = 100  # lines at first
ANCHOR = "steps-logs-title"
_FEW = 20  # lines that are unfolded at first


class Section(NamedTuple):
    """The lines of a run. `all_url`: where all are shown, if these are the last ones only."""

    counts: str
    lines: list[tuple[SafeString | str, WorkflowLog]]  # each with its time
    is_open: bool
    all_url: str


def section(request: HttpRequest, run: WorkflowRun) -> Section | None:
    """The lines of a run, one query; None where there are none."""
    is_all = "logs" in request.GET
    found = logs.of_run(run, None if is_all else SHOWN)
    if not found:
        return None
    total = found[-1].number
    return Section(
        counts=ngettext("%(count)s line", "%(count)s lines", total) % {"count": f"{total:,}"},
        lines=[(html.moment(line.at), line) for line in found],
        is_open=is_all or total <= _FEW,
        all_url="" if is_all or total <= len(found) else f"?logs=all#{ANCHOR}",
    )
