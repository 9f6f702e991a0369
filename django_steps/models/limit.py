"""The table of limits: how many runs of a workflow or queue may execute at once, and when the next one may begin."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .columns import MAX_LIMIT_LENGTH
from .fields import ExactCharField, PartialIndex


class WorkflowLimit(models.Model):
    """A limit, or what is counted of it for one key. The numbers are in the row whose name is the `definition`, where workers
    write them when they start; whoever promotes runs locks the row of the key."""

    name = ExactCharField(_("name"), primary_key=True, max_length=MAX_LIMIT_LENGTH)
    definition = ExactCharField(max_length=MAX_LIMIT_LENGTH, editable=False)
    # Both NULL: it is a limit no more.
    at_once = models.PositiveIntegerField(_("at once"), null=True)
    interval_us = models.BigIntegerField(_("interval"), null=True)  # microseconds between two runs that begin
    burst = models.PositiveIntegerField(_("burst"), default=1, db_default=1)
    # When the next run may begin by the rate (machine time), and when somebody has to look for it: NULL if nobody waits.
    tat_us = models.BigIntegerField(default=0, db_default=0, editable=False)
    due_us = models.BigIntegerField(null=True, editable=False)

    class Meta:
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        default_permissions = ("view",)
        indexes = [PartialIndex(fields=["due_us"], where=Q(due_us__isnull=False), name="django_steps_limit_due")]

    def __str__(self) -> str:
        return self.name
