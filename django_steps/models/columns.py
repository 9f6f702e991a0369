"""The columns of a run, and what is read from them. What can be done to a run is in `controls.py`."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from .. import failures, values
from ..core import clock, states
from ..core.context import active_pass
from ..core.ids import uuid7
from ..core.names import MAX_LENGTH
from ..failures.codec import MAX_STEP_LENGTH, MAX_TYPE_LENGTH
from .fields import ExactCharField
from .worker import Worker

if TYPE_CHECKING:
    from uuid import UUID

DEFAULT_QUEUE = "default"
# The name of a limit: of a workflow or queue, and the key, which has at most 100 characters.
MAX_LIMIT_LENGTH = MAX_LENGTH + 105


class RunColumns(models.Model):
    """The columns of a run, and what people read of them.

    What an INSERT may leave out has a default in the database: so a process with older code goes on starting runs after
    a migration has added a column.
    """

    class Status(models.TextChoices):
        PENDING = states.Status.PENDING, _("pending")
        RUNNING = states.Status.RUNNING, _("running")
        SLEEPING = states.Status.SLEEPING, _("sleeping")
        WAITING = states.Status.WAITING, _("waiting")
        PAUSED = states.Status.PAUSED, _("paused")
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
        PARKED = states.Phase.PARKED, _("parked")
        IN_LINE = states.Phase.IN_LINE, _("in line")
        HELD = states.Phase.HELD, _("held")

    FINISHED = tuple(map(Status, states.FINISHED))
    ACTIVE = tuple(map(Status, states.ACTIVE))
    RETRYABLE = tuple(map(Status, states.RETRYABLE))
    CANCELABLE = tuple(map(Status, states.CANCELABLE))
    PAUSABLE = tuple(map(Status, states.PAUSABLE))

    id = models.UUIDField(_("id"), primary_key=True, default=uuid7, editable=False)
    workflow = ExactCharField(_("workflow"), max_length=MAX_LENGTH)
    version = ExactCharField(_("version"), max_length=MAX_LENGTH, default="", db_default="", blank=True)
    queue = ExactCharField(_("queue"), max_length=MAX_LENGTH, default=DEFAULT_QUEUE, db_default=DEFAULT_QUEUE)
    priority = models.SmallIntegerField(_("priority"), default=0, db_default=0)
    key = ExactCharField(_("key"), max_length=MAX_LENGTH, null=True)
    # Unique among the active runs of a workflow: NULL once the run has ended. `own_active_key` stays, for a retry.
    active_key = ExactCharField(_("active key"), max_length=MAX_LENGTH, null=True)
    own_active_key = ExactCharField(max_length=MAX_LENGTH, null=True, editable=False)
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
    # What of the error is asked for by queries: the dotted path of the exception's class, and the step whose failure it is, as
    # its path without keys (`order/charge`). The error itself names the very one (`order#17/charge`).
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

    # JSON: which step of a run that is held has lasted longer than its timeout, and where it is; good for the claim it names.
    overdue_text = models.TextField(db_column="overdue", default="", db_default="", blank=True, editable=False)

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
    # Of a waiting run, and only while it is waiting: the names of the events that its branches wait for, and `#` with those of
    # the steps whose children it waits for, each between two line feeds; and when the first of its waits and sleeps is over,
    # NULL for never. `available_at_us` may be earlier: then it is only looked at.
    waits_for = models.TextField(default="", db_default="", blank=True, editable=False)
    waits_until_us = models.BigIntegerField(null=True, editable=False)
    suspect_since_us = models.BigIntegerField(null=True, editable=False)

    # How long the run may last from its first claim to its end, and how long it may wait for that claim; microseconds, NULL
    # for as long as it takes. `expires_at_us`, machine time, is the end of the one or, before that claim, of the other.
    timeout_us = models.BigIntegerField(null=True, editable=False)
    start_within_us = models.BigIntegerField(null=True, editable=False)
    expires_at_us = models.BigIntegerField(null=True, editable=False)

    created_at = models.DateTimeField(_("created at"))
    started_at = models.DateTimeField(_("started at"), null=True)
    finished_at = models.DateTimeField(_("finished at"), null=True)
    cancel_reason = models.TextField(_("cancel reason"), default="", db_default="", blank=True)
    # The same where the engine has canceled it, on behalf of its parent; empty where somebody has: what the parent does then
    # depends on it, and anybody may give any reason.
    cancel_cause = ExactCharField(max_length=32, default="", db_default="", blank=True, editable=False)
    canceled_by = models.CharField(_("canceled by"), max_length=MAX_LENGTH, default="", db_default="", blank=True)
    # Of a paused run, and of a running one that is to be paused, which is what `paused_at` says then; empty for the others.
    pause_reason = models.TextField(_("pause reason"), default="", db_default="", blank=True)
    paused_by = models.CharField(_("paused by"), max_length=MAX_LENGTH, default="", db_default="", blank=True)
    paused_at = models.DateTimeField(_("paused at"), null=True)
    # Of a run that is canceled with undo: `Undo.WANTED` until a pass has taken it, `Undo.UNDERWAY` from then on.
    undoing = models.SmallIntegerField(_("undoing"), null=True, editable=False)
    # Somebody has resumed it while its queue or workflow is paused: that doesn't hold it until it ends.
    pause_exempt = models.BooleanField(default=False, db_default=False, editable=False)
    restart_of = models.ForeignKey(
        "self",
        models.SET_NULL,
        verbose_name=_("restart of"),
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="restarts",
    )

    # What the run carries of the trace in which it was started, and of its passes: see `core/traces.py`. NULL without tracing.
    trace = models.TextField(null=True, editable=False)

    # What the body says of itself by `update_details()`: JSON, or an empty text.
    details_text = models.TextField(db_column="details", default="", db_default="", blank=True, editable=False)

    # Its tags, and what it is about, as JSON, or an empty text. The rows of `WorkflowTag` say the same, to be looked for.
    tags_text = models.TextField(db_column="tags", default="", db_default="", blank=True, editable=False)

    # Of a child: the run that has invoked it, the record of that step or map there, and which item of the map it is (an empty
    # text where it is no map's). `parent_item` is NULL once the parent has another child in its place.
    parent = models.ForeignKey(
        "self",
        models.DO_NOTHING,
        verbose_name=_("parent"),
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="children",
    )
    parent_step = ExactCharField(_("step of the parent"), max_length=MAX_LENGTH + 20, null=True)
    parent_item = ExactCharField(_("item of the parent"), max_length=MAX_LENGTH + 20, null=True)
    # The parent as long as the child has not ended, so that looking for such siblings costs the same whatever has ended.
    open_parent_id = models.UUIDField(null=True, editable=False)
    depth = models.PositiveSmallIntegerField(default=0, db_default=0, editable=False)  # how many ancestors it has
    # The run that this one has continued as, by `continue_as_new()`.
    continued_as = models.ForeignKey(
        "self",
        models.SET_NULL,
        verbose_name=_("continued as"),
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="continues",
    )

    # Of a run that a schedule has started: its name, and the slot; and the name again as long as the run has not ended, so that
    # looking for such runs costs the same whatever has ended.
    schedule = ExactCharField(_("schedule"), max_length=MAX_LENGTH, null=True)
    scheduled_for = models.DateTimeField(_("scheduled for"), null=True)
    open_schedule = ExactCharField(max_length=MAX_LENGTH, null=True, editable=False)

    # The limits of the run, each with a rule before its name; the one that it is in line for, and those of which it holds a
    # slot. NULL unless they matter. What they mean is in `ledger/lines.py`.
    limit_1 = ExactCharField(max_length=MAX_LIMIT_LENGTH, null=True, editable=False)
    limit_2 = ExactCharField(max_length=MAX_LIMIT_LENGTH, null=True, editable=False)
    limit_queue = ExactCharField(max_length=MAX_LIMIT_LENGTH, null=True, editable=False)
    line_key = ExactCharField(max_length=MAX_LIMIT_LENGTH, null=True, editable=False)
    slot_1 = ExactCharField(max_length=MAX_LIMIT_LENGTH, null=True, editable=False)
    slot_2 = ExactCharField(max_length=MAX_LIMIT_LENGTH, null=True, editable=False)
    slot_queue = ExactCharField(max_length=MAX_LIMIT_LENGTH, null=True, editable=False)

    # Whether `start()` made this run; False: its key was another's, and this is that one.
    created = True

    if TYPE_CHECKING:
        worker_id: int | None
        restart_of_id: UUID | None
        parent_id: UUID | None
        continued_as_id: UUID | None

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
    def is_pausing(self) -> bool:
        """Whether the run is to be paused once what a worker executes of it has ended; its status is `running` until then."""
        return self.status == self.Status.RUNNING and self.paused_at is not None

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
    def details(self) -> dict[str, Any]:
        """What the body has said of itself by `update_details()`. In the body: what it has said so far in this pass."""
        current = active_pass.get()
        text = current.details_text() if current is not None and current.run_id == self.pk else None
        if text is None:
            text = self.details_text
        decoded = values.decode(text) if text else {}
        return decoded if isinstance(decoded, dict) else {}

    @property
    def timeout(self) -> timedelta | None:
        """How long the run may last, from its first claim to its end; None for as long as it takes."""
        return None if self.timeout_us is None else timedelta(microseconds=self.timeout_us)

    @property
    def start_within(self) -> timedelta | None:
        """How long the run may wait to begin, once it may; None for as long as it takes."""
        return None if self.start_within_us is None else timedelta(microseconds=self.start_within_us)

    @property
    def expires_at(self) -> datetime | None:
        """When the run fails by its `timeout`, or, before it has begun, is canceled by its `start_within`; None for never."""
        return None if self.expires_at_us is None else clock.to_datetime(self.expires_at_us)

    @property
    def overdue(self) -> dict[str, Any] | None:
        """Which step has lasted longer than its `timeout`, and can't be interrupted; None if there is none.

        `{"step", "attempt", "since", "stack"}`: `since` is a datetime, the end of its time; `stack` text, where it was then.
        """
        said = _read(self.overdue_text) if self.overdue_text else None
        if said is None or said.get("token") != self.claim_token or self.is_finished or self.worker_id is None:
            return None
        return {
            "step": said.get("step", ""),
            "attempt": said.get("attempt", 1),
            "since": clock.to_datetime(said.get("since_us", 0)),
            "stack": said.get("stack", ""),
        }

    @property
    def waiting_for(self) -> list[str]:
        """The names of the events that a waiting run waits for; empty for the others."""
        return (
            [name for name in self.waits_for.split("\n") if name and name[0] != "#"]
            if self.status == self.Status.WAITING
            else []
        )

    @property
    def recovery_log(self) -> list[dict[str, Any]]:
        """When other workers took the run over from one that died: `{"at": datetime, "worker", "step"}` each.

        Where it is not known in which step the worker died, `step` is empty, and `after` is the step that was recorded last.
        """
        entries = json.loads(self.recovery_log_text) if self.recovery_log_text else []
        return [{**entry, "at": clock.to_datetime(entry["at"])} for entry in entries]

    @property
    def wakes_at(self) -> datetime | None:
        """When a delayed or sleeping run is due, or when the first of a run's waits is over; None for the others."""
        if self.status == self.Status.WAITING:
            return None if self.waits_until_us is None else clock.to_datetime(self.waits_until_us)
        if self.phase != self.Phase.TIMED or self.worker_id is not None:
            return None
        return clock.to_datetime(self.available_at_us)


def _read(text: str) -> dict[str, Any] | None:
    """A JSON object; None for a damaged text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
