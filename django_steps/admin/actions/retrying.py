"""What a retry of a run does, in words: with which step it continues, and what is executed again. The ledger does it.

Of a selection of runs the same is in `forecasting`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from django.db import router
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...errors import FailureWasHandled, InvalidState
from ...ledger import controls as ledger
from ...ledger import database, resets, undoing
from ...ledger.order import Place
from ...models import StepRecord, WorkflowRun
from ...presentation import steps as step_texts
from ...presentation import tree
from ...presentation.steps import counted_kinds
from ...presentation.text import clipped
from ...presentation.tree import Node

_NAMED = 10  # steps in a sentence
_Kind = StepRecord.Kind
_COUNTED = (_Kind.STEP, _Kind.POLL, _Kind.EVENT, _Kind.INVOKE, _Kind.START)


@dataclass
class RetryChoice:
    """What a retry would do: in sentences, on the button, and when it is done; the steps to choose from if it takes that.

    Without a button it would be refused, and the lines say why.
    """

    button: str
    lines: list[str]
    done: str = ""
    choices: Sequence[str] = ()


def retry_choice(run: WorkflowRun, from_step: str | None = None) -> RetryChoice:
    """What retrying this failed or canceled run means, plainly or from a step, a branch or a group.

    Raises `UnknownStep` where nothing is recorded of `from_step`.
    """
    if run.undoing is not None:
        return _of_undo(run, from_step)
    connection = database.connection_for(router.db_for_write(WorkflowRun))
    if from_step is not None:
        try:
            deleted, reset = resets.found_from(connection, run.pk, [from_step])
        except InvalidState as refused:  # what is undone would count as done
            return RetryChoice("", [str(refused)])
        return _from_path(run, from_step, deleted, set(reset) - deleted)
    try:
        reset = ledger.failures_to_reset(connection, run.pk)
    except FailureWasHandled as handled:
        return _handled(handled)
    except InvalidState as refused:  # runs that it has invoked would be retried with it, and can't be
        return RetryChoice("", [str(refused)])
    forgotten = resets.unnoticed(connection, run.pk)
    records, names = _records(run), {*reset, *forgotten}
    kept = _kept_lines([record for record in records if record.name not in names])
    if reset or (run.error or {}).get("step"):
        kept = [*_canceled_lines(record for record in records if record.name in forgotten), *kept]
    else:
        reset = forgotten
    if not reset:
        return _from_the_body(run, kept)
    causes, is_grouped = _causes(records, reset)
    continues = ngettext(
        "The run continues with step %(steps)s.", "The run continues with the steps %(steps)s.", len(causes)
    )
    lines = [continues % {"steps": quoted(causes)}]
    if is_grouped:
        lines.append(_("What was left unfinished beside it goes on, too."))
    if any(record.kind == StepRecord.Kind.INVOKE for record in records if record.name in names):
        lines.append(_("The child runs that failed are retried, too: each goes on from the step that failed."))
    return RetryChoice(_button(causes[0]), [*lines, *kept], retried_text(causes))


def is_possible(run: WorkflowRun) -> bool:
    """Whether a run can be retried, by its status: one that was undone can't."""
    return run.status in run.RETRYABLE and (run.undoing is None or run.status == run.Status.FAILED)


def _of_undo(run: WorkflowRun, from_step: str | None) -> RetryChoice:
    """Of a run that was canceled with undo: what could not be undone is tried again."""
    if from_step is not None or not is_possible(run):
        return RetryChoice("", [_("The run was canceled, and what its steps have done is undone, or being undone.")])
    names = undoing.tried_again(database.connection_for(router.db_for_write(WorkflowRun)), run.pk)
    lines = [_("The run goes on undoing what its steps have done.")]
    if names:
        lines.append(_("Executed again: %(steps)s.") % {"steps": quoted(names)})
    return RetryChoice(_("Go on undoing"), lines, _("Retried: the run goes on undoing."))


