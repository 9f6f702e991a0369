"""`manage.py replayworkflows`: whether runs in flight fit the code that is checked out. It executes and writes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...core.states import FINISHED
from ...models import WorkflowRun
from ...presentation import output
from ...replaying import recordings, verdicts
from ...replaying.recordings import Recording
from ...replaying.threads import Replayer
from ...replaying.verdicts import Verdict
from .. import arguments, base
from ..finding import find

_LIMIT = 1000
_NAMED = 3  # runs, of those with the same problems


class Command(base.WorkflowCommand):
    help = gettext_lazy(
        "Call the bodies of runs over what they have recorded, with the code that is checked out, and say which do not fit."
    )
    epilog = gettext_lazy(
        "Nothing is executed, written or started: a body is called up to the first step that is not recorded. Without RUN,\n"
        "FILE and --status the runs that have not ended are replayed, the newest first.\n"
        "\n"
        "A run does not fit if its body\n"
        "  does not come to something that is recorded any more (a step was renamed, removed, or comes later now),\n"
        "  asks for another kind of operation under a recorded name, or for the same with other arguments,\n"
        "  raises, or writes to the database outside of its steps.\n"
        "A run that failed at a step fits if it comes to that step.\n"
        "\n"
        "FILE is what `showworkflows RUN --json` has written, so that histories can be kept with a project's tests.\n"
        "--json prints a list of objects with the keys run, workflow, version, status, fits, next (a list of step and kind)\n"
        "and problems (a list of kind, step and text).\n"
        "\n"
        "exit codes: 0 all fit, 1 some do not, or not found\n"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add(
            "runs",
            nargs="*",
            metavar="RUN|FILE",
            help=_("The id of a run, its beginning, or its key; or the path of a file."),
        )
        add("--workflow", metavar="NAME", help=_("Only runs of this workflow."))
        add(
            "--status",
            action="append",
            choices=WorkflowRun.Status.values,
            help=_("Only runs of this status; may be repeated. Default: all that have not ended."),
        )
        add(
            "--limit",
            type=arguments.count,
            default=_LIMIT,
            metavar="N",
            help=_("How many runs to replay, the newest first (default: %(limit)d).") % {"limit": _LIMIT},
        )
        add(
            "--timeout",
            type=arguments.positive_seconds,
            default=10.0,
            metavar="D",
            help=_("How long a body may take to its next step (default: 10s)."),
        )
        add("--json", action="store_true", help=_("Print JSON."))

    def carry_out(self, **options: Any) -> None:
        if options["runs"] and (options["workflow"] or options["status"]):
            raise CommandError(_("Give RUNs and FILEs, or options that choose runs, not both."))
        found = _named(options["runs"]) if options["runs"] else self.chosen(options)
        with Replayer(base.connection().alias, options["timeout"]) as replayer:
            replayed = [_without_records(replayer.replay(recording)) for recording in found]
        if options["json"]:
            self.write_json([verdict.as_json() for verdict in replayed])
        else:
            self.show(replayed, options)
        if not all(verdict.fits for verdict in replayed):
            raise SystemExit(1)

    def chosen(self, options: dict[str, Any]) -> Iterator[Recording]:
        """The runs that the options choose."""
        runs = WorkflowRun.objects.using(base.connection().alias).order_by("-pk")
        if options["workflow"]:
            base.refuse_unknown_workflow(options["workflow"])
            runs = runs.filter(workflow=options["workflow"])
        if options["status"]:
            runs = runs.filter(status__in=options["status"])
        else:
            runs = runs.exclude(status__in=FINISHED)
        return recordings.of_runs(base.connection(), iter(runs[: options["limit"]]))

    def show(self, replayed: list[Verdict], options: dict[str, Any]) -> None:
        """Print what became of each workflow, and each kind of misfit once."""
        if not replayed:
            self.stdout.write(_("There are no such runs."))
            return
        for title, some in _grouped(replayed, _title):
            misfits = [verdict for verdict in some if not verdict.fits]
            fitting = ngettext("%(count)d run fits", "%(count)d runs fit", len(some) - len(misfits))
            text = fitting % {"count": len(some) - len(misfits)}
            if misfits:
                other = ngettext("%(count)d does not", "%(count)d do not", len(misfits)) % {"count": len(misfits)}
                text = f"{text}, {self.style.ERROR(other)}"
            self.stdout.write(f"{title}: {text}")
            for texts, same in _grouped(misfits, verdicts.same_problems):
                self.show_misfits(same, texts)
        if len(replayed) == options["limit"] and not options["runs"]:
            self.stdout.write(_("There may be more: see --limit."))

    def show_misfits(self, same: list[Verdict], texts: Sequence[str]) -> None:
        """Print runs that have the same problems, but for the keys of items."""
        names = ", ".join(verdict.recording.name for verdict in same[:_NAMED])
        more = len(same) - _NAMED
        self.stdout.write(
            "  " + (names if more <= 0 else _("%(names)s and %(count)d more") % {"names": names, "count": more})
        )
        for text in texts if len(same) > 1 else [problem.text for problem in same[0].problems]:
            self.stdout.write(f"    {output.one_line(text)}")


def _without_records(verdict: Verdict) -> Verdict:
    """The verdict, without what it was found by: of a thousand runs that is much."""
    verdict.recording.records = ()
    return verdict


def _named(names: Iterable[str]) -> Iterator[Recording]:
    """The runs and files that were named, in this order."""
    for name in names:
        path = Path(name)
        if path.suffix == ".json" or path.is_file():
            yield recordings.of_file(path)
        else:
            yield from recordings.of_runs(base.connection(), iter([find(name)]))


def _title(verdict: Verdict) -> str:
    recording = verdict.recording
    return f"{recording.workflow} {recording.version}".strip()


def _grouped(replayed: Iterable[Verdict], key: Any) -> Iterable[tuple[Any, list[Verdict]]]:
    groups: dict[Any, list[Verdict]] = defaultdict(list)
    for verdict in replayed:
        groups[key(verdict)].append(verdict)
    return groups.items()
