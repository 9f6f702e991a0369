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
    stopped_at = models.DateTimeField(_("stopped at"), null=True)

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
