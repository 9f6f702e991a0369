"""Every exception a user of django_steps can meet.

All share the base `StepsError`. The message says what to do. The record of a failure in the database is in `failures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Self

from .durations import to_text, to_timedelta


class StepsError(Exception):
    """The base of every error that django_steps raises."""


# -- Definitions and names ---------------------------------------------------------------------


class InvalidName(StepsError, ValueError):
    """A workflow, queue, key or step name that could not be kept exactly by every database."""


class UnknownWorkflow(StepsError, LookupError):
    """No workflow of that name (and version) is registered in this process."""


class InvalidInput(StepsError, ValueError):
    """The input of a run can't be accepted; nothing was started.

    `errors` lists what is wrong, one line each.
    """

    def __init__(self, message: str, errors: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.errors = list(errors) or [message]


# -- Values ------------------------------------------------------------------------------------


class UnserializableValue(StepsError, TypeError):
    """A value that can't be recorded faithfully; the message names the path to it."""


class UnserializableResult(UnserializableValue):
    """A step or a workflow returned something that can't be recorded faithfully."""


class ValueTooLarge(StepsError, ValueError):
    """An encoded value is larger than `DJANGO_STEPS["MAX_VALUE_BYTES"]`."""


class UnreadableValue(StepsError, ValueError):
    """A recorded value can't be read by this code: its class was moved, renamed or changed."""


class RecordedInstanceGone(StepsError, LookupError):
    """A recorded result refers to a database row that no longer exists."""

    def __init__(self, model: str, pk: Any, step: str | None = None) -> None:
        self.model, self.pk, self.step = model, pk, step
        super().__init__(model, pk, step)

    def __str__(self) -> str:
        where = f"The recorded result of step {self.step!r}" if self.step else "A recorded value"
        return (
            f"{where} refers to {self.model} with primary key {self.pk!r}, which no longer exists. "
            "Return the values the workflow needs instead of the instance, or retry from this step."
        )


# -- Steps -------------------------------------------------------------------------------------


class DuplicateStepName(StepsError):
    """A step name was used twice in one pass, or a map was given two items with one key."""

    def __init__(self, name: str, text: str = "") -> None:
        self.name, self._text = name, text
        super().__init__(*([name, text] if text else [name]))

    def __str__(self) -> str:
        return self._text or (
            f"The step name {self.name!r} is used twice in this run. Names identify what was recorded, "
            f'so each needs its own; in a loop include the index, as in f"{self.name}_{{i}}".'
        )


class StepNotRun(StepsError):
    """A step was defined and never run."""


class NestedStep(StepsError):
    """A step was called inside another step."""


class StepInTransaction(StepsError):
    """A step was called inside an `atomic()` block that the body opened; or a step with `atomic=True` ended its own
    transaction, closed its connection, made it read-only, or left another transaction open.
    """


class EndlessBody(StepsError):
    """A body catches the exception that ends its pass, and goes on calling steps without end."""


class OwnRunChanged(StepsError):
    """An atomic step deleted its own run, or changed it, so that its record can't be written."""

    def __init__(self, step: str) -> None:
        self.step = step
        super().__init__(step)

    def __str__(self) -> str:
        return (
            f"Step {self.step!r} deleted or changed the run that it belongs to, so that it can't be recorded; what it wrote "
            "is rolled back. A run can be deleted after it has ended."
        )


class WrongThread(StepsError):
    """A step was called from another thread than the one the body runs on."""


class HistoryMismatch(StepsError):
    """What the run has recorded under a name is of another kind than what the code now asks for; or, with the setting
    `ON_CHANGED_ARGUMENTS = "fail"`, was recorded with other arguments."""


class StepFailed(StepsError):
    """A step failed with an exception that can't be rebuilt; carries its type and message."""

    def __init__(self, type_name: str, message: str) -> None:
        self.type_name, self.message = type_name, message
        super().__init__(type_name, message)

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class GroupFailed(ExceptionGroup[Exception], StepsError):
    """Of several that were executed side by side, by `gather()` or `map()`, so many failed that the group has failed.

    Always a group, also of one; its members are in the order of the arguments. Catch them by `except*`, or this by `except`.

    - `failures`: the exceptions by key (of a map: text) or by name (of a gather; a branch beside a step of its name is
      `name#`).
    - `results`: likewise what the others returned; without those that never began. It is not recorded where the group ends a
      branch or a run, and is empty there.
    """

    failures: Mapping[str, Exception] = MappingProxyType({})
    results: Mapping[str, Any] = MappingProxyType({})
    # As large as all results together, which have records of their own.
    not_recorded = ("results",)

    def __new__(
        cls,
        message: str,
        failures: Mapping[str, Exception] | Sequence[Exception],
        results: Mapping[str, Any] = MappingProxyType({}),
    ) -> Self:
        """`failures` by key; a list of exceptions is numbered."""
        named = failures if isinstance(failures, Mapping) else {str(i): error for i, error in enumerate(failures)}
        group = super().__new__(cls, message, list(named.values()))
        group.failures = dict(named)
        if results:
            group.results = dict(results)
        return group

    def __init__(self, message: str, *details: Any) -> None:
        """See `__new__`."""

    def derive(self, excs: Sequence[Exception], /) -> GroupFailed:  # type: ignore[override]
        """A group of these exceptions, as `split()` and `except*` make it."""
        whose = {leaf: key for key, error in self.failures.items() for leaf in _leaves(error)}
        # A group among them is another one than it was, if only a part of its members is left: those tell whose it is.
        named = {whose.get(_leaves(error)[0], ""): error for error in excs}
        if "" in named or len(named) < len(excs):
            return GroupFailed(self.message, excs, self.results)
        return GroupFailed(self.message, named, self.results)


