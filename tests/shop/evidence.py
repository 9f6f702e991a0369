"""How the tests execute runs, and how they count what was executed: by the shop's own log, not by what is recorded."""

from __future__ import annotations

import time
from collections import Counter

from django.core.management import call_command

from django_steps.models import WorkflowRun
from testproject.shop.models import Activity


def work(*runs: WorkflowRun, timeout: float = 20) -> None:
    """Runs the real worker until the runs have ended (without runs: until nothing is due), and refreshes them."""
    deadline = time.monotonic() + timeout
    call_command("runworkflows", until_idle=True, verbosity=0)
    while unfinished := [run for run in runs if not _is_finished(run)]:
        assert time.monotonic() < deadline, f"not finished after {timeout} s: {unfinished}"
        call_command("runworkflows", until_idle=True, verbosity=0)


def executions(run: WorkflowRun) -> dict[str, int]:
    """How often each step of the run was executed, also in vain."""
    return dict(Counter(Activity.objects.filter(run_id=run.pk).values_list("step", flat=True)))


def recorded(run: WorkflowRun) -> dict[str, str]:
    """What is recorded: the status of each step, in the order in which they were reached."""
    return {step.name: step.status for step in run.steps.all()}


def _is_finished(run: WorkflowRun) -> bool:
    run.refresh_from_db()
    return run.is_finished
