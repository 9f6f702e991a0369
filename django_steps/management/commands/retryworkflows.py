"""`manage.py retryworkflows`: retries failed and canceled runs, some or all that failed."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...core import clock
from ...ledger import database
from ...models import WorkflowRun
from ...models.querysets import WorkflowRunQuerySet
from .. import arguments, base, bulk, failing


class Command(base.WorkflowCommand):
    help = gettext_lazy(
        "Retry failed runs: they continue from the step that failed. What was recorded before is not executed again."
    )
    epilog = gettext_lazy(
        "examples:\n"
        "  retryworkflows 0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f\n"
        "  retryworkflows --all-failed --workflow process_order --since 2h --dry-run\n"
        "  retryworkflows --error CardDeclined --step order/charge\n"
        "\n"
        "showworkflows --failures shows which errors there are, and in which steps.\n"
        "\n"
        "exit codes: 0 retried (without RUN_IDs also when some were skipped, or none was there), 1 not retried, or\n"
        "a workflow that does not exist\n"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("run_ids", nargs="*", type=arguments.run_id, metavar="RUN_ID", help=_("The failed or canceled runs."))
        add("--all-failed", action="store_true", help=_("All runs that failed."))
        failing.add_arguments(parser)
        add("--workflow", metavar="NAME", help=_("With --all-failed, --error or --step: only runs of this workflow."))
        base.add_tag(
            parser,
            _("With --all-failed, --error or --step: only runs with this tag, such as tenant=acme; may be repeated."),
        )
        add(
            "--since",
            type=arguments.duration,
            metavar="D",
            help=_("With --all-failed, --error or --step: only runs that failed in this time: 30m, 2h, 1d."),
        )
        add(
            "--from-step",
            metavar="NAME",
            help=_("Reset this step and all that were recorded after it, and execute them again."),
        )
        add("--dry-run", action="store_true", help=_("Say what would happen, and change nothing."))

    def carry_out(self, **options: Any) -> None:
        runs = self.selected(options)
        is_rehearsal, from_step = options["dry_run"], options["from_step"]
        report = bulk.carry_out(lambda some: some.retry(from_step), runs, self.stdout, is_rehearsal=is_rehearsal)
        if is_rehearsal:
            text = ngettext("%(count)d run would be retried.", "%(count)d runs would be retried.", report.done)
        else:
            text = ngettext("%(count)d run is retried.", "%(count)d runs are retried.", report.done)
        bulk.tell(self, report, text, options)

    def selected(self, options: dict[str, Any]) -> WorkflowRunQuerySet[WorkflowRun]:
        is_kind = failing.is_given(options)
        if options["run_ids"]:
            if is_kind or options["all_failed"] or options["workflow"] or options["since"] or options["tag"]:
                raise CommandError(
                    _("Give RUN_IDs, or --all-failed, --error or --step with --workflow, --tag and --since, not both.")
                )
            return bulk.all_runs().filter(pk__in=bulk.existing(options["run_ids"]))
        if is_kind and options["all_failed"]:
            raise CommandError(_("Give --all-failed, or --error and --step, not both."))
        if not is_kind and not options["all_failed"]:
            raise CommandError(_("Say which runs: RUN_IDs, --all-failed, or --error and --step."))
        runs = failing.narrowed(bulk.all_runs().failed(), options)
        if options["workflow"]:
            base.refuse_unknown_workflow(options["workflow"])
            runs = runs.filter(workflow=options["workflow"])
        if options["since"] is not None:
            since = database.read_clock(base.connection()) - arguments.microseconds(options["since"])
            runs = runs.filter(finished_at__gte=clock.to_datetime(since))
        return base.with_tags(runs, options["tag"])
