"""`manage.py sendevent`: sends an event to a run, or to whichever run of a workflow has a key."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...core.event import Event
from ...definitions import get_workflow
from ...definitions.registry import masked_keys
from ...errors import InvalidInput
from ...forms.checking import check
from ...forms.waits import waited_type
from ...models import WorkflowRun
from ...presentation.waits import Waits
from .. import arguments, base, bulk, typed_json


class Command(base.WorkflowCommand):
    help = gettext_lazy(
        "Send an event to a run, or to whichever run of a workflow has a key. A wait takes it, now or later."
    )
    epilog = gettext_lazy(
        "examples:\n"
        "  sendevent 0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f approval '{\"ok\": true}' --by eve\n"
        "  sendevent --workflow process_order --key order-7 paid --id evt_1\n"
        "  sendevent 0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f report - < report.json\n"
        "\n"
        "Runs of every status but succeeded take events. With --key the run need not exist yet.\n"
        "exit codes: 0 sent, or the --id was sent before; 1 not sent\n"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add(
            "words",
            nargs="+",
            metavar="[RUN_ID] NAME [JSON]",
            help=_(
                "The run, unless --workflow and --key say which; the name of the event; its payload as JSON, `-` reads it"
                " from stdin (default: null)."
            ),
        )
        add("--workflow", metavar="W", help=_("With --key: the workflow of the run."))
        add("--key", metavar="K", help=_("The key of the run; the next run that starts with it takes the event, too."))
        add("--id", metavar="ID", help=_("The event's own id: what is sent again with it is the same event."))
        add("--by", default="", metavar="WHO", help=_("Who sends it, for whoever looks at the run later."))

    def carry_out(self, **options: Any) -> None:
        sent = {"id": options["id"], "by": options["by"]}
        words = list(options["words"])
        if options["workflow"] is None and options["key"] is None:
            run = _run(words.pop(0))
            name, payload = _name_and_payload(words)
            _check(run, name, payload)
            event = run.send_event(name, payload, **sent)
            self.tell(event, run, options)
            return
        if options["workflow"] is None or options["key"] is None:
            raise CommandError(_("--workflow and --key go together."))
        workflow = get_workflow(options["workflow"])
        name, payload = _name_and_payload(words)
        found = bulk.all_runs().filter(workflow=workflow.name, key=options["key"]).first()
        if found is not None:
            _check(found, name, payload)
        event = workflow.send_event(name, payload, key=options["key"], **sent)
        self.tell(event, found, options)

    def tell(self, event: Event[Any], run: WorkflowRun | None, options: dict[str, Any]) -> None:
        """What was sent to whom, and what will become of it."""
        if options["verbosity"] == 0:
            return
        say = self.stdout.write
        if not event.created:
            text = _("An event with the id %(id)r was sent to it before. Nothing was sent.")
            say(text % {"id": event.id})
        elif run is None:
            text = _(
                "Sent event %(name)r. No run of %(workflow)s has the key %(key)r: the next one that starts with it takes it."
            )
            say(text % {"name": event.name, "workflow": options["workflow"], "key": options["key"]})
        else:
            text = _("Sent event %(name)r to %(workflow)s, run %(id)s")
            say(text % {"name": event.name, "workflow": run.workflow, "id": run.pk})
            if run.status == run.Status.WAITING and run.waiting_for and event.name not in run.waiting_for:
                text = _("The run %(waits)s: the event is kept until a wait of its name takes it.")
                say(text % {"waits": Waits(run.waiting_for)})
            elif run.status in run.RETRYABLE:
                text = _("The run is %(status)s: a retry of it can take the event.")
                say(text % {"status": run.get_status_display()})


def _run(text: str) -> WorkflowRun:
    """The run of this id, as it is before the event is sent; `CommandError` for what is none."""
    try:
        run_id = arguments.run_id(text)
    except ArgumentTypeError as error:
        raise CommandError(_("Give a RUN_ID, or --workflow and --key: %(problem)s") % {"problem": error}) from None
    return bulk.all_runs().get(pk=bulk.existing([run_id])[0])


def _check(run: WorkflowRun, name: str, payload: Any) -> None:
    """Raise `CommandError` if a wait that the run has reached would fail with this payload."""
    try:
        check(waited_type(run, name), payload, masked_keys(run.workflow))
    except InvalidInput as error:
        text = _("The payload does not fit what the run waits for: %(problems)s. Nothing was sent.")
        raise CommandError(text % {"problems": "; ".join(error.errors)}) from None


def _name_and_payload(words: list[str]) -> tuple[str, Any]:
    if not words:
        raise CommandError(_("Give the name of the event."))
    if len(words) > 2:
        text = _("Too much was given: %(words)s. The payload is one argument: put JSON in quotation marks.")
        raise CommandError(text % {"words": " ".join(words[2:])})
    return words[0], typed_json.read(words[1] if len(words) == 2 else None)
