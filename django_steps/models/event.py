"""The table of events: what others have sent to runs."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .. import values
from ..core.names import MAX_LENGTH
from .fields import ExactCharField, PartialIndex

if TYPE_CHECKING:
    from uuid import UUID


_KEYS_AT_ONCE = 500


def cascade_by_key(collector: Any, field: Any, events: Any, using: str) -> None:
    """With runs go the events that were sent to them, and those that were sent by their keys before the runs existed: the next
    run that has such a key would take them. For `on_delete`."""
    models.CASCADE(collector, field, events, using)
    run_model = field.remote_field.model
    runs = [run for model, found in collector.data.items() if model._meta.concrete_model is run_model for run in found]
    # It is called for each batch of the runs, and the collector has them all.
    seen = vars(collector).setdefault("_django_steps_keys", set())
    keys = {(run.workflow, run.key) for run in runs if run.key is not None} - seen
    seen |= keys
    for workflow, pairs in groupby(sorted(keys), itemgetter(0)):
        own = [key for _, key in pairs]
        for start in range(0, len(own), _KEYS_AT_ONCE):
            sent = field.model._base_manager.using(using).filter(run=None, workflow=workflow)
            collector.collect(sent.filter(key__in=own[start : start + _KEYS_AT_ONCE]))


cascade_by_key.lazy_sub_objs = True  # type: ignore[attr-defined]  # also where none was sent to the runs themselves


class WorkflowEvent(models.Model):
    """An event that was sent to a run, or to whichever run has a key. Made by `send_event()`; a wait of the run consumes it."""

    # The order in which events are taken is that of these numbers.
    id = models.BigAutoField(primary_key=True)
    # NULL where it was sent by key, and no run had the key.
    run = models.ForeignKey(
        "WorkflowRun",
        cascade_by_key,
        verbose_name=_("run"),
        null=True,
        related_name="events",
        # Enforced, an open transaction that sends an event would hold up the renewal of the run's lease.
        db_constraint=False,
        db_index=False,
    )
    # Those of the run, where it has a key.
    workflow = ExactCharField(_("workflow"), max_length=MAX_LENGTH, null=True)
    key = ExactCharField(_("key"), max_length=MAX_LENGTH, null=True)
    name = ExactCharField(_("name"), max_length=MAX_LENGTH)
    # The sender's own: sent twice, it is one event.
    event_id = ExactCharField(_("event id"), max_length=MAX_LENGTH, null=True)
    payload_text = models.TextField(db_column="payload")
    by = models.CharField(_("sent by"), max_length=MAX_LENGTH, default="", db_default="", blank=True)
    sent_at = models.DateTimeField(_("sent at"))
    # Whether the run was told after the sender's commit.
    told = models.BooleanField(default=False, db_default=False, editable=False)
    # Which wait has taken it, and when; an event that was discarded has the second only.
    consumed_by = ExactCharField(_("consumed by"), max_length=MAX_LENGTH + 20, null=True)
    consumed_at = models.DateTimeField(_("consumed at"), null=True)

    if TYPE_CHECKING:
        run_id: UUID | None

    class Meta:
        verbose_name = _("workflow event")
        verbose_name_plural = _("workflow events")
        default_permissions = ("view",)
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["run", "event_id"], name="django_steps_event_run"),
            models.UniqueConstraint(fields=["workflow", "key", "event_id"], name="django_steps_event_key"),
        ]
        indexes = [
            # What is there to be taken, in the order of the numbers: what was sent to a run, and what was sent by a key that no
            # run had. Where it is a full index, what was taken before is not walked over either.
            PartialIndex(
                fields=["run", "name", "id"],
                where=Q(consumed_at__isnull=True) & Q(run__isnull=False),
                otherwise=["run", "consumed_at", "name", "id"],
                name="django_steps_event_new",
            ),
            PartialIndex(
                fields=["workflow", "key", "id"],
                where=Q(consumed_at__isnull=True) & Q(run__isnull=True),
                otherwise=["workflow", "key", "run", "consumed_at", "id"],
                name="django_steps_event_keyed",
            ),
            PartialIndex(
                fields=["id"], where=Q(told=False), otherwise=["told", "id"], name="django_steps_event_untold"
            ),
            # For pruning what was sent by keys that nobody started.
            PartialIndex(
                fields=["sent_at", "id"],
                where=Q(consumed_at__isnull=True) & Q(run__isnull=True),
                otherwise=["run", "consumed_at", "sent_at", "id"],
                name="django_steps_event_old",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, **options: Any) -> None:
        """Refused for an event that exists: what was sent never changes."""
        if not self._state.adding:
            raise TypeError("An event is not changed; send another one instead.")
        super().save(**options)

    @property
    def payload(self) -> Any:
        """What was sent."""
        return values.decode(self.payload_text)

    @property
    def is_consumed(self) -> bool:
        """Whether a wait has taken it."""
        return self.consumed_by is not None

    @property
    def is_discarded(self) -> bool:
        """Whether somebody has discarded it, so that no wait takes it."""
        return self.consumed_at is not None and self.consumed_by is None
