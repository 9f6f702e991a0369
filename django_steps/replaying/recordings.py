"""What is replayed: a run with its input and its records, from the database or from a file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from .. import failures
from ..core import clock, tags
from ..core.states import Status
from ..errors import StepsError
from ..ledger import histories
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from ..models import WorkflowRun

_AT_ONCE = 200  # runs whose records are loaded by one query
_ADDED = {column.name for column in fields(Recorded) if column.default is not MISSING}  # what a record need not have
_COLUMNS = tuple(column.name for column in fields(Recorded) if column.name != "is_long")


@dataclass(slots=True)
class Recording:
    """A run as it is replayed. `name`: how messages call it; `known`: fields of the run that its row need not be asked for."""

    name: str
    run_id: UUID
    workflow: str
    version: str
    status: str
    input: str
    records: Sequence[Recorded]
    error_type: str = ""
    queue: str = ""
    attempts: int = 1
    recoveries: int = 0
    started_at: int | None = None  # microseconds
    tags: str = ""
    details: str = ""
    known: Mapping[str, Any] = field(default_factory=dict)

    def claim(self) -> Claim:
        """What a pass takes for a claim of the run. Nobody holds it."""
        now = clock.host_time()
        return Claim(
            run_id=self.run_id,
            token=0,
            workflow=self.workflow,
            version=self.version,
            queue=self.queue,
            input=self.input,
            attempts=self.attempts,
            recoveries=self.recoveries,
            generation=0,
            has_history=bool(self.records),
            is_first=not self.records,
            worker_id=0,
            started_at=self.started_at or now,
            attempting_since=self.started_at or now,
            checkpoint="",
            parent=None,
            depth=0,
            details=self.details,
            timeout=None,
            expires_at=None,
            begin_by=None,
            is_new_attempt=False,
            is_undoing=False,
            tags=self.tags,
            claimed_at=now,
            claimed_on=time.monotonic(),
            held_until=time.monotonic() + 10**9,
        )


def of_runs(connection: BaseDatabaseWrapper, runs: Iterator[WorkflowRun]) -> Iterator[Recording]:
    """The recordings of runs, a few hundred at a time."""
    while some := list(islice(runs, _AT_ONCE)):
        found = histories.load(connection, {run.pk: -1 for run in some})
        for run in some:
            records = found[run.pk] if run.pk in found else histories.load(connection, {run.pk: -1})[run.pk]
            yield Recording(
                name=str(run.pk),
                run_id=run.pk,
                workflow=run.workflow,
                version=run.version,
                status=run.status,
                input=run.input_text,
                records=records,
                error_type=failures.type_of(run.error_text) if run.error_text else "",
                queue=run.queue,
                attempts=run.attempts,
                recoveries=run.recoveries,
                started_at=None if run.started_at is None else clock.to_microseconds(run.started_at),
                tags=run.tags_text,
                details=run.details_text,
            )


def of_file(path: Path) -> Recording:
    """The recording in a file that `showworkflows RUN --json` has written; `StepsError` if it is none."""
    try:
        said = json.loads(path.read_text())
    except OSError as error:
        raise StepsError(f"{path} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise StepsError(f"{path} is no JSON: {error}.") from error
    try:
        return _of_json(str(path), said)
    except (KeyError, TypeError, ValueError) as error:
        raise StepsError(
            f"{path} holds no run with its history. Write it by: manage.py showworkflows RUN --json > {path.name}"
        ) from error


def _of_json(name: str, said: Any) -> Recording:
    history = said["history"]
    error = said["error"]
    return Recording(
        name=name,
        run_id=UUID(said["id"]),
        workflow=said["workflow"],
        version=said["version"],
        status=said["status"],
        input=history["input"],
        records=[_recorded(record) for record in history["records"]],
        error_type=error["type"] if error else "",
        queue=said["queue"],
        attempts=said["attempts"],
        recoveries=said["recoveries"],
        started_at=None
        if said["started_at"] is None
        else clock.to_microseconds(datetime.fromisoformat(said["started_at"])),
        tags=tags.as_text(said["tags"]),
        known=_known(said),
    )


def _recorded(said: Mapping[str, Any]) -> Recorded:
    """A record of a file, which may be of a version that knew fewer columns."""
    return Recorded(**{column: said[column] for column in _COLUMNS if column in said or column not in _ADDED})


def _known(said: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: said[name] for name in ("key", "active_key", "priority")}
    known |= {name: _moment(said[name]) for name in ("created_at", "finished_at", "scheduled_for")}
    return known | {"status": Status.RUNNING}


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
