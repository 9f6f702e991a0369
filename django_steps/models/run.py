"""The table of runs: its indexes, and the class that users see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .controls import R, RunControls
from .event_urls import EventUrls
from .fields import PartialIndex
from .querysets import WorkflowRunQuerySet
from .tagging import RunTags

if TYPE_CHECKING:
    from django.db.models.fields.related_descriptors import RelatedManager

    from .step import StepRecord


class WorkflowRun(EventUrls, RunTags, RunControls[R]):
    """One run of a workflow. Made by `start()`, changed by its controls: `retry()`, `cancel()`, `pause()` and others."""

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
            ("pause_workflowrun", _("Can pause and resume workflow runs")),
            ("send_event_workflowrun", _("Can send events to workflow runs")),
        ]
        constraints = [models.UniqueConstraint(fields=["workflow", "key"], name="django_steps_run_key")]
        indexes = [
            # Also for those set aside: unknown and parked ones, so that bringing one back walks over none that has ended.
            PartialIndex(
                fields=["phase", "-priority", "id"],
                where=Q(phase=0) | Q(phase=3) | Q(phase=4),
                name="django_steps_ready",
            ),
            PartialIndex(fields=["phase", "queue", "-priority", "id"], where=Q(phase=0), name="django_steps_queue"),
            PartialIndex(fields=["phase", "available_at_us"], where=Q(phase=1), name="django_steps_timed"),
            # What ended when, by status: for pruning, and for the admin's list, counts and chart.
            PartialIndex(
                fields=["status", "finished_at"], where=Q(finished_at__isnull=False), name="django_steps_ended"
            ),
            # What ended when, by workflow: where these are kept for times of their own.
            PartialIndex(
                fields=["workflow", "status", "finished_at"],
                where=Q(finished_at__isnull=False),
                name="django_steps_kept",
            ),
            # What failed in the same way. Not with the time where it holds all runs: their ends would change it.
            PartialIndex(
                fields=["error_type", "failed_step", "finished_at"],
                where=Q(error_text__isnull=False),
                otherwise=["error_type", "failed_step"],
                name="django_steps_failures",
            ),
            PartialIndex(fields=["restart_of"], where=Q(restart_of__isnull=False), name="django_steps_restarts"),
            PartialIndex(
                fields=["open_parent_id", "parent_step"],
                where=Q(open_parent_id__isnull=False),
                name="django_steps_open",
            ),
            # At most one child for each item of a map, and for a step: what is inserted twice is there once.
            PartialIndex(
                fields=["parent", "parent_step", "parent_item"],
                where=Q(parent__isnull=False),
                unique=True,
                name="django_steps_child",
            ),
            PartialIndex(
                fields=["workflow", "active_key"],
                where=Q(active_key__isnull=False),
                unique=True,
                name="django_steps_active",
            ),
            # What no worker holds; the pass of a run that is held keeps its time itself.
            PartialIndex(
                fields=["expires_at_us"],
                where=Q(expires_at_us__isnull=False, worker__isnull=True),
                name="django_steps_expiring",
            ),
            PartialIndex(
                fields=["line_key", "-priority", "id"], where=Q(line_key__isnull=False), name="django_steps_line"
            ),
            PartialIndex(fields=["slot_1"], where=Q(slot_1__isnull=False), name="django_steps_slot_1"),
            PartialIndex(fields=["slot_2"], where=Q(slot_2__isnull=False), name="django_steps_slot_2"),
            PartialIndex(fields=["slot_queue"], where=Q(slot_queue__isnull=False), name="django_steps_slot_q"),
            PartialIndex(fields=["continued_as"], where=Q(continued_as__isnull=False), name="django_steps_continued"),
            PartialIndex(
                fields=["schedule", "scheduled_for"], where=Q(schedule__isnull=False), name="django_steps_scheduled"
            ),
            PartialIndex(
                fields=["open_schedule"], where=Q(open_schedule__isnull=False), name="django_steps_open_schedule"
            ),
        ]
