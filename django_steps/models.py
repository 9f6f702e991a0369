"""The tables: runs, their recorded steps, and the workers. Rows are read here and changed through verbs.

What a verb writes is in `ledger/`; how a run is executed is in `execution.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from . import failures, values, verbs
from .attempt_log import read_log
from .fields import ExactCharField, PartialIndex
from .ids import uuid7
from .ledger import sql
from .names import MAX_LENGTH
from .querysets import WorkflowRunQuerySet

if TYPE_CHECKING:
    from typing import Generic
    from uuid import UUID

    from django.db.models.fields.related_descriptors import RelatedManager
    from typing_extensions import TypeVar

    R = TypeVar("R", covariant=True, default=Any)

    class _Run(models.Model, Generic[R]):
        class Meta:
            abstract = True
else:
    # A run is generic in its result for type checkers only: Django's models can't be generic.
    R, _Run = "R", {"R": models.Model}


class Worker(models.Model):
    """A worker process that serves, or served, runs."""

    host = models.CharField(_("host"), max_length=255)
    pid = models.IntegerField(_("process id"))
    queues = models.JSONField(_("queues"), default=list)
    workflows = models.JSONField(_("workflows"), default=list)
    concurrency = models.PositiveIntegerField(_("concurrency"))
    lease = models.BigIntegerField(_("lease"))  # microseconds
    started_at = models.DateTimeField(_("started at"))
    last_seen = models.BigIntegerField(_("last seen"))  # machine time
    stopped_at = models.DateTimeField(_("stopped at"), null=True)

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class WorkflowRun(_Run[R]):
    """One run of a workflow. Made by `start()`, changed by its verbs: `retry()`, `cancel()`, `restart()`."""

    class Status(models.TextChoices):
        PENDING = "pending", _("pending")
        RUNNING = "running", _("running")
        SLEEPING = "sleeping", _("sleeping")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        CANCELED = "canceled", _("canceled")

    class Phase(models.IntegerChoices):
        """Where a claim finds the run: internal, and apart from the status."""

        READY = sql.READY, _("ready")
        TIMED = sql.TIMED, _("timed")
        ENDED = sql.ENDED, _("ended")
        PARKED = sql.PARKED, _("parked")

    FINISHED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)
    ACTIVE = (Status.PENDING, Status.RUNNING, Status.SLEEPING)
    RETRYABLE = (Status.FAILED, Status.CANCELED)

    id = models.UUIDField(_("id"), primary_key=True, default=uuid7, editable=False)
    workflow = ExactCharField(_("workflow"), max_length=MAX_LENGTH)
    version = ExactCharField(_("version"), max_length=MAX_LENGTH, blank=True)
    queue = ExactCharField(_("queue"), max_length=MAX_LENGTH, default="default")
    priority = models.SmallIntegerField(_("priority"), default=0)
    key = ExactCharField(_("key"), max_length=MAX_LENGTH, null=True)
    status = models.CharField(_("status"), max_length=16, choices=Status.choices, default=Status.PENDING)
    phase = models.SmallIntegerField(choices=Phase.choices, default=Phase.READY, editable=False)
    input_text = models.TextField(db_column="input")
    input_search = models.JSONField(null=True)
    output_text = models.TextField(db_column="output", null=True)
    error_text = models.TextField(db_column="error", null=True)

    # Attempts of the whole run under its retry policy; what crashes cost is counted apart.
    attempts = models.PositiveIntegerField(_("attempts"), default=1)
    recoveries = models.PositiveIntegerField(_("recoveries"), default=0)
    recovery_mark = models.BigIntegerField(default=0, editable=False)
    takeovers_text = models.TextField(db_column="takeovers", default="", blank=True)
    # How often something that was recorded was forgotten: a worker's own copy of a history is good for one generation.
    generation = models.PositiveIntegerField(default=0, editable=False)
    has_history = models.BooleanField(default=False, editable=False)

    current_step = ExactCharField(_("current step"), max_length=MAX_LENGTH + 20, blank=True)
    progress_done = models.BigIntegerField(_("progress"), null=True)
    progress_total = models.BigIntegerField(_("progress total"), null=True)

    claim_token = models.BigIntegerField(null=True, editable=False)
    worker = models.ForeignKey(
        Worker,
        models.DO_NOTHING,
        verbose_name=_("worker"),
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="runs",
    )
    # When a timed run is due: the end of a sleep or a delay, the next attempt, the end of a lease. Microseconds.
    available_at = models.BigIntegerField(default=0, editable=False)
    suspect_since = models.BigIntegerField(null=True, editable=False)

    created_at = models.DateTimeField(_("created at"))
    started_at = models.DateTimeField(_("started at"), null=True)
    finished_at = models.DateTimeField(_("finished at"), null=True)
    restart_of = models.ForeignKey(
        "self",
        models.SET_NULL,
        verbose_name=_("restart of"),
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="restarts",
    )

    # Whether `start()` made this run; False: its key was another's, and this is that one.
    created = True

    if TYPE_CHECKING:
        objects: ClassVar[WorkflowRunQuerySet]
        steps: RelatedManager[StepRecord]
        restarts: RelatedManager[WorkflowRun[R]]
        worker_id: int | None
        restart_of_id: UUID | None
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
            # Also for the parked runs, so that looking for one to bring back doesn't walk over all that have ended.
            PartialIndex(fields=["phase", "-priority", "id"], where=Q(phase=0) | Q(phase=3), name="django_steps_ready"),
            PartialIndex(fields=["phase", "queue", "-priority", "id"], where=Q(phase=0), name="django_steps_queue"),
            PartialIndex(fields=["phase", "available_at"], where=Q(phase=1), name="django_steps_timed"),
            # What ended when, by status: for pruning, and for the admin's list, counts and chart.
            PartialIndex(
                fields=["status", "finished_at"], where=Q(finished_at__isnull=False), name="django_steps_ended"
            ),
            PartialIndex(fields=["restart_of"], where=Q(restart_of__isnull=False), name="django_steps_restarts"),
        ]

    def __str__(self) -> str:
        return f"{self.workflow} {self.pk}"

    def save(self, **options: Any) -> None:
        """Refused for a run that exists: its state belongs to the engine."""
        if not self._state.adding:
            raise TypeError("A run is changed through its verbs: retry(), cancel(), restart(); not by save().")
        super().save(**options)

    # -- What people read -----------------------------------------------------------------------

    @property
    def is_finished(self) -> bool:
        """Whether the run has succeeded, failed or been canceled."""
        return self.status in self.FINISHED

    @property
    def input(self) -> Any:
        """The decoded input."""
        return values.decode(self.input_text)

    @property
    def output(self) -> Any:
        """What the body returned; None until it did."""
        return None if self.output_text is None else values.decode(self.output_text)

    @property
    def error(self) -> dict[str, Any] | None:
        """Why the run failed: `{"type", "message", "traceback", "step"}`, or None."""
        return failures.summary(self.error_text)

    @property
    def takeovers(self) -> list[dict[str, Any]]:
        """When other workers took the run over from one that died: `{"at": datetime, "worker", "step"}` each."""
        entries = json.loads(self.takeovers_text) if self.takeovers_text else []
        return [{**entry, "at": sql.to_datetime(entry["at"])} for entry in entries]

    @property
    def wakes_at(self) -> datetime | None:
        """When a delayed or sleeping run is due; None for the others."""
        if self.phase != self.Phase.TIMED or self.worker_id is not None:
            return None
        return sql.to_datetime(self.available_at)

    # -- Verbs ----------------------------------------------------------------------------------

    result = verbs.result
    aresult = verbs.aresult
    retry = verbs.retry
    aretry = verbs.aretry
    cancel = verbs.cancel
    acancel = verbs.acancel
    restart = verbs.restart
    arestart = verbs.arestart
    set_progress = verbs.set_progress


class StepRecord(models.Model):
    """What a run has recorded of one step: its outcome, or the attempts that failed so far."""

    class Kind(models.TextChoices):
        STEP = "step", _("step")
        SLEEP = "sleep", _("sleep")

    class Status(models.TextChoices):
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        RETRYING = "retrying", _("retrying")

    run = models.ForeignKey(
        WorkflowRun,
        models.CASCADE,
        verbose_name=_("run"),
        related_name="steps",
        # The fenced INSERT reads the run's row, so the reference always holds; the unique constraint serves as index.
        db_constraint=False,
        db_index=False,
    )
    name = ExactCharField(_("name"), max_length=MAX_LENGTH + 20)
    kind = models.CharField(_("kind"), max_length=16, choices=Kind.choices)
    position = models.PositiveIntegerField(_("position"))
    status = models.CharField(_("status"), max_length=16, choices=Status.choices)
    attempts = models.PositiveIntegerField(_("attempts"), default=1)
    output_text = models.TextField(db_column="output", null=True)
    error_text = models.TextField(db_column="error", null=True)
    attempt_log = models.TextField(default="", blank=True)
    started_at = models.DateTimeField(_("started at"))
    finished_at = models.DateTimeField(_("finished at"), null=True)
    wake_at = models.BigIntegerField(null=True)  # machine time
    claim_token = models.BigIntegerField(editable=False)
    write_id = models.BigIntegerField(editable=False)

    class Meta:
        verbose_name = _("step record")
        verbose_name_plural = _("step records")
        default_permissions = ("view",)
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["run", "name"], name="django_steps_step_once")]

    def __str__(self) -> str:
        return self.name

    def save(self, **options: Any) -> None:
        """Refused for a record that exists: what is recorded never changes."""
        if not self._state.adding:
            raise TypeError("A recorded step is not changed; retry the run from it instead.")
        super().save(**options)

    @property
    def output(self) -> Any:
        """What the step returned."""
        return None if self.output_text is None else values.decode(self.output_text)

    @property
    def error(self) -> dict[str, Any] | None:
        """Why the step failed: `{"type", "message", "traceback", "step"}`, or None."""
        return failures.summary(self.error_text)

    @property
    def wakes_at(self) -> datetime | None:
        """When a sleep ends, or the next attempt is due."""
        return None if self.wake_at is None else sql.to_datetime(self.wake_at)

    @property
    def earlier_attempts(self) -> Iterable[dict[str, Any]]:
        """The attempts that failed before: `{"attempt", "before_retry", "started_at", "finished_at", "error"}` each.

        A retry of the run counts the attempts of its step from 1 again: `before_retry` tells those from before.
        """
        if self.status == self.Status.RETRYING:  # all that were counted have failed, and are in the log
            return read_log(self.attempt_log, self.attempts + 1)
        return read_log(self.attempt_log, self.attempts)
