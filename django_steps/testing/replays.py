"""`assert_replays()`: a history that is kept with a project's tests, or a run, still fits the workflow."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from django.db import router

from ..definitions.workflow import Workflow
from ..ledger import database
from ..models import WorkflowRun
from ..replaying import recordings
from ..replaying.recordings import Recording
from ..replaying.replays import replay
from .errors import NotRepeatable


def check(workflow: Workflow[Any, Any], recorded: WorkflowRun | str | PathLike[str]) -> None:
    """What `assert_replays()` does."""
    alias = router.db_for_write(WorkflowRun)
    recording = _recording(recorded, alias)
    verdict = replay(recording, alias, workflow)
    if not verdict.fits:
        problems = "".join(f"\n- {problem.text}" for problem in verdict.problems)
        raise NotRepeatable(f"{recording.name} does not fit {workflow.name!r}:{problems}")


def _recording(recorded: WorkflowRun | str | PathLike[str], alias: str) -> Recording:
    if not isinstance(recorded, WorkflowRun):
        return recordings.of_file(Path(recorded))
    return next(recordings.of_runs(database.connection_for(alias), iter([recorded])))
