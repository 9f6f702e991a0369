"""`manage.py pruneworkflows`: deletes runs that ended long ago, with their steps."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...core import clock
from ...ledger import database, pruning
from ...models import WorkflowRun
from ...models.deleting import Pruner
from ...presentation import durations, output
from .. import arguments, base

Status = WorkflowRun.Status


class Command(base.WorkflowCommand):
    help = gettext_lazy("Delete runs that ended long ago, with their steps. Their keys are free again.")
    epilog = gettext_lazy(
        "examples:\n"
        "  pruneworkflows --older-than 30d --dry-run\n"
        "  pruneworkflows --older-than 2w --status succeeded --status canceled\n"
        "\n"
        "It asks before it deletes, unless --noinput is given.\n"
        "Runs that have not ended are never deleted. The setting RETENTION lets the workers do this by themselves.\n"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add(
            "--older-than",
            type=arguments.duration_with_unit,
            required=True,
            metavar="D",
            help=_("Runs that ended longer ago than this: 12h, 30d, 8w."),
        )
        add(
            "--status",
            action="append",
            default=[],
            choices=Status.values,
            help=_("Only runs of this status (succeeded, failed, canceled); may be repeated."),
        )
        add(
            "--noinput",
            "--no-input",
            action="store_false",
            dest="interactive",
            help=_("Do not ask before deleting."),
        )
        add("--dry-run", action="store_true", help=_("Say what would be deleted, and delete nothing."))

    def carry_out(self, **options: Any) -> None:
        active = [status for status in options["status"] if status not in WorkflowRun.FINISHED]
        if active:
            text = _("A run that is %(status)s has not ended; only succeeded, failed and canceled ones are deleted.")
            raise CommandError(text % {"status": active[0]})
        connection = base.connection()
        before = database.read_clock(connection) - arguments.microseconds(options["older_than"])
        statuses = list(dict.fromkeys(options["status"])) or [str(status) for status in WorkflowRun.FINISHED]
        counts = {status: pruning.count(connection, before, [status]) for status in statuses}
        total = sum(counts.values())
        if options["dry_run"]:
            self.report(total, counts, before, is_rehearsal=True)
            return
        if total and options["interactive"]:
            self.ask(total, counts, before)
        pruner = Pruner()
        with output.Progress(self.stdout) as progress:
            while pruner.batch(connection, before, statuses):
                text = _("%(done)d of %(total)d deleted …")
                progress.show(text % {"done": pruner.deleted, "total": max(total, pruner.deleted)})
        deleted = pruner.deleted
        if options["verbosity"] and (deleted or not pruner.kept):
            self.report(deleted, counts if deleted == total else {}, before, is_rehearsal=False)
        if pruner.kept:
            self.tell_kept(pruner)

    def ask(self, total: int, counts: dict[str, int], before: int) -> None:
        """Have a person agree; `CommandError` if none does."""
        if not sys.stdin.isatty():
            raise CommandError(
                _("Nothing was deleted: it asks first, and there is no terminal. Say --dry-run, or --noinput.")
            )
        self.report(total, counts, before, is_rehearsal=True)
        try:
            answer = input(_("Type 'yes' to delete them, anything else to keep them: "))
        except (EOFError, KeyboardInterrupt):
            answer = ""
        if answer.strip().lower() != "yes":
            raise CommandError(_("Nothing was deleted."))

    def tell_kept(self, pruner: Pruner) -> None:
        """What could not be deleted; `CommandError` if that is everything."""
        text = ngettext(
            "%(count)d run can't be deleted: %(reason)s",
            "%(count)d runs can't be deleted. The first: %(reason)s",
            pruner.kept,
        ) % {"count": pruner.kept, "reason": output.one_line(pruner.reason)}
        if not pruner.deleted:
            raise CommandError(text)
        self.stderr.write(text, self.style.WARNING)

    def report(self, total: int, counts: dict[str, int], before: int, *, is_rehearsal: bool) -> None:
        moment = durations.full_moment(clock.to_datetime(before))
        if not total:
            self.stdout.write(_("There are no such runs that ended before %(moment)s.") % {"moment": moment})
            return
        if is_rehearsal:
            text = ngettext(
                "%(count)d run that ended before %(moment)s would be deleted%(parts)s.",
                "%(count)d runs that ended before %(moment)s would be deleted%(parts)s.",
                total,
            )
        else:
            text = ngettext(
                "%(count)d run that ended before %(moment)s is deleted%(parts)s.",
                "%(count)d runs that ended before %(moment)s are deleted%(parts)s.",
                total,
            )
        parts = ", ".join(f"{count} {Status(status).label}" for status, count in counts.items() if count)
        self.stdout.write(text % {"count": total, "moment": moment, "parts": f" ({parts})" if parts else ""})
