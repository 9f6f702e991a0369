"""`manage.py startworkflow`: starts one run, with its input as JSON."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...core.tags import check_tags, merged
from ...definitions import Workflow, get_workflow
from ...models import WorkflowRun, diagnosis, results
from ...presentation import durations
from ...presentation import json as run_json
from ...presentation.values import Mask
from .. import arguments, base, typed_json


class Command(base.WorkflowCommand):
    help = gettext_lazy("Start a run of a workflow.")
    epilog = gettext_lazy(
        "examples:\n"
        "  startworkflow process_order '{\"order_id\": 7}'\n"
        "  startworkflow process_order - < order.json\n"
        "  startworkflow nightly --delay 10m --key nightly-2030-01-01\n"
        "\n"
        "With -v 0 only the id of the run is printed; with --wait only the result, as JSON, goes to stdout.\n"
        "exit codes: 0 started (with --wait: succeeded), 1 not started (with --wait: failed or canceled)\n"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("name", metavar="NAME", help=_("The name of the workflow."))
        add("input", nargs="?", metavar="JSON", help=_("Its input as JSON; `-` reads it from stdin (default: none)."))
        add("--key", metavar="K", help=_("Start only one run with this key; later starts find the first."))
        add("--active-key", metavar="K", help=_("Start no other run with this active key until this one has ended."))
        add("--delay", type=arguments.duration, metavar="D", help=_("Not before so long from now: 30s, 10m, 2h, 1d."))
        add(
            "--timeout",
            type=arguments.duration,
            metavar="D",
            help=_("How long it may take, from when it begins to its end (default: the workflow's)."),
        )
        add(
            "--start-within",
            type=arguments.duration,
            metavar="D",
            help=_("How long it may wait to begin; then it is canceled (default: the workflow's)."),
        )
        add("--queue", metavar="NAME", help=_("The queue (default: the workflow's)."))
        add(
            "--priority",
            type=arguments.priority,
            metavar="N",
            help=_("From -100 to 100, larger first (default: the workflow's)."),
        )
        base.add_tag(parser, _("A tag of the run, beside those of the workflow; may be repeated."))
        add("--wait", action="store_true", help=_("Wait for the end of the run and print its result as JSON."))

    def carry_out(self, **options: Any) -> None:
        workflow = get_workflow(options["name"])
        _check_tags(workflow, options["tag"])
        run = workflow.start(
            typed_json.read(options["input"]),
            key=options["key"],
            active_key=options["active_key"],
            delay=options["delay"],
            queue=options["queue"],
            priority=options["priority"],
            timeout=options["timeout"],
            start_within=options["start_within"],
            tags=dict(options["tag"]),
        )
        said = self.tell(run, options)
        if options["wait"]:
            self.wait(run, said)

    def tell(self, run: WorkflowRun, options: dict[str, Any]) -> diagnosis.Unclaimed | None:
        """The id, and what to type next; also why no worker will execute the run, which is returned."""
        # With --wait stdout is for the result alone.
        stream = self.stderr if options["wait"] else self.stdout
        if options["verbosity"] == 0:
            if not options["wait"]:
                stream.write(str(run.pk))
            return None

        def say(text: str) -> None:
            stream.write(text, lambda plain: plain)  # stderr would be red

        if run.created:
            say(_("Started %(workflow)s: run %(id)s") % {"workflow": run.workflow, "id": run.pk})
        elif options["active_key"] is not None and run.active_key == options["active_key"]:
            text = _("Run %(id)s is active under %(key)r, it is %(status)s. Nothing was started.")
            say(text % {"key": run.active_key, "id": run.pk, "status": run.get_status_display()})
        else:
            text = _("The key %(key)r was used before, by run %(id)s, which is %(status)s. Nothing was started.")
            say(text % {"key": run.key, "id": run.pk, "status": run.get_status_display()})
        if run.created and run.wakes_at:
            say(_("It is due at %(moment)s.") % {"moment": durations.full_moment(run.wakes_at)})
        if not options["wait"]:
            say(_("Look at it with:   %(manage)s showworkflows %(id)s") % {"manage": base.manage(), "id": run.pk})
        unclaimed = None if run.is_finished else diagnosis.why_unclaimed(base.connection(), run)
        if unclaimed is not None:
            say(unclaimed.text(base.manage()))
        return unclaimed

    def wait(self, run: WorkflowRun, said: diagnosis.Unclaimed | None) -> None:
        """Print the result when it is there; what ended the run otherwise is raised.

        If no worker executes it, that is said, unless `said` is the same.
        """

        def say(unclaimed: diagnosis.Unclaimed) -> None:
            if unclaimed != said:
                self.stderr.write(unclaimed.text(base.manage()), self.style.WARNING)

        try:
            results.wait(run, None, say)
            if run.status != run.Status.SUCCEEDED:
                run.result()  # raises why
        except KeyboardInterrupt:
            raise CommandError(_("Stopped waiting; run %(id)s continues.") % {"id": run.pk}) from None
        self.write_json(run_json.value(run.output_text, Mask.of(run)))


def _check_tags(workflow: Workflow[Any, Any], given: list[tuple[str, str]]) -> None:
    """`CommandError` for what can't be tags of its runs."""
    try:
        merged(workflow.tags, check_tags(dict(given)))
    except ValueError as error:
        raise CommandError(str(error)) from error