def _causes(records: Sequence[StepRecord], reset: Collection[str]) -> tuple[list[str], bool]:
    """Those of what is executed again that are no outcome of others among them; whether any is of a group."""
    names = set(reset)
    failed = [record for record in records if record.name in names]
    around: set[str] = set()
    is_grouped = False
    for record in failed:
        place = Place.read(record.name, 0, 0, record.context_text)
        around.update([place.group, *(path for level in place.levels for path in (level.branch, level.group))])
        is_grouped = is_grouped or bool(place.group) or any(level.group for level in place.levels)
    return [record.name for record in failed if record.name not in around] or list(reset), is_grouped


def retried_text(steps: Sequence[str]) -> str:
    """What is said once a run was retried that continues with these steps, or with none of those recorded."""
    if not steps:
        return _("Retried: the body is called again, and no recorded step is executed again.")
    text = ngettext(
        "Retried: the run continues with step %(steps)s.",
        "Retried: the run continues with the steps %(steps)s.",
        len(steps),
    )
    return text % {"steps": quoted(steps)}


def _from_the_body(run: WorkflowRun, kept: list[str]) -> RetryChoice:
    """No failure is reset: the body raised, the run was canceled, or its workers died."""
    reached = (run.error or {}).get("step")
    if reached:
        line = _("The body is called again; the run had reached step %(steps)s.") % {"steps": quoted([reached])}
        return RetryChoice(_("Retry"), [line, *kept], retried_text([reached]))
    line = _("The body is called again; the failure was not that of a step.")
    if run.status == run.Status.CANCELED:
        line = _("The body is called again, and continues after what is recorded.")
    return RetryChoice(_("Retry"), [line, *kept], retried_text([]))


def _handled(handled: FailureWasHandled) -> RetryChoice:
    later = quoted(handled.later[:10]) + ("…" if len(handled.later) > 10 else "")
    text = _("Step “%(step)s” failed, and the workflow handled that itself: %(later)s ran after it.")
    if not handled.step:
        text = _("The run failed by an error of its body, and %(later)s ran before.")
    lines = [
        text % {"step": handled.step, "later": later},
        _("A retry from the failure would repeat what was compensated. Choose the step from which to retry:"),
    ]
    return RetryChoice(_("Retry from the chosen step"), lines, choices=handled.from_steps[:100])


# -- From a step, a branch or a group ---------------------------------------------------------------

_BEGINNINGS = {
    tree.BRANCH: gettext_lazy(
        "Branch “%(name)s” is called again, and all that is in it is executed again (%(counted)s)."
    ),
    tree.MAP: gettext_lazy("Map “%(name)s” begins again, and all that is in it is executed again (%(counted)s)."),
    tree.GATHER: gettext_lazy("All that was gathered (%(name)s) is executed again (%(counted)s)."),
    "": gettext_lazy("Step “%(name)s” is reset and executed again."),
}


def _from_path(run: WorkflowRun, path: str, deleted: Collection[str], reset: Collection[str]) -> RetryChoice:
    """`deleted` and `reset` are what the ledger would delete, and reset beside it."""
    records = _records(run)
    chain = _chain_to(tree.tree(run, records), records, path)
    node = chain[-1] if chain and chain[-1].path == path else None
    inside = {record.name for record in node.records()} if node is not None else {path}
    name = path if node is None else node.label if node.kind == tree.GATHER else path
    executed = [record for record in records if record.name in inside and record.kind not in (tree.BRANCH, tree.MAP)]
    counted = counted_kinds(executed) or _("nothing is recorded in it")
    lines = [_BEGINNINGS[node.kind if node is not None else ""] % {"name": clipped(name, 120), "counted": counted}]
    beyond = [record for record in records if record.name in deleted and record.name not in inside]
    lines += _later_lines(record for record in beyond if record.status != StepRecord.Status.CANCELED)
    lines += _canceled_lines(beyond)
    lines += _waits_lines([record for record in records if record.name in deleted or record.name == path])
    if beside := [record for record in records if record.name in reset and _counted([record])[0]]:
        text = ngettext(
            "So is the %d step beside it that failed.", "So are the %d steps beside it that failed.", len(beside)
        )
        lines.append(text % len(beside))
    around = chain if node is None else chain[:-1]
    if any(outer.is_group and outer.status != "succeeded" for outer in around):
        lines.append(_("What was left unfinished beside it goes on, as far as it is needed."))
    if kept := [record for record in records if record.name not in deleted and record.name not in reset]:
        lines += _kept_lines(kept)
    done = _("Retried from step “%(step)s”.") if node is None else _("Retried from “%(step)s”.")
    button = _button(name) if node is None else _("Retry from “%(step)s”") % {"step": clipped(name, 60)}
    return RetryChoice(button, lines, done % {"step": name})


