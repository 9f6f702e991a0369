"""What holds runs: the queues and workflows that somebody has paused, by whom, since when and why."""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext as _

from ..ledger import database
from ..ledger import pauses as ledger
from ..models import WorkflowPause, WorkflowRun
from . import durations
from .text import clipped

_Kind = WorkflowPause.Kind
_LONGEST_REASON = 200  # characters
_LONGEST_NAME = 60


def all_pauses(alias: str | None = None) -> list[WorkflowPause]:
    """The pauses of queues and workflows, the oldest first."""
    alias = alias or router.db_for_read(WorkflowPause)
    return list(WorkflowPause.objects.using(alias).order_by("since", "pk"))


def with_holds(runs: QuerySet[WorkflowRun]) -> Any:
    """These runs, so that `held()` asks nothing more of them."""
    pauses = WorkflowPause.objects.using(runs.db)
    return runs.annotate(
        is_queue_paused=Exists(pauses.filter(kind=_Kind.QUEUE, name=OuterRef("queue"))),
        is_workflow_paused=Exists(pauses.filter(kind=_Kind.WORKFLOW, name=OuterRef("workflow"))),
    )


def held(run: Any) -> str:
    """What holds a run that has not ended: `queue mail is paused`; empty if nothing does. One query, if it is not of
    `with_holds()`."""
    if run.is_finished or run.pause_exempt:
        return ""
    if not hasattr(run, "is_queue_paused"):
        paused = ledger.read(database.connection_for(run._state.db or router.db_for_read(WorkflowRun)))
        run.is_queue_paused = run.queue in paused.queues
        run.is_workflow_paused = run.workflow in paused.workflows
    parts = [
        _said(_Kind.QUEUE, run.queue) if run.is_queue_paused else "",
        _said(_Kind.WORKFLOW, run.workflow) if run.is_workflow_paused else "",
    ]
    return ", ".join(filter(None, parts))


def said(pause: WorkflowPause) -> str:
    """A pause in a sentence: `queue mail is paused`."""
    return _said(pause.kind, pause.name)


def _said(kind: str, name: str) -> str:
    text = _("queue %(name)s is paused") if kind == _Kind.QUEUE else _("workflow %(name)s is paused")
    return text % {"name": clipped(name, _LONGEST_NAME)}


def why(pause: WorkflowPause) -> str:
    """Since when, by whom and why: `since 2026-03-01 03:00:05, by eve: the provider is down`."""
    return ", ".join(filter(None, [since(pause), by(pause.by, pause.reason)]))


def since(pause: WorkflowPause) -> str:
    """`since 2026-03-01 03:00:05`."""
    return _("since %(moment)s") % {"moment": durations.moment(pause.since)}


def by(author: str, reason: str) -> str:
    """By whom, and why: `by eve: the provider is down`; empty if neither was said."""
    named = _("by %(author)s") % {"author": author} if author else ""
    return clipped(": ".join(filter(None, [named, reason])), _LONGEST_REASON)
