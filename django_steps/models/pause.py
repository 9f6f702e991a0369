"""The table of pauses: the queues and workflows that somebody has paused."""

from __future__ import annotations

import logging
from typing import ClassVar

from django.db import models, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..core.context import refuse_control_outside_step
from ..core.names import MAX_LENGTH, check_name
from ..ledger import database, notify, pauses
from .fields import ExactCharField

logger = logging.getLogger("django_steps")


class WorkflowPauseManager(models.Manager["WorkflowPause"]):
    """The pauses, with the ways to make them and to end them."""

    def pause_queue(self, name: str, reason: str = "", by: str = "") -> WorkflowPause:
        """Pause a queue: workers take no runs from it until it is resumed. `reason` and `by` are for people.

        Pausing what is paused changes nothing: `created` of the pause that is returned is False then. Raises `InvalidName`.

        >>> WorkflowPause.objects.pause_queue("mail", reason="the provider is down")  # doctest: +SKIP
        """
        return self._pause(pauses.QUEUE, check_name(name, "queue name"), reason, by)

    def pause_workflow(self, name: str, reason: str = "", by: str = "") -> WorkflowPause:
        """Pause a workflow in all its versions, as `pause_queue()` does a queue."""
        return self._pause(pauses.WORKFLOW, check_name(name, "workflow name"), reason, by)

    def resume_queue(self, name: str, by: str = "") -> bool:
        """Let workers take runs from a queue again; whether it was paused. `by`, who does it, is logged."""
        return self._resume(pauses.QUEUE, name, by)

    def resume_workflow(self, name: str, by: str = "") -> bool:
        """Let workers take runs of a workflow again, as `resume_queue()` from a queue."""
        return self._resume(pauses.WORKFLOW, name, by)

    def _pause(self, kind: str, name: str, reason: str, by: str) -> WorkflowPause:
        refuse_control_outside_step("pause")
        alias, connection = _connection()
        defaults = {"reason": reason, "by": by[:MAX_LENGTH], "since": timezone.now()}
        pause, is_new = self.using(alias).get_or_create(kind=kind, name=name, defaults=defaults)
        pause.created = is_new
        # Where this is a transaction, no worker sees the pause yet, and they park what is ready once they do.
        connection.on_commit(lambda: pauses.park_all(connection), robust=True)
        return pause

    def _resume(self, kind: str, name: str, by: str) -> bool:
        refuse_control_outside_step("resume")
        alias, connection = _connection()
        deleted, _rows = self.using(alias).filter(kind=kind, name=name).delete()
        if deleted and by:
            connection.on_commit(lambda: logger.info("The %s %s was resumed by %s.", kind, name, by), robust=True)

        def bring_back() -> None:
            if pauses.unpark_all(connection):
                notify.workers(connection)

        connection.on_commit(bring_back, robust=True)
        return deleted > 0


class WorkflowPause(models.Model):
    """A queue or a workflow that is paused: workers take no runs of it, but for those that somebody has resumed."""

    class Kind(models.TextChoices):
        QUEUE = pauses.QUEUE, _("queue")
        WORKFLOW = pauses.WORKFLOW, _("workflow")

    kind = models.CharField(_("kind"), max_length=16, choices=Kind.choices)
    name = ExactCharField(_("name"), max_length=MAX_LENGTH)
    reason = models.TextField(_("reason"), default="", db_default="", blank=True)
    by = models.CharField(_("by"), max_length=MAX_LENGTH, default="", db_default="", blank=True)
    since = models.DateTimeField(_("since"))

    # Whether this call made it; False: it was paused already, and this is that pause.
    created = True

    objects: ClassVar[WorkflowPauseManager] = WorkflowPauseManager()

    class Meta:
        verbose_name = _("pause")
        verbose_name_plural = _("pauses")
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["kind", "name"], name="django_steps_pause_name")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.name}"

    def resume(self, by: str = "") -> bool:
        """Let workers take these runs again; whether they were paused still. `by`, who does it, is logged."""
        return WorkflowPause.objects._resume(self.kind, self.name, by)


def _connection() -> tuple[str, BaseDatabaseWrapper]:
    """The alias of the database of the pauses, and its connection, which has to be one that can do more after the commit."""
    alias = router.db_for_write(WorkflowPause)
    connection = database.connection_for(alias)
    notify.ensure_possible(connection)
    return alias, connection
