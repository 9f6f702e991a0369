"""What a retry of a selection of runs does, in words: with which step each would continue.

It is read from the ends of the recorded errors, in a constant number of queries; only runs whose failures were in branches or
groups, with more recorded after them, are looked at one by one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from uuid import UUID

from django.db import router
from django.db.models import Max
from django.db.models.functions import Right
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ... import failures
from ...core.names import without_keys
from ...errors import FailureWasHandled, InvalidState
from ...ledger import controls as ledger
from ...ledger import database, resets
from ...models import StepRecord, WorkflowRun
from ...presentation.text import clipped
from .retrying import quoted

_ERROR_END = 8000  # characters of a recorded error that hold the names of all but very many steps whose failures it is
_LINES = 5


@dataclass
class Forecast:
    """With which step each of some runs would continue."""

    # The workflow of each run that can be retried, and the step; "" where no recorded step is executed again.
    steps: dict[UUID, tuple[str, str]]
    handled: set[UUID]  # these can't: the body had handled the failure

    def step_of(self, run: UUID) -> str:
        """The step with which it continues; empty where no recorded one is executed again."""
        return self.steps[run][1] if run in self.steps else ""

    def lines(self) -> list[str]:
        """A sentence for each workflow and step (the same of all items), those of most runs first."""
        counts = Counter((workflow, without_keys(step)) for workflow, step in self.steps.values())
        groups = counts.most_common()
        lines = [_sentence(count, workflow, step) for (workflow, step), count in groups[:_LINES]]
        if rest := sum(count for _group, count in groups[_LINES:]):
            lines.append(
                ngettext("%d run continues with another step.", "%d runs continue with other steps.", rest) % rest
            )
        return lines

    def note(self, done: Collection[UUID]) -> str:
        """The same in a few words, of the runs that were retried."""
        groups = Counter(without_keys(self.step_of(run)) for run in done).most_common()
        if len(groups) == 1:
            return _from(groups[0][0])
        parts = [_("%(count)d %(where)s") % {"count": count, "where": _from(step)} for step, count in groups[:_LINES]]
        return ", ".join([*parts, "…"] if len(groups) > _LINES else parts)


def forecast(runs: Collection[UUID]) -> Forecast:
    """Where these failed and canceled runs would continue.

    Whether a failure had been handled is asked of the last step that was called; a retry looks at all that are later.
    """
    ends = WorkflowRun.objects.filter(pk__in=runs).values_list(
        "pk", "workflow", "failed_step", Right("error_text", _ERROR_END)
    )
    found, cut = dict[UUID, tuple[str, str, list[str]]](), dict[UUID, str]()
    for pk, workflow, failed_step, end in ends:
        steps, reached = failures.steps_named_at_the_end(end or "")
        found[pk] = (workflow, *_failures_in(steps, reached))
        if failed_step and not found[pk][1]:
            cut[pk] = workflow
    if cut:
        whole = WorkflowRun.objects.filter(pk__in=cut).values_list("pk", "error_text")
        found |= {pk: (cut[pk], *_failures_in(*failures.steps_named_at_the_end(text or ""))) for pk, text in whole}
    last = dict(StepRecord.objects.filter(run__in=runs).order_by().values_list("run").annotate(Max("after")))
    failed = StepRecord.objects.filter(run__in=runs, status=StepRecord.Status.FAILED)
    positions: dict[UUID, dict[str, int]] = defaultdict(dict)
    grouped = set()
    for pk, name, position, branch, context in failed.order_by().values_list(
        "run", "name", "position", "branch", "context_text"
    ):
        positions[pk][name] = position
        if branch or context:
            grouped.add(pk)
    handled = set()
    for pk, (_workflow, _step, steps) in found.items():
        ended_at = [positions[pk][name] for name in steps if name in positions[pk]]
        if ended_at and last.get(pk, -1) >= max(ended_at) and (pk not in grouped or _was_handled(pk)):
            handled.add(pk)
    for pk, name in _first_forgotten([pk for pk, (_workflow, step, _steps) in found.items() if not step], last):
        found[pk] = found[pk][0], name, []
    continues = {pk: (workflow, step) for pk, (workflow, step, _steps) in found.items() if pk not in handled}
    return Forecast(continues, handled)


def _first_forgotten(runs: Collection[UUID], last: dict[UUID, int]) -> Iterator[tuple[UUID, str]]:
    """Of runs that no step's failure ended: the first step that the body had canceled and that is executed again."""
    is_told: set[UUID] = set()
    connection = database.connection_for(router.db_for_write(WorkflowRun))
    canceled = StepRecord.objects.filter(run__in=runs, status=StepRecord.Status.CANCELED).order_by("position")
    for pk, name, position in canceled.values_list("run", "name", "position"):
        if pk in is_told:
            continue
        forgotten = [name] if position > last[pk] else resets.unnoticed(connection, pk)[:1]
        is_told.add(pk)
        yield from ((pk, name) for name in forgotten)


def _failures_in(steps: list[str], reached: str | None) -> tuple[str, list[str]]:
    """The step that a run would continue with or had reached, and all whose failures its error is."""
    return (steps or [reached or ""])[0], steps


def _was_handled(run: UUID) -> bool:
    """The same as a retry would find: what was called later, but side by side with the failure, handled nothing."""
    return isinstance(_refusal(run), FailureWasHandled)


def is_refused(run: UUID) -> bool:
    """Whether a retry is refused for another reason: runs that this one has invoked would be retried with it, and can't be."""
    refusal = _refusal(run)
    return refusal is not None and not isinstance(refusal, FailureWasHandled)


def _refusal(run: UUID) -> InvalidState | None:
    try:
        ledger.failures_to_reset(database.connection_for(router.db_for_write(WorkflowRun)), run)
    except InvalidState as refusal:
        return refusal
    return None


def _sentence(count: int, workflow: str, step: str) -> str:
    if step:
        text = ngettext(
            "%(count)d run of %(workflow)s continues with step %(step)s.",
            "%(count)d runs of %(workflow)s continue with step %(step)s.",
            count,
        )
    else:
        text = ngettext(
            "%(count)d run of %(workflow)s has its body called again, and no recorded step is executed again.",
            "%(count)d runs of %(workflow)s have their bodies called again, and no recorded step is executed again.",
            count,
        )
    return text % {"count": count, "workflow": clipped(workflow, 60), "step": quoted([step])}


def _from(step: str) -> str:
    return (
        _("from step “%(step)s”") % {"step": clipped(step, 60)}
        if step
        else _("without executing a recorded step again")
    )
