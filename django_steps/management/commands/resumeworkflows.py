"""`manage.py resumeworkflows`: lets paused runs, queues and workflows go on."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...models import WorkflowPause
from .. import base, bulk, pausing


class Command(base.WorkflowCommand):
    help = gettext_lazy("Let paused runs, queues, workflows or schedules go on.")
    epilog = gettext_lazy(
        "examples:\n"
        "  resumeworkflows 0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f\n"
        "  resumeworkflows --queue mail\n"
        "\n"
        "A run that is resumed while its queue or its workflow is paused is let through until it ends.\n"
        "\n"
        "exit codes: 0 resumed, 1 not resumed, or a run that does not exist, or a name that is not paused\n"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        pausing.add_targets(parser)

    def carry_out(self, **options: Any) -> None:
        pausing.check_targets(options)
        if options["run_ids"]:
            self._resume_runs(options)
            return
        not_paused, by = [], pausing.author(options)
        schedules = pausing.named_schedules(options)
        for name in options["queue"]:
            said = {"name": name}
            if WorkflowPause.objects.resume_queue(name, by):
                self._say(_("Queue %(name)s is resumed.") % said, options)
            else:
                not_paused.append(_("Queue %(name)s is not paused.") % said)
        for name in options["workflow"]:
            said = {"name": name}
            if WorkflowPause.objects.resume_workflow(name, by):
                self._say(_("Workflow %(name)s is resumed.") % said, options)
            else:
                not_paused.append(_("Workflow %(name)s is not paused.") % said)
        for schedule in schedules:
            said = {"name": schedule.name}
            if schedule.is_paused:
                schedule.resume()
                self._say(_("Schedule %(name)s is resumed.") % said, options)
            else:
                not_paused.append(_("Schedule %(name)s is not paused.") % said)
        if not_paused:
            raise CommandError("\n".join(not_paused))

    def _say(self, text: str, options: dict[str, Any]) -> None:
        if options["verbosity"]:
            self.stdout.write(text)

    def _resume_runs(self, options: dict[str, Any]) -> None:
        by, is_rehearsal = pausing.author(options), options["dry_run"]
        report = bulk.carry_out(
            lambda some: some.resume(by=by), pausing.named_runs(options), self.stdout, is_rehearsal=is_rehearsal
        )
        if is_rehearsal:
            text = ngettext("%(count)d run would be resumed.", "%(count)d runs would be resumed.", report.done)
        else:
            text = ngettext("%(count)d run is resumed.", "%(count)d runs are resumed.", report.done)
        bulk.tell(self, report, text, options)
