"""The table of recorded steps."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from .. import failures, values
from ..core import clock
from ..core.names import MAX_LENGTH
from ..failures.attempt_log import read_log
from ..failures.codec import MAX_TYPE_LENGTH
from .fields import ExactCharField


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
        "WorkflowRun",
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
    # The dotted path of the exception's class; empty unless the step failed.
    error_type = ExactCharField(_("error type"), max_length=MAX_TYPE_LENGTH, default="", db_default="", blank=True)
    attempt_log = models.TextField(default="", blank=True)
    started_at = models.DateTimeField(_("started at"))
    finished_at = models.DateTimeField(_("finished at"), null=True)
    wakes_at_us = models.BigIntegerField(null=True)  # machine time
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
        return None if self.wakes_at_us is None else clock.to_datetime(self.wakes_at_us)

    @property
    def earlier_attempts(self) -> Iterable[dict[str, Any]]:
        """The attempts that failed before: `{"attempt", "before_retry", "started_at", "finished_at", "error"}` each.

        A retry of the run counts the attempts of its step from 1 again: `before_retry` tells those from before.
        """
        if self.status == self.Status.RETRYING:  # all that were counted have failed, and are in the log
            return read_log(self.attempt_log, self.attempts + 1)
        return read_log(self.attempt_log, self.attempts)
