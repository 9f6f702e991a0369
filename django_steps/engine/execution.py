"""One pass over one run: call the body against its history, and say how it ended. Knows no threads.

The pass itself remembers how it is ending, and that decides: what a body returns or raises after it was told to end
doesn't matter, because bodies turn the signal into return values and other exceptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

from .. import failures, values
from ..core.context import active_pass
from ..core.retries import ONE_ATTEMPT, RetryPolicy
from ..definitions import Workflow
from ..definitions.logger import WorkflowLogger
from ..definitions.step import Call, Step
from ..errors import ClaimLost, PassEnded, RecordedInstanceGone, StepNotRun, UnserializableValue, ValueTooLarge
from ..failures.attribution import Attribution
from ..ledger import leases, transitions
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from ..ledger.records import Outcome, StepWrite
from ..ledger.transitions import Finish
from . import hooks
from .connections import Connections
from .ending import Ended, Ending
from .guard import Guard
from .history import History, as_recorded
from .host import Host
from .operations.attempts import Attempt, execute

CANCELED, LOST, STOPPING = Ended.CANCELED, Ended.LOST, Ended.RELEASED


class Pass:
    """One call of a body. `interrupt` may be set from outside, and ends the pass at its next step."""

    def __init__(self, workflow: Workflow[Any, Any], claim: Claim, history: History, host: Host) -> None:
        self.workflow, self.claim, self.history, self.host = workflow, claim, history, host
        self.run_id = claim.run_id
        self.interrupt: Ended | None = None
        self.current_step = ""
        self.progress: tuple[int, int] | None = None
        self.ending: Ending | None = None
        self.connections = Connections()
        self.guard = Guard(self.connections)
        self._unrun: dict[str, Call] = {}
        self._attribution = Attribution()
        self._is_careful = claim.recoveries > 0
        self._default_retry = workflow.step_retry or ONE_ATTEMPT

    # -- The story ------------------------------------------------------------------------------

    def run(self) -> Ending:
        """Call the body, and bring the run to where the call leaves it."""
        value, error = self._call_body()
        if self.ending is not None:
            return self._settled()
        return self._returned(value) if error is None else self._raised(error)

    def define(self, call: Call) -> None:
        """A step is defined: its name is taken, and it has to be run."""
        self._check(call.name)
        self.history.reserve(call.name)
        self._unrun[call.name] = call

    def perform(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Pass over a recorded step, or execute it and record its outcome."""
        self._check(call.name)
        if self._unrun.pop(call.name, None) is None:
            self.history.reserve(call.name)  # run a second time: raises
        recorded = self.history.look_up(call.name, "step")
        if recorded is not None and recorded.is_final:
            return self._replay(recorded)
        self.guard.check_transaction(call.name)
        with self._ending_if_lost():
            return self._execute(call, args, kwargs, recorded)

    def sleep(self, name: str, duration: int | None, until: int | None) -> None:
        """Wait until a recorded time; short waits in place, long ones by putting the run down."""
        self._check(name)
        with self._ending_if_lost():
            self._sleep(self.history.reserve_sleep(name), duration, until)

    def _sleep(self, name: str, duration: int | None, until: int | None) -> None:
        recorded = self.history.look_up(name, "sleep")
        if recorded is not None:
            self._wait_for(recorded.wakes_at_us or 0)
            self.history.deliver(recorded)
            return
        self.guard.check_transaction(name)
        now = self.claim.now()
        wakes_at_us = until if until is not None else now + (duration or 0)
        write = StepWrite(
            run_id=self.run_id,
            token=self.claim.token,
            name=name,
            kind="sleep",
            position=self.history.next_position(),
            after=self.history.delivered,
            status="waiting",
            started_at=now,
            wakes_at_us=wakes_at_us,
        )
        if wakes_at_us - now > self.host.limits.inline_wait:
            self._suspend(write, wakes_at_us)
            self._end(Ending(Ended.SUSPENDED, wakes_at_us))
        recorded = self._record(write)
        self._wait_for(wakes_at_us)
        self.history.deliver(recorded)

    # -- How a body ends ------------------------------------------------------------------------

    def _call_body(self) -> tuple[Any, BaseException | None]:
        """What the body returned or raised; its connections are in order by then."""
        token = active_pass.set(self)
        try:
            with self.connections.tidied(f"The body of run {self.run_id}"):
                return self.workflow.call_body(self._arguments()), None
        except BaseException as error:
            return None, error
        finally:
            active_pass.reset(token)

    def _arguments(self) -> dict[str, Any]:
        wanted = self.workflow.parameters
        arguments: dict[str, Any] = {}
        if "input" in wanted:
            arguments["input"] = self.workflow.to_input(values.decode(self.claim.input))
        if "step" in wanted:
            arguments["step"] = Step(self)
        if "logger" in wanted:
            arguments["logger"] = WorkflowLogger(self.workflow.name, self.run_id, lambda: self.history.is_replaying)
        if "run" in wanted:
            arguments["run"] = hooks.run_instance(self.claim, self.host.connection().alias)
        return arguments

    def _returned(self, value: Any) -> Ending:
        misuse = self.guard.take_misuse()
        if misuse is not None:
            return self._raised(misuse)
        if self._unrun:
            names = ", ".join(repr(name) for name in self._unrun)
            return self._raised(StepNotRun(f"Defined and never run: {names}. Call .run() on it, or don't define it."))
        try:
            output = values.encode(value, max_bytes=self.host.limits.max_value_bytes)
        except Exception as error:
            return self._raised(error)
        return self._finish("succeeded", output, None)

    def _raised(self, error: BaseException) -> Ending:
        steps = self._attribution.steps_of(error)
        text = failures.with_steps(self._error_text(error, steps), steps)
        policy: RetryPolicy | None = self.workflow.retry
        delay = policy.delay_after(self.claim.attempts, error) if policy and failures.is_retryable(text) else None
        if delay is not None and self._may_reset(steps):
            due_at = self.claim.now() + delay // timedelta(microseconds=1)
            outcome = self.host.write(
                lambda: transitions.attempt_again(
                    self.host.connection(), self.run_id, self.claim.token, due_at, text, steps
                )
            )
            return self._left(outcome, Ending(Ended.SUSPENDED, due_at, reset=steps))
        return self._finish("failed", None, text)

    def _finish(self, status: str, output: str | None, error: str | None) -> Ending:
        end = Finish(
            run_id=self.run_id,
            token=self.claim.token,
            status=status,
            output=output,
            error=error,
            finished_at=self.claim.now(),
        )
        how = Ended.SUCCEEDED if status == "succeeded" else Ended.FAILED
        return self._left(self.host.finish(end), Ending(how, finish=end))

    def _left(self, outcome: Outcome, ending: Ending) -> Ending:
        """The ending that was asked for, or what came between."""
        if outcome is Outcome.WRITTEN:
            return ending
        self.ending = Ending(CANCELED if outcome is Outcome.NOT_RUNNING else LOST)
        return self._settled()

    def _settled(self) -> Ending:
        """Let go of the run, if it is still this pass's to let go of."""
        ending = self.ending or Ending(LOST)
        if ending.how not in (CANCELED, STOPPING, LOST):
            return ending
        has_ended = self.host.write(lambda: transitions.release(self.host.connection(), self.run_id, self.claim.token))
        return Ending(CANCELED) if has_ended else ending

    def _error_text(self, error: BaseException, steps: list[str]) -> str:
        """The record of the error; where it is a step's own, the step's record, which has the whole traceback."""
        if self._attribution.step_of(error) is not None:
            recorded = self.history.look_up(steps[0], "step")
            if recorded is not None and recorded.error:
                return recorded.error
        return failures.record(error)

    def _may_reset(self, steps: list[str]) -> bool:
        """Whether the body has not handled the failures of these steps."""
        return not self.history.is_handled(steps)

    # -- Steps ----------------------------------------------------------------------------------

    def _check(self, name: str) -> None:
        """Whether a step may be called here and now."""
        self.guard.check(name)
        if self.ending is not None:
            raise PassEnded(self.ending.how.value)
        self.end_if_interrupted()

    def end_if_interrupted(self) -> None:
        """End the pass here if it was told to from outside."""
        if self.interrupt is not None:
            self._end(Ending(self.interrupt))

    @contextmanager
    def _ending_if_lost(self) -> Iterator[None]:
        try:
            yield
        except ClaimLost:
            self._end(Ending(LOST))

    def _end(self, ending: Ending) -> NoReturn:
        self.ending = ending
        raise PassEnded(ending.how.value)

    def _replay(self, recorded: Recorded) -> Any:
        self.history.deliver(recorded)
        if recorded.status == "failed":
            self._raise_recorded(recorded)
        output = self.history.output_of(recorded)
        if output is None:
            self._end(Ending(LOST))
        try:
            return values.decode(output)
        except RecordedInstanceGone as error:
            raise RecordedInstanceGone(error.model, error.pk, recorded.name) from None

    def _raise_recorded(self, recorded: Recorded) -> NoReturn:
        error = failures.rebuild(recorded.error or "")
        self._attribution.remember(error, recorded.name)
        raise error

    def _execute(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], tried: Recorded | None) -> Any:
        if tried is not None and tried.wakes_at_us:
            self._wait_for(tried.wakes_at_us)
        attempt = Attempt(self, call, args, kwargs, call.retry or self._default_retry, tried)
        while True:
            self.current_step = call.name
            if self._is_careful:
                self._enter(call.name)
            write, error = execute(attempt)
            if write.status == "retrying":
                self._try_later(write, error)
                attempt.count(write)
                continue
            try:
                recorded = self._record(write, attempt.outcome)
            except (UnserializableValue, ValueTooLarge) as refused:  # by the database, which takes the failure instead
                write, error = attempt.failed(refused), refused
                recorded = self._record(write)
            self.current_step = ""
            hooks.step_ended(self.claim, write, error)
            if self.host.suspends_always:
                self._end(Ending(STOPPING))
            return self._replay(recorded)

    def _try_later(self, write: StepWrite, error: BaseException | None) -> None:
        """Record an attempt that failed, and wait for the next one."""
        due_at = write.wakes_at_us or 0
        if due_at - self.claim.now() > self.host.limits.inline_wait:
            self._suspend(write, due_at)
            hooks.step_ended(self.claim, write, error)
            self._end(Ending(Ended.SUSPENDED, due_at))
        self._record(write)
        hooks.step_ended(self.claim, write, error)
        self._wait_for(due_at)

    def _enter(self, name: str) -> None:
        """After a crash, say which step comes next before executing it: if it kills the worker, it can be named."""
        if not self.host.write(lambda: leases.enter_step(self.host.connection(), self.run_id, self.claim.token, name)):
            self._end(Ending(LOST))

    def _record(self, write: StepWrite, outcome: Outcome | None = None) -> Recorded:
        """Commit a record, unless an outcome says that it is; the pass ends here if the run is no longer its own."""
        outcome = outcome or self.host.record(write)
        self._ensure_ours(outcome)
        self._is_careful = False
        recorded = as_recorded(write)
        self.history.add(recorded)
        return recorded

    def _suspend(self, write: StepWrite, wakes_at_us: int) -> None:
        outcome = self.host.write(
            lambda: transitions.suspend(self.host.connection(), self.run_id, self.claim.token, wakes_at_us, write)
        )
        self._ensure_ours(outcome)
        self.history.add(as_recorded(write))

    def _ensure_ours(self, outcome: Outcome) -> None:
        """End the pass here if a write found that the run is no longer its own."""
        if outcome is not Outcome.WRITTEN:
            self._end(Ending(CANCELED if outcome is Outcome.NOT_RUNNING else LOST))

    def _wait_for(self, wakes_at_us: int) -> None:
        """Wait in place for a short time, or put the run down."""
        while (remaining := wakes_at_us - self.claim.now()) > 0:
            self.end_if_interrupted()
            if remaining > self.host.limits.inline_wait:
                outcome = self.host.write(
                    lambda: transitions.wait_again(self.host.connection(), self.run_id, self.claim.token, wakes_at_us)
                )
                self._ensure_ours(outcome)
                self._end(Ending(Ended.SUSPENDED, wakes_at_us))
            self.host.wait(remaining / 1_000_000)
