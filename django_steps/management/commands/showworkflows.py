"""`manage.py showworkflows`: the runs, one run in detail, or the health check. It only looks."""

from __future__ import annotations

import shlex
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...errors import FailureWasHandled, InvalidState
from ...ledger import controls, database, reports
from ...ledger import patches as ledger_patches
from ...models import WorkflowRun
from ...models.diagnosis import live_workers
from ...monitoring import health
from ...presentation import durations, logs, output, pauses, waits
from ...presentation import json as run_json
from ...presentation import runs as run_texts
from .. import arguments, base, details, failing, family, patches
from ..finding import find, runs

LIMIT = 20


class Command(base.WorkflowCommand):
    help = gettext_lazy("Show the runs of workflows, one run in detail, or whether all is well.")
    epilog = gettext_lazy(
        "DURATION is the time from the first claim to the end of a run, or until now, all waiting included.\n"
        "\n"
        "--check looks at: the database and its tables; whether a worker is alive (heard of within three of its leases);\n"
        "runs that have been ready or due for more than 60 seconds; runs of workflows that no live worker knows; queues and\n"
        "workflows that have been paused for more than a day; limits that wait for each other.\n"
        "\n"
        "--json prints a list of objects with the keys id, workflow, version, queue, priority, key, active_key,\n"
        "schedule, scheduled_for, tags, about, limits, waits_for_limit, status, attempts, recoveries, current_step,\n"
        "progress, worker, created_at, started_at, finished_at, wakes_at, timeout and start_within (seconds), expires_at,\n"
        "waiting_for, cancel_reason, canceled_by, pause_reason, paused_by, paused_at, restart_of, parent, parent_step,\n"
        "continued_as, error;\n"
        "for one run an object that also has input, output, details, overdue, recovery_log, steps (name, kind, branch, group,\n"
        "position, status, attempts, timed_out, unreached, changed_arguments, child, started_at, finished_at, wakes_at,\n"
        "output, error, earlier_attempts), events (name, payload, id, by, sent_at, taken_by, taken_at), children (how many by\n"
        "status), continues and history (what replayworkflows takes).\n"
        "With --tree: id, workflow, version, key, step, is_replaced, continued_as, status, duration in seconds, children\n"
        "(of each run the first ones), child_counts, left_out; of the first one also successors (the same of the runs that\n"
        "go on for it, the first two and the last three) and successors_left_out. Times are ISO 8601.\n"
        "A retry of the run counts the attempts of its step from 1 again; earlier_attempts has those from before, too,\n"
        "with before_retry set.\n"
        "With --logs: a list of objects with at, level, step, logger and text.\n"
        "With --check it prints an object with the keys ok and problems; with --failures a list of objects with the keys\n"
        "workflow, error_type, failed_step (the path without keys, empty for none), runs, last_failed_at; with --patches a\n"
        "list of objects with the keys workflow, name, new, old, open, ended (numbers of runs) and is_needed.\n"
        "\n"
        "exit codes: 0 shown (with --check: all is well), 1 not found, or --check found a problem\n"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add(
            "run", nargs="?", metavar="RUN", help=_("The id of a run, its beginning, or its key, to show it in detail.")
        )
        add(
            "--status",
            action="append",
            choices=WorkflowRun.Status.values,
            help=_("Only runs of this status; may be repeated."),
        )
        add("--workflow", metavar="NAME", help=_("Only runs of this workflow."))
        failing.add_arguments(parser)
        add(
            "--failures",
            action="store_true",
            help=_("Count the runs that failed by workflow, error and step, those of most runs first."),
        )
        add(
            "--since",
            type=arguments.duration,
            metavar="D",
            help=_("With --failures: only what failed in this time: 30m, 2h, 1d."),
        )
        base.add_tag(parser, _("Only runs with this tag, such as tenant=acme; may be repeated."))
        add(
            "--limit",
            type=arguments.count,
            default=LIMIT,
            metavar="N",
            help=_("How many runs to show, the newest first, or how many kinds of failures (default: %(limit)d).")
            % {"limit": LIMIT},
        )
        add("--json", action="store_true", help=_("Print JSON."))
        add(
            "--tree",
            action="store_true",
            help=_("With RUN: the run, all child runs below it, what it continued as."),
        )
        add("--logs", action="store_true", help=_("With RUN: the log lines that are kept of it, see CAPTURE_LOGS."))
        add(
            "--patches",
            action="store_true",
            help=_("Show which way the runs go at each step.patched(), and when the line may be taken out."),
        )
        add("--check", action="store_true", help=_("Check whether runs are executed as they should be."))

    def carry_out(self, **options: Any) -> None:
        with database.reading_damaged(base.connection()):
            self.show(options)

    def show(self, options: dict[str, Any]) -> None:
        """Show what was asked for."""
        is_kind = failing.is_given(options)
        has_filter = bool(options["status"] or options["workflow"] or options["tag"] or is_kind)
        if options["failures"]:
            others = ("run", "status", "tag", "tree", "check", "logs")
            if is_kind or any(options[name] for name in others):
                raise CommandError(_("--failures takes --workflow, --since, --limit and --json, nothing else."))
            self.show_failures(options)
            return
        if options["patches"]:
            self.refuse_others(options, has_filter=bool(options["status"] or options["tag"] or is_kind))
            self.show_patches(options)
            return
        if options["since"] is not None:
            raise CommandError(_("--since takes --failures."))
        if options["tree"] and (not options["run"] or has_filter or options["check"]):
            raise CommandError(_("--tree takes a RUN, and no other option that chooses runs, nor --check."))
        if options["logs"] and (not options["run"] or has_filter or options["check"] or options["tree"]):
            raise CommandError(_("--logs takes a RUN, and no other option that chooses runs, nor --tree or --check."))
        if options["check"]:
            if options["run"] or has_filter:
                raise CommandError(_("--check looks at everything: it takes no RUN, and no option that chooses runs."))
            self.check_health(options["json"])
        elif options["run"]:
            if has_filter:
                raise CommandError(_("Give a RUN, or options that choose runs, not both."))
            run = find(options["run"])
            if options["logs"]:
                self.show_logs(run, options["json"])
            elif options["tree"]:
                self.show_tree(run, options["json"])
            else:
                self.show_one(run, options["json"])
        else:
            self.show_many(options)

    def check_health(self, as_json: bool) -> None:
        problems = health.problems(base.connection(), base.manage())
        if as_json:
            self.write_json({"ok": not problems, "problems": problems}, indent=None)
        elif problems:
            self.stdout.write("\n".join(problems))
        else:
            workers = len(live_workers(base.connection()))
            text = ngettext(
                "OK: %(count)d live worker, nothing overdue.", "OK: %(count)d live workers, nothing overdue.", workers
            )
            self.stdout.write(text % {"count": workers}, self.style.SUCCESS)
        if problems:
            text = ngettext("The check found %(count)d problem.", "The check found %(count)d problems.", len(problems))
            raise CommandError(text % {"count": len(problems)})

    def show_one(self, run: WorkflowRun, as_json: bool) -> None:
        if as_json:
            self.write_json(run_json.as_detailed_json(run))
        else:
            self.stdout.write("\n".join(details.describe(run, output.width_of(self.stdout), self.style)))
            if run.status == run.Status.FAILED:
                self.stdout.write("\n" + how_to_retry(run))

    def show_tree(self, run: WorkflowRun, as_json: bool) -> None:
        found = family.read(run)
        if as_json:
            self.write_json(family.as_json(found))
        else:
            width = output.width_of(self.stdout)
            self.stdout.write("\n".join(family.lines(found, width, details.paint(self.style))))

    def show_logs(self, run: WorkflowRun, as_json: bool) -> None:
        lines = logs.of_run(run)
        if as_json:
            self.write_json(logs.as_json(lines))
        else:
            self.stdout.write("\n".join(logs.as_text(lines)))

    def show_many(self, options: dict[str, Any]) -> None:
        found = runs().defer("input_text", "input_search", "output_text", "details_text").order_by("-pk")
        if options["status"]:
            found = found.filter(status__in=options["status"])
        if options["workflow"]:
            base.refuse_unknown_workflow(options["workflow"])
            found = found.filter(workflow=options["workflow"])
        found = failing.narrowed(found, options)
        found = base.with_tags(found, options["tag"])
        limit = options["limit"]
        shown = list(pauses.with_holds(found)[: limit + 1])
        is_cut = len(shown) > limit
        shown = shown[:limit]
        if options["json"]:
            self.write_json([run_json.as_json(run) for run in shown])
        elif not shown:
            self.stdout.write(nothing_found(options))
        else:
            self.stdout.write("\n".join(self.list_of(shown)))
            if is_cut:
                text = _("The newest %(limit)d are shown; --limit %(more)d shows more, --status and --workflow fewer.")
                self.stdout.write("\n" + text % {"limit": limit, "more": limit * 5})

    def show_failures(self, options: dict[str, Any]) -> None:
        connection, since = base.connection(), None
        if options["workflow"]:
            base.refuse_unknown_workflow(options["workflow"])
        if options["since"] is not None:
            since = database.read_clock(connection) - arguments.microseconds(options["since"])
        kinds = reports.failure_kinds(connection, workflow=options["workflow"] or "", since=since)
        shown = kinds[: options["limit"]]
        if options["json"]:
            self.write_json(failing.as_json(shown))
        elif not shown:
            self.stdout.write(_("No run has failed."))
        else:
            written = failing.lines(shown, output.width_of(self.stdout))
            if len(kinds) > len(shown):
                written.append(_("… and %(count)d more") % {"count": len(kinds) - len(shown)})
            self.stdout.write("\n".join([*written, "", failing.how_to_retry(shown[0], options["since"])]))

    def refuse_others(self, options: dict[str, Any], *, has_filter: bool) -> None:
        """`CommandError` where `--patches` was typed with what it does not take."""
        if has_filter or any(options[name] for name in ("run", "since", "tree", "check", "logs")):
            raise CommandError(_("--patches takes --workflow and --json, nothing else."))

    def show_patches(self, options: dict[str, Any]) -> None:
        if options["workflow"]:
            base.refuse_unknown_workflow(options["workflow"])
        uses = ledger_patches.uses(base.connection(), options["workflow"] or "")
        if options["json"]:
            self.write_json(patches.as_json(uses))
        elif not uses:
            self.stdout.write(_("No run that has not succeeded has asked for a patch."))
        else:
            self.stdout.write("\n".join(patches.lines(uses, output.width_of(self.stdout))))

    def list_of(self, shown: list[WorkflowRun]) -> list[str]:
        header = [_("RUN"), _("WORKFLOW"), _("STATUS"), _("CREATED"), _("DURATION")]
        rows = [
            [
                str(run.pk),
                run_texts.kind_of(run),
                run.status,
                durations.short_moment(run.created_at),
                durations.duration(run_texts.took(run)),
            ]
            for run in shown
        ]
        width = output.width_of(self.stdout)
        lines = output.table(header, rows, width, shrink=1, paint=details.paint(self.style))
        retrying, waiting = run_texts.retrying_steps(shown), waits.of_runs(shown)
        said = [run_texts.detail(run, retrying.get(run.pk), waiting.get(run.pk), pauses.held(run)) for run in shown]
        notes = [", ".join(filter(None, [detail, child_of(run)])) for run, detail in zip(shown, said, strict=True)]
        return output.with_notes(lines, notes, width)


def child_of(run: WorkflowRun) -> str:
    """Whose child a run is; empty for others."""
    return "" if run.parent_id is None else _("child of %(parent)s") % {"parent": run.parent_id}


def how_to_retry(run: WorkflowRun) -> str:
    """What to type for a retry: one that will not be refused."""
    text, step = _("Retry it with:   %(manage)s retryworkflows %(id)s"), ""
    try:
        controls.failures_to_reset(base.connection(), run.pk)
    except FailureWasHandled as handled:
        text = _(
            "Its failure was handled. Retry it from a step:   %(manage)s retryworkflows %(id)s --from-step %(step)s"
        )
        step = shlex.quote(handled.from_steps[0])
    except InvalidState as refused:  # runs that it has invoked can't be retried
        return output.one_line(refused)
    return text % {"manage": base.manage(), "id": run.pk, "step": step}


def nothing_found(options: dict[str, Any]) -> str:
    """What to say instead of an empty table."""
    if options["status"] or options["workflow"] or options["tag"] or failing.is_given(options):
        return _("No runs match.")
    return _("There are no runs yet. Start one with: %(manage)s startworkflow NAME") % {"manage": base.manage()}
