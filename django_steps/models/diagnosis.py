"""Which workers are alive, whether one of them would take a run, and what to do if none would.

It only looks. What becomes of the runs of a dead worker is in `ledger/recovery.py`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext as _

from ..ledger import database, pauses
from ..ledger.terms import Kind
from ..ledger.workers import read_kinds
from .columns import RunColumns
from .worker import Worker

# A worker that has not been heard of for so many of its leases counts as dead.
_LIVE_WITHIN_LEASES = 3


class Unclaimed(NamedTuple):
    """Why no worker takes a run, and what to do about it, a sentence each; what to type for that, or nothing."""

    reason: str
    advice: str
    command: str = ""

    def text(self, manage: str = "manage.py") -> str:
        """All of it in a line, for somebody who calls Django as `manage`."""
        said = f"{self.reason} {self.advice}"
        return f"{said}   {manage} {self.command}" if self.command else said


def is_alive(worker: Worker, now: int) -> bool:
    """Whether a worker that has not stopped was heard of within three of its leases; `now` is machine time."""
    return worker.last_seen_us > now - _LIVE_WITHIN_LEASES * worker.lease_us


def live_workers(connection: BaseDatabaseWrapper) -> list[Worker]:
    """The workers that claim runs, have not stopped and are alive."""
    now = database.read_clock(connection)
    candidates = Worker.objects.using(connection.alias).filter(stopped_at=None, claims=True).order_by("pk")
    return [worker for worker in candidates if is_alive(worker, now)]


def is_served(queue: str, workers: Iterable[Worker]) -> bool:
    """Whether one of these workers takes runs from a queue."""
    return any(_serves(worker, queue) for worker in workers)


def known_kinds(workers: Iterable[Worker]) -> set[Kind]:
    """The workflows, with their versions, that at least one of these workers knows."""
    return {kind for worker in workers for kind in read_kinds(worker.workflows)}


def kind_text(name: str, version: str) -> str:
    """A workflow as sentences name it: `'nightly'`, or `'nightly' version '2'`."""
    return _("%(name)s version %(version)r") % {"name": repr(name), "version": version} if version else repr(name)


def version_text(version: str) -> str:
    """A version as sentences name it: `in version '2'`, or `without a version`."""
    return _("in version %(version)r") % {"version": version} if version else _("without a version")


def versions_known(name: str, known: Iterable[Kind]) -> str:
    """The versions of a workflow that workers know, as a sentence names them; empty if they don't know the workflow."""
    return ", ".join(version_text(version) for other, version in sorted(known) if other == name)


def no_worker() -> Unclaimed:
    """What is said where no worker is alive."""
    return Unclaimed(_("No worker is running."), _("Start one with:"), "runworkflows")


def why_unclaimed(connection: BaseDatabaseWrapper, run: RunColumns) -> Unclaimed | None:
    """Why no live worker would take a run; None if one would, or has it."""
    workers = live_workers(connection)
    if not workers:
        return no_worker()
    if (held := _paused(connection, run)) is not None:
        return held
    serving = [worker for worker in workers if _serves(worker, run.queue)]
    if not serving:
        return Unclaimed(
            _("No live worker serves the queue %(queue)r.") % {"queue": run.queue},
            _("Add this queue to one with --queue, or start one with:"),
            f"runworkflows --queue {shlex.quote(run.queue)}",
        )
    known = known_kinds(serving)
    if (run.workflow, run.version) not in known:
        if versions := versions_known(run.workflow, known):
            text = _(
                "No live worker of the queue %(queue)r knows the workflow %(name)r %(version)s, only %(versions)s."
            )
            named = {"queue": run.queue, "name": run.workflow, "version": version_text(run.version)}
            return Unclaimed(
                text % {**named, "versions": versions},
                _("Deploy its code to the workers, or start one that has it."),
            )
        text = _("No live worker of the queue %(queue)r knows the workflow %(kind)s.")
        return Unclaimed(
            text % {"queue": run.queue, "kind": kind_text(run.workflow, run.version)},
            _("Deploy its code to the workers, or start one that has it."),
        )
    return None


def _paused(connection: BaseDatabaseWrapper, run: RunColumns) -> Unclaimed | None:
    """What is said where somebody has paused the run, its queue or its workflow."""
    if run.status == run.Status.PAUSED:
        return Unclaimed(_("The run is paused."), _("Resume it with:"), f"resumeworkflows {run.pk}")
    paused = pauses.read(connection)
    if run.pause_exempt or not paused.holds(run.queue, run.workflow):
        return None
    if run.queue in paused.queues:
        option = f"--queue {shlex.quote(run.queue)}"
        return Unclaimed(
            _("The queue %(queue)r is paused.") % {"queue": run.queue},
            _("Resume it with:"),
            f"resumeworkflows {option}",
        )
    option = f"--workflow {shlex.quote(run.workflow)}"
    return Unclaimed(
        _("The workflow %(name)r is paused.") % {"name": run.workflow},
        _("Resume it with:"),
        f"resumeworkflows {option}",
    )


def _serves(worker: Worker, queue: str) -> bool:
    queues = worker.queues
    return not queues or (isinstance(queues, list) and queue in queues)
