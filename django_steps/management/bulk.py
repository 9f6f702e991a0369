"""Verbs on many runs: in batches, with progress on a terminal, rehearsed with `--dry-run`, and reported at the end.

A rehearsal is the verb itself in a transaction that is rolled back: what it says is what would happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_steps.models import WorkflowRun
from django_steps.querysets import BulkResult, Skipped, WorkflowRunQuerySet

from .base import connection
from .output import Progress, one_line, table, with_notes
from .run_texts import detail_of, kind_of

BATCH = 200
_SHOWN = 20  # runs in a report; the rest is counted

Verb = Callable[[WorkflowRunQuerySet], BulkResult]


@dataclass
class Report:
    """What became of the runs: how many were done (`examples` are the first of them), and which were skipped."""

    done: int = 0
    examples: list[UUID] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    skipped_count: int = 0

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


def all_runs() -> WorkflowRunQuerySet:
    """All runs, on the database that verbs write to."""
    return WorkflowRun.objects.using(connection().alias)


def carry_out(verb: Verb, runs: WorkflowRunQuerySet, stdout: OutputWrapper, *, is_rehearsal: bool) -> Report:
    """Do it to these runs, or rehearse it."""
    report = Report()
    done = 0
    with Progress(stdout) as progress:
        for batch in _batches(runs):
            report.add(_rehearse(verb, batch) if is_rehearsal else verb(all_runs().filter(pk__in=batch)))
            done += len(batch)
            progress.show(_("%(done)d runs …") % {"done": done})
    return report


def _batches(runs: WorkflowRunQuerySet) -> Iterator[list[UUID]]:
    """The ids in their order. What gets into the selection again meanwhile is not taken up a second time."""
    last: UUID | None = None
    while True:
        rest = runs if last is None else runs.filter(pk__gt=last)
        batch = list(rest.order_by("pk").values_list("pk", flat=True)[:BATCH])
        if not batch:
            return
        yield batch
        last = batch[-1]


def _rehearse(verb: Verb, batch: Sequence[UUID]) -> BulkResult:
    """One transaction for each run, so that none of them is locked for long."""
    result = BulkResult([], [])
    alias = connection().alias
    for run_id in batch:
        with transaction.atomic(using=alias):
            one = verb(all_runs().filter(pk=run_id))
            transaction.set_rollback(True, using=alias)
        result.done.extend(one.done)
        result.skipped.extend(one.skipped)
    return result


def skipped_lines(report: Report) -> list[str]:
    """A line for each run that was skipped, up to a number."""
    lines = [f"  {run_id}  {_reason(run_id, reason)}" for run_id, reason in report.skipped]
    more = report.skipped_count - len(report.skipped)
    return [*lines, _("  … and %(count)d more") % {"count": more}] if more else lines


def _reason(run_id: UUID, reason: str) -> str:
    """Why a run was skipped, to stand beside its id: a reason that begins with the id goes on from there."""
    return one_line(reason).removeprefix(f"Run {run_id} ")


def tell(command: BaseCommand, report: Report, text: str, options: dict[str, Any]) -> None:
    """Print what became of the runs. `text` has a place for `count`.

    `CommandError` if one that was named by its id was skipped, or all of those that were selected.
    """
    count, skipped = report.done + report.skipped_count, report.skipped_count
    if skipped == count == 1:
        raise CommandError(one_line(report.skipped[0].reason))
    lines = [text % {"count": report.done}]
    if options["dry_run"]:
        lines += [f"  {line}" for line in _described(report)]
    if skipped:
        would = _("%(count)d would be skipped:") if options["dry_run"] else _("%(count)d skipped:")
        lines += [would % {"count": skipped}, *skipped_lines(report)]
    if options["verbosity"] or options["dry_run"]:
        command.stdout.write("\n".join(lines))
    if skipped and skipped == count:
        text = _("Nothing was done: all %(count)d runs were skipped.")
        if options["dry_run"]:
            text = _("Nothing would be done: all %(count)d runs would be skipped.")
        raise CommandError(text % {"count": count})
    if skipped and options["run_ids"]:
        text = _("%(skipped)d of %(all)d runs were skipped.")
        if options["dry_run"]:
            text = _("%(skipped)d of %(all)d runs would be skipped.")
        raise CommandError(text % {"skipped": skipped, "all": count})


def _described(report: Report) -> list[str]:
    """The first of the runs that a rehearsal would change, as they are now."""
    runs = {run.pk: run for run in all_runs().filter(pk__in=report.examples).defer("input_text", "output_text")}
    shown = [runs[pk] for pk in report.examples if pk in runs]
    if not shown:
        return []
    lines = table([_("RUN"), _("WORKFLOW"), _("STATUS")], [[str(run.pk), kind_of(run), run.status] for run in shown])
    lines = with_notes(lines, [detail_of(run) for run in shown])
    more = report.done - len(shown)
    return [*lines, _("… and %(count)d more") % {"count": more}] if more else lines
