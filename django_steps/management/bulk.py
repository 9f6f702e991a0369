"""Controls for many runs: in batches, with progress on a terminal, rehearsed with `--dry-run`, reported at the end.

A rehearsal is the control itself in a transaction that is rolled back: what it says is what would happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..models import WorkflowRun
from ..models.querysets import BulkResult, Skipped, WorkflowRunQuerySet
from ..presentation.output import Progress, one_line, table, with_notes
from ..presentation.runs import detail, kind_of
from .base import connection

BATCH = 200
_SHOWN = 20  # runs in a report; the rest is counted

Control = Callable[[WorkflowRunQuerySet[WorkflowRun]], BulkResult]


@dataclass
class Report:
    """What became of the runs: how many were done (`examples` are the first of them), and which were skipped."""

    done: int = 0
    examples: list[UUID] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    skipped_count: int = 0

    @property
    def count(self) -> int:
        """How many runs there were."""
        return self.done + self.skipped_count

    def add(self, result: BulkResult) -> None:
        self.done += len(result.done)
        self.examples += result.done[: _SHOWN - len(self.examples)]
        self.skipped += result.skipped[: _SHOWN - len(self.skipped)]
        self.skipped_count += len(result.skipped)


def existing(ids: Sequence[UUID]) -> list[UUID]:
    """The ids, each once; `CommandError` if one of them is no run's."""
    wanted = list(dict.fromkeys(ids))
    known = set(all_runs().filter(pk__in=wanted).values_list("pk", flat=True))
    unknown = [str(run_id) for run_id in wanted if run_id not in known]
    if unknown:
        text = ngettext("There is no run %(ids)s.", "There are no runs %(ids)s.", len(unknown))
        raise CommandError(text % {"ids": ", ".join(unknown)})
    return wanted


def all_runs() -> WorkflowRunQuerySet[WorkflowRun]:
    """All runs, on the database that controls write to."""
    return WorkflowRun.objects.using(connection().alias)


def carry_out(
    control: Control, runs: WorkflowRunQuerySet[WorkflowRun], stdout: OutputWrapper, *, is_rehearsal: bool
) -> Report:
    """Do it to these runs, or rehearse it."""
    report = Report()
    done = 0
    with Progress(stdout) as progress:
        for batch in _batches(runs):
            report.add(_rehearse(control, batch) if is_rehearsal else control(all_runs().filter(pk__in=batch)))
            done += len(batch)
            progress.show(_("%(done)d runs …") % {"done": done})
    return report


def _batches(runs: WorkflowRunQuerySet[WorkflowRun]) -> Iterator[list[UUID]]:
    """The ids in their order. A run that enters the selection again meanwhile is not taken a second time."""
    last: UUID | None = None
    while True:
        rest = runs if last is None else runs.filter(pk__gt=last)
        batch = list(rest.order_by("pk").values_list("pk", flat=True)[:BATCH])
        if not batch:
            return
        yield batch
        last = batch[-1]


def _rehearse(control: Control, batch: Sequence[UUID]) -> BulkResult:
    """One transaction for each run, so that none of them is locked for long."""
    result = BulkResult([], [])
    alias = connection().alias
    for run_id in batch:
        with transaction.atomic(using=alias):
            one = control(all_runs().filter(pk=run_id))
            transaction.set_rollback(True, using=alias)
        result.done.extend(one.done)
        result.skipped.extend(one.skipped)
    return result


# -- What is said of it ----------------------------------------------------------------------------


class _Words(NamedTuple):
    skipped: Any
    some_skipped: Any
    all_skipped: Any


_DONE = _Words(
    gettext_lazy("%(count)d skipped:"),
    gettext_lazy("%(skipped)d of %(all)d runs were skipped."),
    gettext_lazy("Nothing was done: all %(count)d runs were skipped."),
)
_REHEARSED = _Words(
    gettext_lazy("%(count)d would be skipped:"),
    gettext_lazy("%(skipped)d of %(all)d runs would be skipped."),
    gettext_lazy("Nothing would be done: all %(count)d runs would be skipped."),
)


def tell(command: BaseCommand, report: Report, text: str, options: dict[str, Any]) -> None:
    """Print what became of the runs. `text` has a place for `count`.

    `CommandError` if one that was named by its id was skipped, or all of those that were selected.
    """
    if report.skipped_count == report.count == 1:
        raise CommandError(one_line(report.skipped[0].reason))
    words = _REHEARSED if options["dry_run"] else _DONE
    if options["verbosity"] or options["dry_run"]:
        examples = _described(report) if options["dry_run"] else []
        lines = [text % {"count": report.done}, *(f"  {line}" for line in examples), *_skipped_lines(report, words)]
        command.stdout.write("\n".join(lines))
    if refusal := _refusal(report, words, is_named=bool(options["run_ids"])):
        raise CommandError(refusal)


def _refusal(report: Report, words: _Words, *, is_named: bool) -> str:
    """Why the command is to end with an error; empty if it did what was asked."""
    if not report.skipped_count:
        return ""
    if not report.done:
        return str(words.all_skipped % {"count": report.count})
    return str(words.some_skipped % {"skipped": report.skipped_count, "all": report.count}) if is_named else ""


def _skipped_lines(report: Report, words: _Words) -> list[str]:
    """How many runs were skipped, and a line for each, up to a number."""
    if not report.skipped_count:
        return []
    lines = [str(words.skipped % {"count": report.skipped_count})]
    lines += [f"  {run_id}  {_reason(run_id, reason)}" for run_id, reason in report.skipped]
    more = report.skipped_count - len(report.skipped)
    return [*lines, _("  … and %(count)d more") % {"count": more}] if more else lines


def _reason(run_id: UUID, reason: str) -> str:
    """Why a run was skipped, to stand beside its id: a reason that begins with the id is shown without it."""
    return one_line(reason).removeprefix(f"Run {run_id} ")


def _described(report: Report) -> list[str]:
    """The first of the runs that a rehearsal would change, as they are now."""
    runs = {
        run.pk: run
        for run in all_runs().filter(pk__in=report.examples).defer("input_text", "output_text", "details_text")
    }
    shown = [runs[pk] for pk in report.examples if pk in runs]
    if not shown:
        return []
    lines = table([_("RUN"), _("WORKFLOW"), _("STATUS")], [[str(run.pk), kind_of(run), run.status] for run in shown])
    lines = with_notes(lines, [detail(run) for run in shown])
    more = report.done - len(shown)
    return [*lines, _("… and %(count)d more") % {"count": more}] if more else lines
