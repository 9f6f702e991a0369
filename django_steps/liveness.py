"""Which workers are alive, and whether one of them would take a run.

It only looks. What becomes of the runs of a dead worker is in `ledger/takeovers.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext as _

from .ledger import sql
from .ledger.terms import Kind

if TYPE_CHECKING:
    from .models import Worker, WorkflowRun

# A worker that has not been heard of for so many of its leases counts as dead.
LIVE_WITHIN_LEASES = 3


def live_workers(connection: BaseDatabaseWrapper) -> list[Worker]:
    """The workers that have not stopped and were heard of within three of their leases."""
    now = sql.read_clock(connection)
    rows: Any = apps.get_model("django_steps", "Worker")._default_manager  # the models import what waits for runs
    candidates: Iterable[Worker] = rows.using(connection.alias).filter(stopped_at=None).order_by("pk")
    return [worker for worker in candidates if worker.last_seen > now - LIVE_WITHIN_LEASES * worker.lease]


def is_served(queue: str, workers: Iterable[Worker]) -> bool:
    """Whether one of these workers takes runs from a queue."""
    return any(_serves(worker, queue) for worker in workers)


def known_kinds(workers: Iterable[Worker]) -> set[Kind]:
    """The workflows, with their versions, that at least one of these workers knows."""
    return {(name, version) for worker in workers for name, version in worker.workflows}


def kind_text(name: str, version: str) -> str:
    """A workflow as sentences name it: `'nightly'`, or `'nightly' version '2'`."""
    return _("%(name)s version %(version)r") % {"name": repr(name), "version": version} if version else repr(name)


def why_nobody_takes(connection: BaseDatabaseWrapper, run: WorkflowRun) -> str | None:
    """Why no live worker would take a run, as a sentence; None if one would, or has it."""
    workers = live_workers(connection)
    if not workers:
        return _("No worker is running.")
    serving = [worker for worker in workers if _serves(worker, run.queue)]
    if not serving:
        return _("No live worker serves the queue %(queue)r.") % {"queue": run.queue}
    if (run.workflow, run.version) not in known_kinds(serving):
        text = _("No live worker of the queue %(queue)r knows the workflow %(kind)s.")
        return text % {"queue": run.queue, "kind": kind_text(run.workflow, run.version)}
    return None


def _serves(worker: Worker, queue: str) -> bool:
    return not worker.queues or queue in worker.queues
