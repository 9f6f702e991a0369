"""`manage.py cancelworkflows`: cancels runs that have not ended."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...models import WorkflowRun
from ...models.querysets import WorkflowRunQuerySet
from .. import arguments, base, bulk


class Command(base.WorkflowCommand):
    help = gettext_lazy("Cancel runs. A step that is being executed ends first; no further one is executed.")
    epilog = gettext_lazy(
        "examples:\n"
        "  cancelworkflows 0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f\n"
        "  cancelworkflows --workflow send_notifications --status sleeping --dry-run\n"
        "  cancelworkflows --workflow import_orders --reason 'wrong file'\n"
        "  cancelworkflows --tag tenant=acme --dry-run\n"
        "  cancelworkflows --undo 0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f\n"
        "\n"
        "exit codes: 0 canceled (with --workflow or --tag also when some were skipped, or none was there), 1 not canceled, or\n"
        "a workflow that does not exist\n"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("run_ids", nargs="*", type=arguments.run_id, metavar="RUN_ID", help=_("The runs to cancel."))
        add("--workflow", metavar="NAME", help=_("All runs of this workflow that have not ended."))
        base.add_tag(parser, _("All runs with this tag, such as tenant=acme, that have not ended; may be repeated."))
        add(
            "--status",
            action="append",
            choices=[str(status) for status in (*WorkflowRun.CANCELABLE, WorkflowRun.Status.FAILED)],
            help=_("With --workflow or --tag: only runs of this status; may be repeated."),
        )
        add(
            "--undo",
            action="store_true",
            help=_(
                "Undo what the steps have done that have an undo. Failed runs, too, if they are named or of --status."
            ),
        )
        add("--reason", default="", metavar="TEXT", help=_("Why, for whoever looks at the runs later."))
        add("--dry-run", action="store_true", help=_("Say what would happen, and change nothing."))

    def carry_out(self, **options: Any) -> None:
        runs = self.selected(options)
        is_rehearsal = options["dry_run"]
        reason, undo = options["reason"], options["undo"]
        report = bulk.carry_out(
            lambda some: some.cancel(reason=reason, undo=undo), runs, self.stdout, is_rehearsal=is_rehearsal
        )
        if is_rehearsal:
            text = ngettext("%(count)d run would be canceled.", "%(count)d runs would be canceled.", report.done)
        elif undo:
            text = ngettext(
                "%(count)d run is canceled, and undone by workers.",
                "%(count)d runs are canceled, and undone by workers.",
                report.done,
            )
        else:
            text = ngettext("%(count)d run is canceled.", "%(count)d runs are canceled.", report.done)
        bulk.tell(self, report, text, options)

    def selected(self, options: dict[str, Any]) -> WorkflowRunQuerySet[WorkflowRun]:
        if options["run_ids"]:
            if options["workflow"] or options["status"] or options["tag"]:
                raise CommandError(_("Give RUN_IDs, or --workflow and --tag with --status, not both."))
            return bulk.all_runs().filter(pk__in=bulk.existing(options["run_ids"]))
        if not options["workflow"] and not options["tag"]:
            raise CommandError(_("Say which runs: RUN_IDs, --workflow NAME or --tag NAME=VALUE."))
        has_ended = WorkflowRun.Status.FAILED in (options["status"] or ())
        if has_ended and not options["undo"]:
            raise CommandError(_("Only with --undo can failed runs be canceled."))
        runs = base.with_tags(bulk.all_runs() if has_ended else bulk.all_runs().active(), options["tag"])
        if options["workflow"]:
            base.refuse_unknown_workflow(options["workflow"])
            runs = runs.filter(workflow=options["workflow"])
        return runs.filter(status__in=options["status"]) if options["status"] else runs
