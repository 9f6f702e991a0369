"""What `pauseworkflows` and `resumeworkflows` have in common: runs by their ids, or queues, workflows and schedules by their
names."""

from __future__ import annotations

import getpass
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _

from ..models import WorkflowRun, WorkflowSchedule
from ..models.querysets import WorkflowRunQuerySet
from . import arguments, bulk


def add_targets(parser: CommandParser) -> None:
    """The arguments that say what is to be paused or resumed, and who does it."""
    add = parser.add_argument
    add("run_ids", nargs="*", type=arguments.run_id, metavar="RUN_ID", help=_("These runs."))
    add("--queue", action="append", default=[], metavar="NAME", help=_("This queue; may be repeated."))
    add(
        "--workflow",
        action="append",
        default=[],
        metavar="NAME",
        help=_("This workflow, in all its versions; may be repeated."),
    )
    add("--schedule", action="append", default=[], metavar="NAME", help=_("This schedule; may be repeated."))
    add("--by", metavar="NAME", help=_("Who does it (default: the user of this process)."))
    add("--dry-run", action="store_true", help=_("With RUN_IDs: say what would happen, and change nothing."))


def check_targets(options: dict[str, Any]) -> None:
    """`CommandError` unless the options name runs, or else queues, workflows and schedules."""
    has_names = options["queue"] or options["workflow"] or options["schedule"]
    if options["run_ids"] and has_names:
        raise CommandError(_("Give RUN_IDs, or --queue, --workflow and --schedule, not both."))
    if not options["run_ids"] and not has_names:
        raise CommandError(_("Say what: RUN_IDs, --queue NAME, --workflow NAME or --schedule NAME."))
    if options["dry_run"] and has_names:
        raise CommandError(_("--dry-run is for RUN_IDs."))


def named_runs(options: dict[str, Any]) -> WorkflowRunQuerySet[WorkflowRun]:
    """The runs that the options name."""
    return bulk.all_runs().filter(pk__in=bulk.existing(options["run_ids"]))


def named_schedules(options: dict[str, Any]) -> list[WorkflowSchedule]:
    """The schedules that the options name; `CommandError` if there is none of a name."""
    found = {schedule.name: schedule for schedule in WorkflowSchedule.objects.filter(name__in=options["schedule"])}
    if missing := [name for name in options["schedule"] if name not in found]:
        raise CommandError(_("There is no schedule %(name)s: see showschedules.") % {"name": missing[0]})
    return [found[name] for name in options["schedule"]]


def author(options: dict[str, Any]) -> str:
    """Who does it: what was typed, or the user of this process; empty where it has no name."""
    if options["by"] is not None:
        return str(options["by"])
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""
