"""The table of tags: a row for each of a run, by which runs are found. Reading them is in `tagging.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..core.names import MAX_LENGTH
from ..core.tags import MAX_NAME_LENGTH
from .fields import ExactCharField

if TYPE_CHECKING:
    from uuid import UUID


class WorkflowTag(models.Model):
    """A tag of a run. What the run is about is one, too. The row of the run has all of its tags as well."""

    id = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(
        "WorkflowRun",
        models.CASCADE,
        verbose_name=_("run"),
        # Not `tags`: that is what the run says of them.
        related_name="tag_rows",
        # It is written with the run's row, or while that is locked, so the reference always holds.
        db_constraint=False,
        db_index=False,
    )
    name = ExactCharField(_("name"), max_length=MAX_NAME_LENGTH)
    value = ExactCharField(_("value"), max_length=MAX_LENGTH)

    if TYPE_CHECKING:
        run_id: UUID

    class Meta:
        verbose_name = _("workflow tag")
        verbose_name_plural = _("workflow tags")
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["run", "name"], name="django_steps_tag_run")]
        # With the runs in the order of their ids, which is that of their starts.
        indexes = [models.Index(fields=["name", "value", "run"], name="django_steps_tag_value")]

    def __str__(self) -> str:
        return f"{self.name}={self.value}"