def _waits_lines(records: Sequence[StepRecord]) -> list[str]:
    """What becomes of the events and the child runs of these, which are reset."""
    lines = []
    if any(record.kind == _Kind.EVENT and record.status == StepRecord.Status.SUCCEEDED for record in records):
        lines.append(_("Events that were taken are taken again."))
    if any(record.kind == _Kind.INVOKE or step_texts.planned(record) for record in records):
        lines.append(_("Other child runs are started: those there are stay as they are, and count no more."))
    return lines


def _chain_to(root: Node, records: Iterable[StepRecord], path: str) -> list[Node]:
    """The branches and groups around what is recorded at a path, and it if it is one of them."""
    if found := tree.chain_to(root, path):
        return found
    record = next((record for record in records if record.name == path), None)
    if record is None:
        return []
    group = Place.read(record.name, 0, 0, record.context_text).group
    return tree.chain_to(root, group or record.branch)


def _later_lines(later: Iterable[StepRecord]) -> list[str]:
    (steps, sleeps), lines = _counted(later), []
    if steps:
        text = ngettext(
            "So is the %d step recorded after it: what it has done is done a second time.",
            "So are the %d steps recorded after it: what they have done is done a second time.",
            steps,
        )
        lines.append(text % steps)
    if sleeps:
        text = ngettext(
            "The %d sleep recorded after it begins again.", "The %d sleeps recorded after it begin again.", sleeps
        )
        lines.append(text % sleeps)
    return lines


def _canceled_lines(records: Iterable[StepRecord]) -> list[str]:
    """That what was canceled among these, whose records are deleted, is executed again."""
    counted = counted_kinds(_canceled(records))
    return (
        [_("What the body had canceled is executed again, too (%(counted)s).") % {"counted": counted}]
        if counted
        else []
    )


def _canceled(records: Iterable[StepRecord]) -> list[StepRecord]:
    """The steps, sleeps and polls among these that the body had canceled."""
    return [
        record
        for record in records
        if record.status == StepRecord.Status.CANCELED and record.kind not in (tree.BRANCH, tree.MAP)
    ]


# -- Words -------------------------------------------------------------------------------------------


def _button(step: str) -> str:
    return _("Retry from step “%(step)s”") % {"step": clipped(step, 60)}


def quoted(names: Sequence[str]) -> str:
    """The first of the names, in quotation marks."""
    said = ", ".join(f"“{clipped(name, 60)}”" for name in names[:_NAMED])
    if (more := len(names) - _NAMED) > 0:
        return ngettext("%(names)s and %(count)d more", "%(names)s and %(count)d more", more) % {
            "names": said,
            "count": more,
        }
    return said


def _records(run: WorkflowRun) -> list[StepRecord]:
    """All that is recorded, without values and errors."""
    return list(run.steps.defer("output_text", "error_text", "attempt_log").order_by("position", "pk"))


def _counted(records: Iterable[StepRecord]) -> tuple[int, int]:
    """How many steps there are, polls and waits included, and how many sleeps."""
    kinds = Counter(record.kind for record in records)
    return sum(kinds[kind] for kind in _COUNTED), kinds[StepRecord.Kind.SLEEP]


def _kept_lines(kept: Sequence[StepRecord]) -> list[str]:
    steps, sleeps = _counted(record for record in kept if record.status != StepRecord.Status.CANCELED)
    canceled = counted_kinds(_canceled(kept))
    lines = [] if canceled else [_("No other step is recorded.")]
    if steps:
        text = ngettext(
            "The result of %d other step is kept: it is not executed again.",
            "The results of %d other steps are kept: they are not executed again.",
            steps,
        )
        lines = [text % steps]
    if sleeps:
        lines.append(ngettext("%d sleep does not begin again.", "%d sleeps do not begin again.", sleeps) % sleeps)
    if canceled:
        lines.append(
            _("What the body had canceled before it went on stays canceled (%(counted)s).") % {"counted": canceled}
        )
    return lines