def _leaves(error: BaseException) -> list[int]:
    """The identities of the exceptions in a group, or of one that is none."""
    found, waiting = list[int](), [error]
    while waiting:
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
        else:
            found.append(id(error))
    return found


class WorkerDied(StepsError):
    """The workers that executed a run died again and again without getting any further."""


class UndoFailed(StepsError):
    """A run was canceled with undo, and not all could be undone: the undos of the steps `failed` have failed for good (the
    `__cause__` is their `GroupFailed`), and to the steps `unreached` the body does not come any more. `retry()` goes on."""

    def __init__(self, failed: Sequence[str], unreached: Sequence[str] = ()) -> None:
        self.failed, self.unreached = list(failed), list(unreached)
        super().__init__(self.failed, self.unreached)

    def __str__(self) -> str:
        failed, unreached = (", ".join(map(repr, names)) for names in (self.failed, self.unreached))
        what = f"The undo of {failed} failed. " if failed else ""
        what += f"Not undone, since the body does not come to it any more: {unreached}. " if unreached else ""
        return f"{what}A retry goes on undoing."


class NonRetryableError(StepsError):
    """Raise this (or a subclass) in a step or a body when trying again would be pointless."""


class StepCanceled(NonRetryableError):
    """On an earlier pass the body had canceled this step or sleep, and on this one it waits for it.

    What was canceled has no outcome, and isn't executed again: on each pass it stays pending until the body cancels it again.
    A body that decides by what its steps returned does so; one that decides by a timer of its own, or by the time, may not.
    """

    def __init__(self, step: str) -> None:
        self.step = step
        super().__init__(step)

    def __str__(self) -> str:
        return (
            f"Step {self.step!r} was canceled by the body on an earlier pass, and on this one the body waits for it. It has no "
            "outcome. Let what cancels it follow from the input and from what steps returned, or give the step a timeout."
        )


class StepInterrupted(NonRetryableError):
    """An attempt of an `at_most_once` step began, and its outcome was not recorded: its effect may have happened, or not.

    It is never tried again by itself. A retry of the run executes the step again: find out first whether it happened.
    """

    def __init__(self, step: str) -> None:
        self.step = step
        super().__init__(step)

    def __str__(self) -> str:
        return (
            f"Step {self.step!r} began, and its process ended before the outcome was recorded. Its effect may have happened, "
            "or not. Find out which before you retry the run: a retry executes the step again."
        )


class TimedOut(StepsError, TimeoutError):
    """The base of what is raised where something that is waited for has not come in time."""


