"""The columns of a run, and what is read from them. What can be done to a run is in `controls.py`."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from .. import failures, values
from ..core import clock, states
from ..core.ids import uuid7
from ..core.names import MAX_LENGTH
from ..failures.codec import MAX_STEP_LENGTH, MAX_TYPE_LENGTH
from .fields import ExactCharField
from .worker import Worker

if TYPE_CHECKING:
    from uuid import UUID

DEFAULT_QUEUE = "default"


class RunColumns(models.Model):
    """The columns of a run, and what people read of them.

    What an INSERT may leave out has a default in the database: so a process with older code goes on starting runs after
    a migration has added a column.
    """

    class Status(models.TextChoices):
        PENDING = states.Status.PENDING, _("pending")
        RUNNING = states.Status.RUNNING, _("running")
        SLEEPING = states.Status.SLEEPING, _("sleeping")
        CANCELING = states.Status.CANCELING, _("canceling")
        SUCCEEDED = states.Status.SUCCEEDED, _("succeeded")
        FAILED = states.Status.FAILED, _("failed")
        CANCELED = states.Status.CANCELED, _("canceled")

    class Phase(models.IntegerChoices):
        """Where a claim finds the run: internal, and apart from the status."""

        READY = states.Phase.READY, _("ready")
        TIMED = states.Phase.TIMED, _("timed")
        ENDED = states.Phase.ENDED, _("ended")
        UNKNOWN = states.Phase.UNKNOWN, _("unknown")

    FINISHED = tuple(map(Status, states.FINISHED))
    ACTIVE = tuple(map(Status, states.ACTIVE))
    RETRYABLE = tuple(map(Status, states.RETRYABLE))
    CANCELABLE = tuple(map(Status, states.CANCELABLE))

    id = models.UUIDField(_("id"), primary_key=True, default=uuid7, editable=False)
    workflow = ExactCharField(_("workflow"), max_length=MAX_LENGTH)
    version = ExactCharField(_("version"), max_length=MAX_LENGTH, default="", db_default="", blank=True)
    queue = ExactCharField(_("queue"), max_length=MAX_LENGTH, default=DEFAULT_QUEUE, db_default=DEFAULT_QUEUE)
    priority = models.SmallIntegerField(_("priority"), default=0, db_default=0)
    key = ExactCharField(_("key"), max_length=MAX_LENGTH, null=True)
    status = models.CharField(
        _("status"), max_length=16, choices=Status.choices, default=Status.PENDING, db_default=states.Status.PENDING
    )
    phase = models.SmallIntegerField(
        choices=Phase.choices, default=Phase.READY, db_default=states.Phase.READY, editable=False
    )
    input_text = models.TextField(db_column="input")
    input_search = models.JSONField(null=True)
    output_text = models.TextField(db_column="output", null=True)
    error_text = models.TextField(db_column="error", null=True)
    # What of the error is asked for by queries: the dotted path of the exception's class, and the step whose failure it is.
    error_type = ExactCharField(_("error type"), max_length=MAX_TYPE_LENGTH, default="", db_default="", blank=True)
    failed_step = ExactCharField(_("failed step"), max_length=MAX_STEP_LENGTH, default="", db_default="", blank=True)

    # Attempts of the whole run under its retry policy; what crashes cost is counted apart.
    attempts = models.PositiveIntegerField(_("attempts"), default=1, db_default=1)
    # When the first of them began: the first claim since the start, or since a retry by hand. Microseconds.
    attempting_since_us = models.BigIntegerField(null=True, editable=False)
    recoveries = models.PositiveIntegerField(_("recoveries"), default=0, db_default=0)
    recovery_mark = models.BigIntegerField(default=0, db_default=0, editable=False)
    recovery_log_text = models.TextField(db_column="recovery_log", default="", db_default="", blank=True)
    # How often something that was recorded was reset: a worker's own copy of a history is good for one generation.
    generation = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    has_history = models.BooleanField(default=False, db_default=False, editable=False)

    current_step = ExactCharField(_("current step"), max_length=MAX_LENGTH + 20, default="", db_default="", blank=True)
    progress_done = models.BigIntegerField(_("progress"), null=True)
    progress_total = models.BigIntegerField(_("progress total"), null=True)
    # JSON of the checkpoints that steps in execution have made since their last record.
    checkpoint = models.TextField(default="", db_default="", blank=True, editable=False)

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
    available_at_us = models.BigIntegerField(default=0, db_default=0, editable=False)
    suspect_since_us = models.BigIntegerField(null=True, editable=False)

    created_at = models.DateTimeField(_("created at"))
    started_at = models.DateTimeField(_("started at"), null=True)
    finished_at = models.DateTimeField(_("finished at"), null=True)
    cancel_reason = models.TextField(_("cancel reason"), default="", db_default="", blank=True)
    canceled_by = models.CharField(_("canceled by"), max_length=MAX_LENGTH, default="", db_default="", blank=True)
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
        worker_id: int | None
        restart_of_id: UUID | None

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.workflow} {self.pk}"

    def save(self, **options: Any) -> None:
        """Refused for a run that exists: its state belongs to the engine."""
        if not self._state.adding:
            raise TypeError("A run is changed through its controls: retry(), cancel(), restart(); not by save().")
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
    def recovery_log(self) -> list[dict[str, Any]]:
        """When other workers took the run over from one that died: `{"at": datetime, "worker", "step"}` each.

        Where it is not known in which step the worker died, `step` is empty, and `after` is the step that was recorded last.
        """
        entries = json.loads(self.recovery_log_text) if self.recovery_log_text else []
        return [{**entry, "at": clock.to_datetime(entry["at"])} for entry in entries]

    @property
    def wakes_at(self) -> datetime | None:
        """When a delayed or sleeping run is due; None for the others."""
        if self.phase != self.Phase.TIMED or self.worker_id is not None:
            return None
        return clock.to_datetime(self.available_at_us)
