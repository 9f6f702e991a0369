"""The table of recorded steps."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from .. import failures, values
from ..core import clock, states
from ..core.names import MAX_LENGTH
from ..failures.attempt_log import read_log
from ..failures.codec import MAX_TYPE_LENGTH
from ..ledger import contexts
from .fields import ExactCharField

_TIMED_OUT = ("EventTimedOut", "ChildTimedOut", "StepTimedOut", "PollTimedOut")


class StepRecord(models.Model):
    """What a run has recorded of one step: its outcome, or the attempts that failed so far."""

    class Kind(models.TextChoices):
        STEP = "step", _("step")
        SLEEP = "sleep", _("sleep")
        POLL = "poll", _("poll")
        BRANCH = "branch", _("branch")
        MAP = "map", _("map")
        EVENT = "event", _("event")
        INVOKE = "invoke", _("invoke")
        START = "start", _("start")
        PATCH = states.PATCH, _("patch")
        UNDO = states.UNDO, _("undo")

    class Status(models.TextChoices):
        SUCCEEDED = states.StepStatus.SUCCEEDED, _("succeeded")
        FAILED = states.StepStatus.FAILED, _("failed")
        RETRYING = states.StepStatus.RETRYING, _("retrying")
        WAITING = states.StepStatus.WAITING, _("waiting")
        BEGUN = states.StepStatus.BEGUN, _("begun")
        CANCELED = states.StepStatus.CANCELED, _("canceled")

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
    # The branch of the body that the step was called in; empty for the body itself. Nothing parses names for it.
    branch = ExactCharField(_("branch"), max_length=MAX_LENGTH + 20, default="", db_default="", blank=True)
    # The order in which outcomes were recorded; a step that was tried before keeps the position of its first record.
    position = models.PositiveIntegerField(_("position"))
    # The highest position whose outcome the body had been given when it called this step; -1: none. It alone says what
    # came later than what: B is later than A if B.after >= A.position. Times are for people.
    after = models.IntegerField(default=-1, db_default=-1, editable=False)
    status = models.CharField(_("status"), max_length=16, choices=Status.choices)
    attempts = models.PositiveIntegerField(_("attempts"), default=1, db_default=1)
    output_text = models.TextField(db_column="output", null=True)
    error_text = models.TextField(db_column="error", null=True)
    # The dotted path of the exception's class; empty unless the step failed.
    error_type = ExactCharField(_("error type"), max_length=MAX_TYPE_LENGTH, default="", db_default="", blank=True)
    attempt_log = models.TextField(default="", db_default="", blank=True)
    started_at = models.DateTimeField(_("started at"))
    finished_at = models.DateTimeField(_("finished at"), null=True)
    wakes_at_us = models.BigIntegerField(null=True)  # machine time
    # JSON of what only records of this kind and status have to say.
    context_text = models.TextField(db_column="context", null=True)
    # A fingerprint of the arguments that it was called with; None where there are none, or such as have no fingerprint.
    arguments = models.BigIntegerField(null=True, editable=False)
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
    def context(self) -> dict[str, Any]:
        """What only records of this kind and status have to say.

        Of a step that is tried again: `delay_us`, the planned wait before the next attempt in microseconds. Of a poll:
        `checks`, how many checks it has made, and `deadline_us`, when it is over, as microseconds since 1970.
        """
        return contexts.read(self.context_text)

    @property
    def is_unreached(self) -> bool:
        """Whether the last pass has not come to this record: an earlier version of the body has made it."""
        return contexts.UNREACHED in self.context

    @property
    def has_changed_arguments(self) -> bool:
        """Whether the last pass has called it with other arguments than those that it was recorded with."""
        return contexts.CHANGED_ARGUMENTS in self.context

    @property
    def has_undo(self) -> bool:
        """Whether the step can be undone: it has succeeded, or had returned when the body canceled it."""
        return self.status in (self.Status.SUCCEEDED, self.Status.CANCELED) and contexts.UNDO in self.context

    @property
    def checks(self) -> int | None:
        """How many checks a poll has made; None for other records."""
        return contexts.number(self.context, "checks")

    @property
    def timed_out(self) -> bool:
        """Whether it failed since its time was over, or took its default for that."""
        if self.status == self.Status.FAILED and self.error_type.rpartition(".")[2] in _TIMED_OUT:
            return True
        return self.kind in (self.Kind.EVENT, self.Kind.INVOKE) and self.context.get("timed_out") is True

    @property
    def wakes_at(self) -> datetime | None:
        """When a sleep ends, or the next attempt or check is due."""
        return None if self.wakes_at_us is None else clock.to_datetime(self.wakes_at_us)

    @property
    def earlier_attempts(self) -> Iterable[dict[str, Any]]:
        """The attempts that failed before: `{"attempt", "before_retry", "started_at", "finished_at", "error"}` each.

        A retry of the run counts the attempts of its step from 1 again: `before_retry` tells those from before.
        """
        was_between = self.status == self.Status.CANCELED and self.wakes_at_us is not None
        if self.status == self.Status.RETRYING or was_between:  # all that were counted have failed, and are in the log
            return read_log(self.attempt_log, self.attempts + 1)
        return read_log(self.attempt_log, self.attempts)
