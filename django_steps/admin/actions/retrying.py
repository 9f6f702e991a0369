"""What a retry does, in words: with which step a run continues, and what is executed again. The ledger does it.

For one run it is known exactly; for a selection it is read from the ends of the recorded errors, in a constant number
of queries.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import router
from django.db.models import Count, Max, QuerySet
from django.db.models.functions import Right
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ... import failures
from ...errors import FailureWasHandled
from ...ledger import controls as ledger
from ...ledger import database
from ...models import StepRecord, WorkflowRun
from ...presentation.text import clipped

_ERROR_END = 8000  # characters of a recorded error that hold the names of the steps whose failures it is
_LINES = 5


# -- One run ----------------------------------------------------------------------------------------


@dataclass
class RetryChoice:
    """What a retry would do: in sentences, on the button, and when it is done; the steps to choose from if it takes that."""

    button: str
    lines: list[str]
    done: str = ""
    choices: Sequence[str] = ()


def retry_choice(run: WorkflowRun, from_step: str | None = None) -> RetryChoice:
    """What retrying this failed or canceled run means, plainly or from a step."""
    if from_step is not None:
        return _from_step(run, from_step)
    try:
        steps = ledger.failures_to_reset(database.connection_for(router.db_for_write(WorkflowRun)), run.pk)
    except FailureWasHandled as handled:
        return _handled(handled)
    kept = _kept_lines(_recorded(run.steps.exclude(name__in=steps)))
    if not steps:
        return _from_the_body(run, kept)
    named = {"steps": _quoted(steps)}
    continues = ngettext(
        "The run continues with step %(steps)s.", "The run continues with the steps %(steps)s.", len(steps)
    )
    return RetryChoice(_button(steps[0]), [continues % named, *kept], retried_text(steps))


def retried_text(steps: Sequence[str]) -> str:
    """What is said once a run was retried that continues with these steps, or with none of those recorded."""
    if not steps:
        return _("Retried: the body is called again, and no recorded step is executed again.")
    text = ngettext(
        "Retried: the run continues with step %(steps)s.",
        "Retried: the run continues with the steps %(steps)s.",
        len(steps),
    )
    return text % {"steps": _quoted(steps)}


def _from_the_body(run: WorkflowRun, kept: list[str]) -> RetryChoice:
    """No failure is reset: the body raised, the run was canceled, or its workers died."""
    reached = (run.error or {}).get("step")
    if reached:
        line = _("The body is called again; the run had reached step %(steps)s.") % {"steps": _quoted([reached])}
        return RetryChoice(_("Retry"), [line, *kept], retried_text([reached]))
    line = _("The body is called again; the failure was not that of a step.")
    if run.status == run.Status.CANCELED:
        line = _("The body is called again, and continues after what is recorded.")
    return RetryChoice(_("Retry"), [line, *kept], retried_text([]))


def _from_step(run: WorkflowRun, name: str) -> RetryChoice:
    position = run.steps.filter(name=name).values_list("position", flat=True).first() or 0
    others = run.steps.exclude(name=name)
    later = _recorded(others.filter(after__gte=position))
    lines = [_("Step “%(step)s” is reset and executed again.") % {"step": name}]
    if steps := later[StepRecord.Kind.STEP]:
        text = ngettext(
            "So is the %d step recorded after it: what it has done is done a second time.",
            "So are the %d steps recorded after it: what they have done is done a second time.",
            steps,
        )
        lines.append(text % steps)
    if sleeps := later[StepRecord.Kind.SLEEP]:
        text = ngettext(
            "The %d sleep recorded after it begins again.", "The %d sleeps recorded after it begin again.", sleeps
        )
        lines.append(text % sleeps)
    if kept := _recorded(others.filter(after__lt=position)):
        lines += _kept_lines(kept)
    return RetryChoice(_button(name), lines, _("Retried from step “%(step)s”.") % {"step": name})


def _handled(handled: FailureWasHandled) -> RetryChoice:
    later = _quoted(handled.later[:10]) + ("…" if len(handled.later) > 10 else "")
    lines = [
        _("Step “%(step)s” failed, and the workflow handled that itself: %(later)s ran after it.")
        % {"step": handled.step, "later": later},
        _("A retry from the failure would repeat what was compensated. Choose the step from which to retry:"),
    ]
    choices = [handled.step, *handled.later][:100]
    return RetryChoice(_("Retry from the chosen step"), lines, choices=choices)


def _button(step: str) -> str:
    return _("Retry from step “%(step)s”") % {"step": clipped(step, 60)}


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"“{clipped(name, 60)}”" for name in names)


def _recorded(steps: QuerySet[StepRecord]) -> Counter[str]:
    """How many there are of each kind."""
    return Counter(dict(steps.order_by().values_list("kind").annotate(Count("pk"))))


def _kept_lines(kept: Counter[str]) -> list[str]:
    steps, sleeps = kept[StepRecord.Kind.STEP], kept[StepRecord.Kind.SLEEP]
    lines = [_("No other step is recorded.")]
    if steps:
        text = ngettext(
            "The result of %d other step is kept: it is not executed again.",
            "The results of %d other steps are kept: they are not executed again.",
            steps,
        )
        lines = [text % steps]
    if sleeps:
        lines.append(ngettext("%d sleep does not begin again.", "%d sleeps do not begin again.", sleeps) % sleeps)
    return lines


# -- A selection ------------------------------------------------------------------------------------


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
        """A sentence for each workflow and step, those of most runs first."""
        groups = Counter(self.steps.values()).most_common()
        lines = [_sentence(count, workflow, step) for (workflow, step), count in groups[:_LINES]]
        if rest := sum(count for _group, count in groups[_LINES:]):
            lines.append(
                ngettext("%d run continues with another step.", "%d runs continue with other steps.", rest) % rest
            )
        return lines

    def note(self, done: Collection[UUID]) -> str:
        """The same in a few words, of the runs that were retried."""
        groups = Counter(map(self.step_of, done)).most_common()
        if len(groups) == 1:
            return _from(groups[0][0])
        parts = [_("%(count)d %(where)s") % {"count": count, "where": _from(step)} for step, count in groups[:_LINES]]
        return ", ".join([*parts, "…"] if len(groups) > _LINES else parts)


def forecast(runs: Collection[UUID]) -> Forecast:
    """Where these failed and canceled runs would continue: three queries.

    Whether a failure had been handled is asked of the last step that was called; a retry looks at all that are later.
    """
    ends = WorkflowRun.objects.filter(pk__in=runs).values_list("pk", "workflow", Right("error_text", _ERROR_END))
    found = {pk: (workflow, *failures.steps_named_at_the_end(end or "")) for pk, workflow, end in ends}
    last = dict(StepRecord.objects.filter(run__in=runs).order_by().values_list("run").annotate(Max("after")))
    failed = StepRecord.objects.filter(run__in=runs, status=StepRecord.Status.FAILED)
    positions: dict[UUID, dict[str, int]] = defaultdict(dict)
    for pk, name, position in failed.order_by().values_list("run", "name", "position"):
        positions[pk][name] = position
    handled = set()
    for pk, (_workflow, steps, _reached) in found.items():
        ended_at = [positions[pk][name] for name in steps if name in positions[pk]]
        if ended_at and last.get(pk, -1) >= max(ended_at):
            handled.add(pk)
    continues = {
        pk: (workflow, (steps or [reached or ""])[0])
        for pk, (workflow, steps, reached) in found.items()
        if pk not in handled
    }
    return Forecast(continues, handled)


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
    return text % {"count": count, "workflow": clipped(workflow, 60), "step": _quoted([step])}


def _from(step: str) -> str:
    return (
        _("from step “%(step)s”") % {"step": clipped(step, 60)}
        if step
        else _("without executing a recorded step again")
    )
