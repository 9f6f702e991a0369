"""`manage.py pauseworkflows`: pauses runs, queues, workflows and schedules."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...errors import InvalidName
from ...models import WorkflowPause
from ...presentation import pauses
from .. import base, bulk, pausing


class Command(base.WorkflowCommand):
    help = gettext_lazy(
        "Pause runs, queues, workflows or schedules until they are resumed. A step that is being executed ends first."
    )
    epilog = gettext_lazy(
        "examples:\n"
        "  pauseworkflows 0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f\n"
        "  pauseworkflows --queue mail --reason 'the provider is down'\n"
        "  pauseworkflows --workflow import_orders --workflow sync_shop\n"
        "  pauseworkflows --schedule customer-7\n"
        "\n"
        "A paused queue or workflow keeps the statuses of its runs. It stays paused through deployments, until\n"
        "resumeworkflows.\n"
        "\n"
        "exit codes: 0 paused, 1 not paused, or a run, workflow or schedule that does not exist\n"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        pausing.add_targets(parser)
        parser.add_argument("--reason", default="", metavar="TEXT", help=_("Why, for whoever looks at it later."))

    def carry_out(self, **options: Any) -> None:
        pausing.check_targets(options)
        by, reason = pausing.author(options), options["reason"]
        if options["run_ids"]:
            self._pause_runs(options, reason, by)
            return
        for name in options["workflow"]:
            base.refuse_unknown_workflow(name)
        schedules = pausing.named_schedules(options)
        try:
            found = [WorkflowPause.objects.pause_queue(name, reason, by) for name in options["queue"]]
        except InvalidName as error:
            raise CommandError(str(error)) from error
        found += [WorkflowPause.objects.pause_workflow(name, reason, by) for name in options["workflow"]]
        lines = [_line(pause) for pause in found]
        for schedule in schedules:
            was_paused = schedule.is_paused
            schedule.pause(reason, by)
            text = _("Schedule %(name)s is paused already.") if was_paused else _("Schedule %(name)s is paused.")
            lines.append(text % {"name": schedule.name})
        if options["verbosity"]:
            self.stdout.write("\n".join(lines))

    def _pause_runs(self, options: dict[str, Any], reason: str, by: str) -> None:
        is_rehearsal = options["dry_run"]
        report = bulk.carry_out(
            lambda some: some.pause(reason=reason, by=by),
            pausing.named_runs(options),
            self.stdout,
            is_rehearsal=is_rehearsal,
        )
        if is_rehearsal:
            text = ngettext("%(count)d run would be paused.", "%(count)d runs would be paused.", report.done)
        else:
            text = ngettext("%(count)d run is paused.", "%(count)d runs are paused.", report.done)
        bulk.tell(self, report, text, options)


def _line(pause: WorkflowPause) -> str:
    said = pauses.said(pause)
    said = said[:1].upper() + said[1:]
    return f"{said}." if pause.created else _("%(said)s already, %(why)s.") % {"said": said, "why": pauses.why(pause)}
