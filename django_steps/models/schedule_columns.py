"""The columns of a schedule, and what is read from them. What can be done to one is in `schedule.py`."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import islice
from typing import Any

from django.db import models, router
from django.utils.translation import gettext_lazy as _

from .. import values
from ..core import clock, schedules
from ..core.names import MAX_LENGTH
from ..core.schedules import MAX_NAME_LENGTH, Timing
from ..ledger import database
from .fields import DurationTextField, ExactCharField

# What says when it fires.
TIMING = ("cron", "every", "timezone", "spread")
# What the code, or whoever edits the row, says of a schedule.
DEFINITION = (
    "workflow",
    "version",
    "input_text",
    "input_search",
    *TIMING,
    "queue",
    "priority",
    "overlap",
    "missed",
    "pause_after",
    "tags",
)


class ScheduleColumns(models.Model):
    """The columns of a schedule, and what people read of them."""

    class Source(models.TextChoices):
        CODE = "code", _("code")
        DATABASE = "database", _("database")

    class Overlap(models.TextChoices):
        SKIP = "skip", _("skip this time")
        ALLOW = "allow", _("start it all the same")
        WAIT = "wait", _("start it, and hold it until the other one has ended")
        CANCEL = "cancel", _("cancel the other one, and begin once it has ended")

    class Missed(models.TextChoices):
        LATEST = "latest", _("make up for the latest time")
        SKIP = "skip", _("leave out what was missed")

    id = models.BigAutoField(primary_key=True)
    name = ExactCharField(_("name"), max_length=MAX_NAME_LENGTH, unique=True)
    source = models.CharField(
        _("source"),
        max_length=16,
        choices=Source.choices,
        default=Source.DATABASE,
        db_default="database",
        editable=False,
    )

    # What it starts, and when. Of a queue or priority that is not given here the workflow's own counts.
    workflow = ExactCharField(_("workflow"), max_length=MAX_LENGTH)
    version = ExactCharField(
        _("version"),
        max_length=MAX_LENGTH,
        default="",
        db_default="",
        blank=True,
        help_text=_("Of the workflow; empty: the latest one."),
    )
    input_text = models.TextField(db_column="input", default="null", editable=False)
    input_search = models.JSONField(null=True, editable=False)
    cron = models.CharField(
        _("cron"),
        max_length=255,
        default="",
        db_default="",
        blank=True,
        help_text=_(
            "Minute, hour, day of the month, month, day of the week, such as 30 2 * * *; or @daily, @hourly, …"
        ),
    )
    every = DurationTextField(
        _("every"),
        max_length=64,
        default="",
        db_default="",
        blank=True,
        help_text=_("Instead of cron: a duration such as 10s or 6h."),
    )
    timezone = models.CharField(
        _("time zone"),
        max_length=64,
        default="",
        db_default="",
        blank=True,
        help_text=_("For cron, such as Europe/Berlin; empty: that of the project."),
    )
    spread = DurationTextField(
        _("spread"),
        max_length=64,
        default="",
        db_default="",
        blank=True,
        help_text=_("Such as 10m: it begins up to so much later, always by the same, so that not all begin at once."),
    )
    queue = ExactCharField(_("queue"), max_length=MAX_LENGTH, null=True, blank=True, default=None)
    priority = models.SmallIntegerField(_("priority"), null=True, blank=True, default=None)
    overlap = models.CharField(
        _("if the last run is still active"),
        max_length=16,
        choices=Overlap.choices,
        default=Overlap.SKIP,
        db_default="skip",
    )
    missed = models.CharField(
        _("if no worker was there"), max_length=16, choices=Missed.choices, default=Missed.LATEST, db_default="latest"
    )
    pause_after = models.PositiveIntegerField(
        _("pause after"), null=True, blank=True, default=None, help_text=_("So many failed runs in a row.")
    )
    tags = models.JSONField(
        _("tags"),
        default=dict,
        db_default={},
        blank=True,
        help_text=_('Of its runs, as JSON, such as {"tenant": "acme"}.'),
    )
    # Digests of the definition that the row has, and of all that it has had.
    digest = models.CharField(max_length=64, default="", db_default="", editable=False)
    digests = models.JSONField(default=list, db_default=[], editable=False)

    # What an operator has said.
    paused_at = models.DateTimeField(_("paused at"), null=True, editable=False)
    paused_by = models.CharField(_("paused by"), max_length=MAX_LENGTH, default="", db_default="", editable=False)
    pause_reason = models.TextField(_("pause reason"), default="", db_default="", editable=False)

    # What the workers write. `next_at_us`: when it fires, NULL while it is paused or disabled; failures count from
    # `counts_from_us` on. Machine times.
    disabled_reason = models.TextField(_("disabled"), default="", db_default="", editable=False)
    next_at_us = models.BigIntegerField(null=True, editable=False)
    counts_from_us = models.BigIntegerField(default=0, db_default=0, editable=False)
    last_slot_us = models.BigIntegerField(null=True, editable=False)
    last_run_id = models.UUIDField(null=True, editable=False)
    skipped_text = models.TextField(db_column="skipped", default="", db_default="", editable=False)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return str(self.name)

    # -- What people read -----------------------------------------------------------------------

    @property
    def input(self) -> Any:
        """The decoded input of its runs."""
        return values.decode(self.input_text)

    @input.setter
    def input(self, value: Any) -> None:
        self.input_text = values.encode(value, root="input")

    @property
    def is_paused(self) -> bool:
        """Whether somebody has paused it, or its runs have failed too often."""
        return self.paused_at is not None

    @property
    def is_disabled(self) -> bool:
        """Whether it can't fire; `disabled_reason` says why."""
        return self.disabled_reason != ""

    @property
    def is_of_code(self) -> bool:
        """Whether the code defines it."""
        return self.source == self.Source.CODE

    @property
    def next_at(self) -> datetime | None:
        """When it starts a run; None while it is paused or disabled."""
        return None if self.next_at_us is None else clock.to_datetime(self.next_at_us)

    @property
    def last_slot(self) -> datetime | None:
        """The time for which it has started a run last."""
        return None if self.last_slot_us is None else clock.to_datetime(self.last_slot_us)

    @property
    def skipped(self) -> dict[str, Any]:
        """The times that it has left out: `counts` by reason ("overlap", "missed"), `since` when they are counted, and the
        `last` ones, `{"slot", "reason"}` each, the newest first."""
        said = json.loads(self.skipped_text) if self.skipped_text else {}
        return {
            "counts": said.get("counts", {}),
            "since": clock.to_datetime(said["since"]) if "since" in said else None,
            "last": [{"slot": clock.to_datetime(slot), "reason": reason} for slot, reason in said.get("last", [])],
        }

    def timing(self) -> Timing:
        """When it fires; raises `ValueError` for what no row should have."""
        return schedules.timing(
            name=self.name, cron=self.cron, every=self.every, zone=self.timezone, spread=self.spread
        )

    def next_times(self, count: int = 5, after: datetime | None = None) -> list[datetime]:
        """The next times that it stands for, in its time zone, paused or not; `after`: counted from then on, default: now."""
        timing = self.timing()
        if after is None:
            now = database.read_clock(database.connection_for(self._state.db or router.db_for_read(type(self))))
        else:
            now = clock.to_microseconds(after)
        zone = schedules.zone_of(timing.zone)
        return [schedules.moment(slot, zone) for slot in islice(timing.slots(now - timing.shift_us), count)]
