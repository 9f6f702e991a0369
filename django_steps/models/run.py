"""The table of runs: its indexes, and the class that users see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .controls import R, RunControls
from .fields import PartialIndex
from .querysets import WorkflowRunQuerySet

if TYPE_CHECKING:
    from django.db.models.fields.related_descriptors import RelatedManager

    from .step import StepRecord


class WorkflowRun(RunControls[R]):
    """One run of a workflow. Made by `start()`, changed by its controls: `retry()`, `cancel()`, `restart()`."""

    if TYPE_CHECKING:
        objects: ClassVar[WorkflowRunQuerySet[WorkflowRun[Any]]]
        steps: RelatedManager[StepRecord]
        restarts: RelatedManager[WorkflowRun[Any]]
    else:
        objects = WorkflowRunQuerySet.as_manager()

    class Meta:
        verbose_name = _("workflow run")
        verbose_name_plural = _("workflow runs")
        default_permissions = ("view", "add", "delete")
        permissions = [
            ("retry_workflowrun", _("Can retry workflow runs")),
            ("cancel_workflowrun", _("Can cancel workflow runs")),
        ]
        constraints = [models.UniqueConstraint(fields=["workflow", "key"], name="django_steps_run_key")]
        indexes = [
            # Also for the unknown runs, so that looking for one to bring back doesn't walk over all that have ended.
            PartialIndex(fields=["phase", "-priority", "id"], where=Q(phase=0) | Q(phase=3), name="django_steps_ready"),
            PartialIndex(fields=["phase", "queue", "-priority", "id"], where=Q(phase=0), name="django_steps_queue"),
            PartialIndex(fields=["phase", "available_at_us"], where=Q(phase=1), name="django_steps_timed"),
            # What ended when, by status: for pruning, and for the admin's list, counts and chart.
            PartialIndex(
                fields=["status", "finished_at"], where=Q(finished_at__isnull=False), name="django_steps_ended"
            ),
            PartialIndex(fields=["restart_of"], where=Q(restart_of__isnull=False), name="django_steps_restarts"),
        ]
