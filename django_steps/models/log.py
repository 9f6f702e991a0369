"""The table of captured log lines: what runs have written to the log, for the people who look at them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..core.names import MAX_LENGTH
from .fields import ExactCharField

if TYPE_CHECKING:
    from uuid import UUID

MAX_LOGGER_LENGTH = 255


class WorkflowLog(models.Model):
    """A line that the body of a run or one of its steps has written to the log; see the setting `CAPTURE_LOGS`."""

    id = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(
        "WorkflowRun",
        models.CASCADE,
        verbose_name=_("run"),
        related_name="logs",
        # Enforced, writing lines would lock the row of the run, which its passes and its lease need.
        db_constraint=False,
        db_index=False,
    )
    # Which line of the run it is, and how many bytes the lines have until here: so it costs no count to see that there are
    # enough.
    number = models.PositiveIntegerField(editable=False)
    total = models.PositiveIntegerField(editable=False)
    at = models.DateTimeField(_("time"))
    step = ExactCharField(_("step"), max_length=MAX_LENGTH + 20, default="", db_default="", blank=True)
    level = models.PositiveSmallIntegerField(_("level"))  # as in logging: 20 for INFO
    logger = models.CharField(_("logger"), max_length=MAX_LOGGER_LENGTH, default="", db_default="", blank=True)
    text = models.TextField(_("text"))

    if TYPE_CHECKING:
        run_id: UUID

    class Meta:
        verbose_name = _("log line")
        verbose_name_plural = _("log lines")
        default_permissions = ()
        ordering = ["id"]
        indexes = [models.Index(fields=["run", "number"], name="django_steps_log_run")]

    def __str__(self) -> str:
        return self.text

    @property
    def level_name(self) -> str:
        """The level in words: `INFO`."""
        return logging.getLevelName(self.level)