class PollTimedOut(TimedOut):
    """A poll came to its end, by its `timeout` or its `max_checks`, and no check had found what it waits for.

    `step` is its name, `checks` how many checks there were, `value` what the last of them returned (None if there was none).
    Where the last check raised, its error is the `__cause__`.
    """

    def __init__(self, step: str, checks: int, value: Any = None) -> None:
        self.step, self.checks, self.value = step, checks, value
        # Several arguments would be an `errno` and a file's name to `OSError`, which a TimeoutError is.
        super().__init__(f"Poll {step!r} has not found what it waits for in {checks} check{'s' * (checks != 1)}.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.step, self.checks, self.value)


class EventTimedOut(TimedOut):
    """No event came in time for a wait without a `default`. `step` is the name of the wait, `events` those it waited for."""

    def __init__(self, step: str, events: Sequence[str] = ()) -> None:
        self.step, self.events = step, tuple(events)
        what = " or ".join(map(repr, self.events)) or "event"
        super().__init__(f"Wait {step!r}: no {what} came in time.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.step, self.events)


class InvalidEvent(StepsError, ValueError):
    """The payload of an event doesn't fit the `type` of the wait that would take it. The event stays where it is: a retry of
    the run takes it again, with corrected code, and the admin can discard it.

    `step` is the name of the wait, `event` that of the event, `errors` lists what is wrong, one line each.
    """

    def __init__(self, step: str, event: str, errors: Sequence[str] = ()) -> None:
        self.step, self.event, self.errors = step, event, list(errors)
        super().__init__(step, event, self.errors)

    def __str__(self) -> str:
        what = "; ".join(self.errors)
        return (
            f"Wait {self.step!r}: the payload of event {self.event!r} does not fit what is waited for: {what}. Correct the"
            " code and retry the run, which takes this event again; or discard it on the run's page and send another one."
        )


class ChildTimedOut(TimedOut):
    """A run that was invoked has not ended in time; it is being canceled. `step` is the name of the step, `run_id` the run."""

    def __init__(self, step: str, run_id: Any) -> None:
        self.step, self.run_id = step, run_id
        super().__init__(f"Run {run_id}, invoked by step {step!r}, has not ended in time.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.step, self.run_id)


class StepTimedOut(TimedOut):
    """An attempt of a step, or a check of a poll, has lasted longer than its `timeout`.

    `step` is the name of the step, `timeout` what it was allowed, a `timedelta`.
    """

    def __init__(self, step: str, timeout: timedelta) -> None:
        self.step, self.timeout = step, timeout
        super().__init__(f"Step {step!r} has not ended within its timeout of {to_text(timeout)}.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.step, self.timeout)


class RunTimedOut(TimedOut):
    """A run has not ended within its `timeout`. No body can catch it, and the policy of the run tries nothing again.

    `run_id` is the run, `timeout` what it was allowed, a `timedelta`.
    """

    def __init__(self, run_id: Any, timeout: timedelta) -> None:
        self.run_id, self.timeout = run_id, timeout
        super().__init__(f"Run {run_id} has not ended within its timeout of {to_text(timeout)}.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run_id, self.timeout)


class RetryAfter(StepsError):
    """Raise this in a step to say when the next attempt is due.

    `delay` is a duration: `"30s"`, a `timedelta`, or seconds. The attempt is not used up, also without a retry policy;
    1,000 in succession are a failure. With jitter, which is the default, the wait is up to a tenth longer. Raise it `from`
    the error that is the reason: that one is shown. `give_up_on` of the policy wins.

    In a body it replaces the delay of the policy of the run, and uses up an attempt of it.
    """

    def __init__(self, delay: Any, message: str = "") -> None:
        self.delay = to_timedelta(delay)
        super().__init__(delay, message)

    def __str__(self) -> str:
        return str(self.args[1] or f"retry after {self.args[0]}")


# -- Runs --------------------------------------------------------------------------------------


class InvalidState(StepsError):
    """What was asked of a run makes no sense in its present status."""


class RunFinished(InvalidState):
    """An event was sent to a run that has succeeded, so that nothing waits for it any more. `run_id` is the run.

    A webhook catches this and answers that all is well: or else its sender tries again.
    """

    def __init__(self, run_id: Any) -> None:
        self.run_id = run_id
        super().__init__(run_id)

    def __str__(self) -> str:
        return f"Run {self.run_id} has succeeded: nothing in it waits for events any more."


class FailureWasHandled(InvalidState):
    """A plain retry would redo what the body did after it handled the failure, or take what is undone for done.

    By name: `step`, which failed (empty: the body); `later`, what ran after it (or was undone before); `from_steps` to retry.
    """

    def __init__(self, step: str, later: Sequence[str], undone: Sequence[str] = ()) -> None:
        super().__init__(step, list(later), list(undone))
        self.step, self.later, self.undone = self.args
        self.from_steps = self.undone[:1] or [step, *self.later]

    def __str__(self) -> str:
        names, where = ", ".join(map(repr, self.later)), repr(self.undone[0]) if self.undone else "…"
        what = f"step {self.step!r} was handled: {names} ran after it" if self.step else f"the body came after {names}"
        how = f"retry(from_step={where}) to choose where to start again, or restart()"
        return f"The failure of {what}. Going on would redo what was compensated. Use {how}."


class UnknownStep(StepsError, LookupError):
    """The run has recorded no step of that name."""


class RunFailed(StepsError):
    """A run failed whose result was wanted: by `result()`, or by a step that had invoked it.

    `run_id` is the run, `error` its recorded error, `{"type", "message", "traceback", "step"}`; `run` the run itself where
    `result()` raises this, else None. Of a run that was invoked the `__cause__` is the exception that it failed with.
    """

    run: Any = None
    not_recorded = ("run",)

    def __init__(self, run: Any) -> None:
        self.run, self.run_id, self.error = run, run.pk, run.error or {}
        where = f" in step {self.error['step']!r}" if self.error.get("step") else ""
        what = f"{self.error.get('type')}: {self.error.get('message')}"
        super().__init__(f"Run {run.pk} of {run.workflow!r} failed{where}: {what}")


class RunCanceled(StepsError):
    """A run was canceled whose result was wanted: by `result()`, or by a step that had invoked it. `run_id` is the run."""

    def __init__(self, message: str, run_id: Any = None) -> None:
        self.run_id = run_id
        super().__init__(message)


class ResultUnavailable(StepsError):
    """`result()` was called where it can't wait: inside `atomic()`, a body or a step."""


class StartOutsideStep(StepsError):
    """`start()`, or a control such as `cancel()`, was called in a body outside a step: every pass would do it again."""


class PassEnded(BaseException):
    """Unwinds a body whose pass is ending early (suspended, canceled, lease lost, worker stopping).

    A `BaseException`, so that `except Exception` in a body lets it through. Never catch it to stay.
    """


class ClaimLost(PassEnded):
    """The run is another worker's by now, or the database can't be reached to find out: nothing more is written."""
