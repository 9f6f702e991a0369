"""`manage.py showschedules`: the schedules, when they fire next, and how their last runs went. It only looks."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...models import WorkflowRun, WorkflowSchedule
from ...presentation import durations, output
from ...presentation import schedules as texts
from .. import base, details

_LAST_RUNS = 5


class Command(base.WorkflowCommand):
    help = gettext_lazy("Show the schedules: when each fires next, how its last run went, and what it has skipped.")
    epilog = gettext_lazy(
        "--json prints a list of objects with the keys name, source, workflow, version, cron, every, timezone, spread,\n"
        "overlap, missed, pause_after, queue, priority, tags, next_at, next_times, paused_at, paused_by, pause_reason,\n"
        "disabled_reason, last_slot, last_run (id, status), skipped (counts, since, last). Times are ISO 8601.\n"
        "exit codes: 0 shown, 1 not found\n"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", metavar="NAME", help=_("One schedule, in detail."))
        parser.add_argument("--json", action="store_true", help=_("Print JSON."))

    def carry_out(self, **options: Any) -> None:
        alias = base.connection().alias
        found = WorkflowSchedule.objects.using(alias).order_by("name")
        if options["name"]:
            found = found.filter(name=options["name"])
            if not found:
                raise CommandError(_("There is no schedule with the name %(name)r.") % {"name": options["name"]})
        shown = list(found)
        last = texts.last_runs(shown, alias)
        if options["json"]:
            self.write_json([texts.as_json(schedule, last.get(schedule.pk)) for schedule in shown])
        elif options["name"]:
            self.show_one(shown[0])
        elif not shown:
            self.stdout.write(_("There are no schedules."))
        else:
            self.show_many(shown, last)

    def show_many(self, shown: list[WorkflowSchedule], last: dict[int, WorkflowRun]) -> None:
        header = [_("SCHEDULE"), _("WORKFLOW"), _("WHEN"), _("NEXT"), _("LAST RUN")]
        rows = [
            [
                schedule.name,
                schedule.workflow,
                texts.when(schedule),
                durations.short_moment(schedule.next_at) or "-",
                last[schedule.pk].status if schedule.pk in last else "-",
            ]
            for schedule in shown
        ]
        width = output.width_of(self.stdout)
        lines = output.table(header, rows, width, shrink=2, paint=details.paint(self.style))
        notes = [", ".join(filter(None, [texts.state(s), texts.skipped(s)])) for s in shown]
        self.stdout.write("\n".join(output.with_notes(lines, notes, width)))

    def show_one(self, schedule: WorkflowSchedule) -> None:
        pairs = [
            (_("schedule"), schedule.name),
            (_("workflow"), schedule.workflow),
            (_("when"), texts.when(schedule)),
            (_("state"), texts.state(schedule)),
            (_("tags"), ", ".join(f"{name}={value}" for name, value in texts.tags(schedule))),
            (_("skipped"), texts.skipped(schedule)),
            *[(_("next"), f"{moment:%Y-%m-%d %H:%M:%S %Z}") for moment in texts.next_times(schedule)],
            *[
                (_("run"), f"{run.pk}  {durations.full_moment(run.scheduled_for)}  {run.status}")
                for run in schedule.runs[:_LAST_RUNS]
            ],
        ]
        lines = output.pairs([(key, value) for key, value in pairs if value], output.width_of(self.stdout))
        self.stdout.write("\n".join(lines))
