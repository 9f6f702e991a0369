"""The table of schedules: those of the code, which workers write, and those that people make here or in the admin."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, router
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .. import values
from ..core import clock, tags
from ..core.context import refuse_control_outside_step, refuse_outside_step
from ..core.names import MAX_LENGTH, check_name
from ..errors import InvalidInput, InvalidState, StepsError
from ..ledger import database, inserts, notify
from ..ledger import schedules as ledger
from .fields import PartialIndex
from .run import WorkflowRun
from .schedule_columns import DEFINITION, TIMING, ScheduleColumns

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger("django_steps")


class WorkflowSchedule(ScheduleColumns):
    """A schedule: it starts runs of a workflow by a cron expression, or every so often.

    >>> WorkflowSchedule.objects.create(name="customer-7", workflow="sync", cron="0 * * * *", input={"customer": 7})
    ... # doctest: +SKIP
    """

    if TYPE_CHECKING:
        objects: ClassVar[models.Manager[WorkflowSchedule]]

    class Meta:
        verbose_name = _("workflow schedule")
        verbose_name_plural = _("workflow schedules")
        ordering = ["name"]
        permissions = [
            ("pause_workflowschedule", _("Can pause workflow schedules")),
            ("run_workflowschedule", _("Can run workflow schedules now")),
        ]
        indexes = [PartialIndex(fields=["next_at_us"], where=Q(next_at_us__isnull=False), name="django_steps_next")]

    # -- Saving ---------------------------------------------------------------------------------

    def clean(self) -> None:
        """Raise `ValidationError` for what could not be fired: an unknown workflow, an input that it doesn't take, a cron
        expression or a time zone that nobody knows."""
        errors: dict[str, Any] = {}
        try:
            self.name = check_name(self.name, "schedule name")
        except StepsError as error:
            errors["name"] = str(error)
        if self.cron and not self.timezone:
            self.timezone = settings.TIME_ZONE
        if self.timezone and self.every:
            errors["timezone"] = _("A time zone is for cron: every counts from the beginning of 1970 in UTC.")
        try:
            self.timing()
        except (TypeError, ValueError) as error:
            errors["timezone" if "time zone" in str(error) else "every" if self.every else "cron"] = str(error)
        if self.pause_after == 0:
            errors["pause_after"] = _("At least 1.")
        try:
            self.tags = tags.check_tags(self.tags)
        except (StepsError, TypeError, ValueError) as error:
            errors["tags"] = str(error)
        errors |= self._check_against_code()
        if errors:
            raise ValidationError(errors)

    def _check_against_code(self) -> dict[str, Any]:
        """Make the input one of the workflow; what is wrong, by field."""
        from ..definitions import scheduling

        errors: dict[str, Any] = scheduling.wrong_places(self.queue, self.priority)
        try:
            text, search = scheduling.encoded(self.workflow, self.version, values.decode(self.input_text))
        except InvalidInput as error:
            return {**errors, "__all__": str(error)}
        except StepsError as error:
            return {**errors, "workflow": str(error)}
        self.input_text, self.input_search = text, search
        return errors

    def save(self, **options: Any) -> None:
        """Validate and write it. A change never fires retroactively: a new time counts from now on.

        Raises `ValidationError`, and `TypeError` for a schedule that the code defines.
        """
        if self.is_of_code:
            raise TypeError(f"Schedule {self.name!r} is defined in code; it is changed there. Here: pause(), resume().")
        refuse_control_outside_step("save")
        self.full_clean()
        alias = options.setdefault("using", router.db_for_write(type(self), instance=self))
        connection = database.connection_for(alias)
        now = database.read_clock(connection)
        if self._state.adding:
            self.next_at_us = self.timing().next_fire(now)
            self.counts_from_us = now
        else:
            # What workers and operators write is not to be put back to what it was when this was read.
            options["update_fields"] = [*DEFINITION, *self._moved(alias, now)]
        super().save(**options)
        notify.workers(connection)

    def _moved(self, alias: str, now: int) -> list[str]:
        """Set when it fires next, if it fires at other times than what is in the database; the fields that were set."""
        before = type(self)._base_manager.using(alias).get(pk=self.pk)
        if before.name != self.name:
            raise ValidationError({"name": _("A schedule keeps its name: its runs are known by it.")})
        self.paused_at, self.disabled_reason = before.paused_at, before.disabled_reason
        self.next_at_us = before.next_at_us
        if self.is_paused or (not self.is_disabled and all(getattr(self, f) == getattr(before, f) for f in TIMING)):
            return []
        self.disabled_reason, self.next_at_us = "", self.timing().next_fire(now)
        return ["disabled_reason", "next_at_us"]

    # -- Controls -------------------------------------------------------------------------------

    @property
    def runs(self) -> models.QuerySet[WorkflowRun]:
        """The runs that it has started, and that are not deleted yet; the newest first."""
        alias = self._state.db or router.db_for_read(WorkflowRun)
        return WorkflowRun.objects.using(alias).filter(schedule=self.name).order_by("-scheduled_for", "-pk")

    @property
    def last_run(self) -> WorkflowRun | None:
        """The run that it has started last; None if there is none, or it is deleted."""
        alias = self._state.db or router.db_for_read(WorkflowRun)
        return WorkflowRun.objects.using(alias).filter(pk=self.last_run_id).first() if self.last_run_id else None

    def pause(self, reason: str = "", by: str = "") -> None:
        """Start no runs until `resume()`. It survives deploys. Pausing what is paused changes nothing.

        `reason` and `by` (who does it) are kept as `pause_reason` and `paused_by`, for people.
        """
        refuse_control_outside_step("pause")
        connection = self._connection()
        now = database.read_clock(connection)
        ledger.pause(connection, [self.pk], clock.to_datetime(now), reason, by[:MAX_LENGTH])
        self.refresh_from_db(using=connection.alias)

    def resume(self) -> None:
        """Start runs again, from the next time on: what it has left out meanwhile is not made up for."""
        refuse_control_outside_step("resume")
        connection = self._connection()
        self.refresh_from_db(using=connection.alias)
        if not self.is_paused:
            return
        now = database.read_clock(connection)
        next_at = None if self.is_disabled else self.timing().next_fire(now)
        ledger.resume(connection, self.pk, next_at, now)
        self.refresh_from_db(using=connection.alias)
        notify.workers(connection)

    def run_now(self, by: str = "") -> WorkflowRun:
        """Start a run now, paused or not, whatever other runs of it are active. Its `scheduled_for` is the present time.

        Raises `InvalidState` while it is disabled, and `InvalidInput` where the key function of a limit fails for its input.
        """
        from ..definitions import scheduling

        refuse_outside_step("run_now")
        connection = self._connection()
        self.refresh_from_db(using=connection.alias)
        row = ledger.read(connection, self.name)
        if row is None or self.is_disabled:
            raise InvalidState(f"Schedule {self.name!r} is disabled: {self.disabled_reason}")
        now = database.read_clock(connection)
        new = row.new_run(now, scheduling.targets().get(self.workflow), key=None)
        inserts.insert(connection, new)
        notify.workers(connection)
        logger.info("Schedule %r was run now%s: run %s.", self.name, f" by {by}" if by else "", new.id)
        return WorkflowRun.objects.using(connection.alias).get(pk=new.id)

    async def apause(self, reason: str = "", by: str = "") -> None:
        """`pause()` for async code."""
        await sync_to_async(self.pause)(reason, by)

    async def aresume(self) -> None:
        """`resume()` for async code."""
        await sync_to_async(self.resume)()

    async def arun_now(self, by: str = "") -> WorkflowRun:
        """`run_now()` for async code."""
        return await sync_to_async(self.run_now)(by)

    def _connection(self) -> BaseDatabaseWrapper:
        connection = database.connection_for(router.db_for_write(type(self), instance=self))
        notify.ensure_possible(connection)
        return connection
