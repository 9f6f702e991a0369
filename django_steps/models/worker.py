"""The table of workers: which processes serve runs, or served them."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Worker(models.Model):
    """A worker process that serves, or served, runs."""

    host = models.CharField(_("host"), max_length=255)
    pid = models.IntegerField(_("process id"))
    queues = models.JSONField(_("queues"), default=list, db_default=[])
    workflows = models.JSONField(_("workflows"), default=list, db_default=[])
    concurrency = models.PositiveIntegerField(_("concurrency"))
    lease_us = models.BigIntegerField(_("lease"))  # microseconds
    started_at = models.DateTimeField(_("started at"))
    last_seen_us = models.BigIntegerField(_("last seen"))  # machine time
    # How many async runs it executes at a time; 0 if it knows no async workflow.
    async_concurrency = models.PositiveIntegerField(_("async concurrency"), default=0, db_default=0)
    # What blocked its event loop last, and when (machine time).
    blocked_by = models.TextField(_("blocked by"), blank=True, default="", db_default="")
    blocked_us = models.BigIntegerField(_("blocked"), null=True)
    # The names of the schedules in its code.
    schedules = models.JSONField(_("schedules"), default=list, db_default=[])
    stopped_at = models.DateTimeField(_("stopped at"), null=True)
    # Who executes what it claims: `threads` of its own, or the engine to which it dispatches. A process of such an engine has a
    # row, too: it claims nothing, and adopts what dispatchers have claimed.
    executor = models.CharField(_("executor"), max_length=32, default="threads", db_default="threads")
    claims = models.BooleanField(default=True, db_default=True, editable=False)

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
