"""The controls of a run: `result()`, `retry()`, `cancel()`, `restart()` and the others, as a mixin of the model.

Each refreshes the instance and wakes the workers; the writes are in `ledger/`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import router, transaction

from .. import signals
from ..core import clock, tags
from ..core.context import active_pass, refuse_control_outside_step, refuse_outside_step
from ..core.event import Event
from ..errors import ResultUnavailable, RunCanceled, RunFailed
from ..ledger import cascades, copying, database, inserts, lines, notify, resuming
from ..ledger import controls as ledger
from ..ledger.events import To
from . import results, sending
from .columns import RunColumns
from .diagnosis import Unclaimed

if TYPE_CHECKING:
    from typing import Generic
    from uuid import UUID

    from django.db.backends.base.base import BaseDatabaseWrapper
    from typing_extensions import TypeVar

    R = TypeVar("R", covariant=True, default=Any)

    class _Generic(Generic[R]): ...
else:
    # A run is generic in its result for type checkers only: Django's models can't be generic.
    R = "R"

    class _Generic:
        def __class_getitem__(cls, result):
            return cls


logger = logging.getLogger("django_steps")

_MOST_PROGRESS = 2**63 - 1  # what a column holds: the renewal that carries it is all runs'


class RunControls(RunColumns, _Generic[R]):
    """What can be done to a run."""

    class Meta:
        abstract = True

    def result(self, timeout: float | None = None) -> R:
        """Wait for the end of the run and return what its body returned.

        `timeout` is in seconds; None waits without limit. Where no live worker would take the run, that is logged as a warning
        after 5 seconds. Raises `RunFailed`, `RunCanceled`, `TimeoutError`, and `ResultUnavailable` at once inside
        `atomic()` (no worker can see the run before the commit), a body or a step.

        >>> process_order.start({"order_id": 7}).result(timeout=30)  # doctest: +SKIP
        """
        returned: R = _returned(results.wait(self, timeout, _warn_of_waiting_in_vain(self)))
        return returned

    async def aresult(self, timeout: float | None = None) -> R:
        """`result()` for async code; other code of the same event loop goes on meanwhile, and may use the database."""
        ended: list[RunColumns] = []
        pauses = results.pauses(self, timeout, _warn_of_waiting_in_vain(self), ended)
        look = sync_to_async(lambda: next(pauses, None))
        while (pause := await look()) is not None:
            await asyncio.sleep(pause)
        returned: R = await sync_to_async(_returned)(ended[0])
        return returned

    def retry(self, from_step: str | Sequence[str] | None = None, by: str = "") -> None:
        """Let a failed or canceled run go on from the step that failed, or from `from_step`.

        What an async body had canceled is executed again, too, unless other steps were called after that.
        With `from_step` (the name of a step, a branch or a map as it is recorded, such as `"order#17/charge"`, or several of
        them) that step and all that came later are reset and execute again. Raises `InvalidState` in any other
        status, `FailureWasHandled` where the body had handled the failure, `UnknownStep` for a step not recorded. A run that
        is canceling can be retried once it is canceled. `by`, who does it, is logged.
        """
        refuse_control_outside_step("retry")
        connection = _connection(self)
        ledger.retry(connection, self.pk, from_step)
        log_control(connection, self.pk, "retried", by)
        _changed(self, connection)

    def cancel(self, reason: str = "", by: str = "", undo: bool = False) -> None:
        """Cancel the run. `reason` and `by` (who does it) are kept as `cancel_reason` and `canceled_by`, for people.

        While a worker executes a step of it the run is `canceling`: no further step begins, and it is canceled, and
        finished, once that step has ended and is recorded. Canceling what is canceled or canceling does nothing. Raises
        `InvalidState` for a run that succeeded or failed.

        `undo`: True: undo what the steps of the run have done that have an `undo=`, the newest first. A failed run can be
        canceled so, too. The run is `canceling` meanwhile, and then `canceled`; or `failed`, with `UndoFailed`, if an undo has
        failed for good, or a step was not reached: then `retry()` goes on undoing. One that never began is just canceled.
        Raises `InvalidState` also for a run that is canceling or canceled without undo. Where no live worker knows the
        workflow, a cancel without `undo` gives that up.

        >>> run.cancel(reason="the customer wants it no more", undo=True)  # doctest: +SKIP
        """
        refuse_control_outside_step("cancel")
        connection = _connection(self)
        is_canceled_now = ledger.cancel(connection, self.pk, reason, by, undo=undo)
        _changed(self, connection)
        if is_canceled_now and (self.limit_1 or self.limit_queue):
            limits = lines.names(self.limit_1, self.limit_2, self.limit_queue)
            lines.promote_after_commit(connection, limits)
        if is_canceled_now:
            is_alone = self.parent_item is None and self.schedule is None
            follow_cancel(connection, self.pk, is_all=self.is_finished and is_alone)

    def pause(self, reason: str = "", by: str = "") -> None:
        """Pause the run: it goes on only after `resume()`. `reason` and `by` (who does it) are kept as `pause_reason` and
        `paused_by`, for people.

        What a worker executes of it ends, and is recorded; until then it is `running`, and `is_pausing` is true. Then no
        further step begins, and it is `paused`. If the body returns or the run fails first, that stands. Clocks go on:
        timeouts, and the deadlines of its waits. Events and the ends of its children are kept for it.

        Pausing what is paused does nothing. Raises `InvalidState` for a run that has ended or is canceling.

        >>> run.pause(reason="the bank is closed", by=str(request.user))  # doctest: +SKIP
        """
        refuse_control_outside_step("pause")
        connection = _connection(self)
        ledger.pause(connection, self.pk, reason, by)
        _changed(self, connection)

    def resume(self, by: str = "") -> None:
        """Let a paused run go on, or withdraw a pause before it has come. `by`, who does it, is logged.

        If its queue or its workflow is paused, that no longer holds this run, until it ends. Resuming a run that nothing
        holds does nothing. Raises `InvalidState` for a run that has ended.
        """
        refuse_control_outside_step("resume")
        connection = _connection(self)
        if resuming.resume(connection, self.pk):
            log_control(connection, self.pk, "resumed", by)
        _changed(self, connection)

    def send_event(self, name: str, payload: Any = None, *, id: str | None = None, by: str = "") -> Event[Any]:
        """Send an event to the run, by one INSERT on the caller's connection: in `atomic()` it exists only if that commits.

        A wait for this name takes it, now or later: `step.wait_for_event(name)`. The run may be in any status but succeeded;
        one that has continued as another run passes it on.

        - `name`: text, at most 255 characters without `#`; `payload`: anything that can be recorded.
        - `id`: text, the sender's own: sent again, the first event is returned; `created` says whether it is new.
        - `by`: text, who sends it, for people.

        Raises `RunFinished` for a run that has succeeded, `UnserializableValue`, `ValueTooLarge`, `InvalidName`, and
        `StartOutsideStep` in a body outside a step.

        >>> run.send_event("approval", {"ok": True}, id="evt_1", by=str(request.user))  # doctest: +SKIP
        """
        refuse_control_outside_step("send_event")
        return sending.send(_connection(self), To(run_id=self.pk), Event(name, payload, id=id, by=by))

    async def asend_event(self, name: str, payload: Any = None, *, id: str | None = None, by: str = "") -> Event[Any]:
        """`send_event()` for async code."""
        return await sync_to_async(self.send_event)(name, payload, id=id, by=by)

    def restart(self, from_step: str | None = None) -> Self:
        """Start a new run of the same workflow with the same input and tags, linked to this one by `restart_of`.

        With `from_step` what was recorded is copied, but for that step, those that are undone, and all that came later. The key
        is not copied.
        The new run may last as long as this one, and wait as long to begin.
        Raises `UnknownStep`.
        """
        refuse_outside_step("restart")
        connection = _connection(self)
        new = inserts.NewRun(
            workflow=self.workflow,
            version=self.version,
            queue=self.queue,
            priority=self.priority,
            input=self.input_text,
            input_search=_search_text(self),
            created_at=clock.host_time(),
            restart_of=self.pk,
            timeout=self.timeout_us,
            start_within=self.start_within_us,
            limit_1=self.limit_1,
            limit_2=self.limit_2,
            limit_queue=self.limit_queue,
            tags=tags.read(self.tags_text),
        )
        with transaction.atomic(using=connection.alias):
            inserts.insert(connection, new)
            if from_step is not None:
                copying.copy_steps(connection, self.pk, new.id, from_step)
        notify.workers(connection)
        return type(self)._default_manager.using(connection.alias).get(pk=new.id)

    def set_progress(self, done: int, total: int) -> None:
        """Say from a body how far it is, such as 37 of 100. Costs no write: the renewal of the lease carries it.

        Raises `TypeError` for what is no whole number, `ValueError` unless 0 <= done <= total < 2**63, and
        `ResultUnavailable` outside the body of this run.
        """
        done, total = operator.index(done), operator.index(total)
        if not 0 <= done <= total <= _MOST_PROGRESS:
            raise ValueError(
                f"Progress needs whole numbers with 0 <= done <= total < 2**63, got {done!r} of {total!r}."
            )
        current = active_pass.get()
        if current is None or current.run_id != self.pk:
            raise ResultUnavailable("set_progress() is for the body of this run: take `run` as its argument.")
        self.progress_done, self.progress_total = current.state.progress = done, total

    def update_details(self, /, **values: Any) -> None:
        """Say from a body what others may want to know of the run, such as how far it is: `update_details(stage="packed")`.

        The values are merged into `run.details`, by their names, in the transaction of the next record of the body, or of the
        branch that says it: the outcome of a step, a sleep that is reached, the end of the run. So they cost no transaction
        of their own; a crash neither loses them nor brings older ones back, and a pass that replays says nothing again. A
        step may say something, too: it is written with its outcome.

        Anything that a step may return is a value. They are encoded at once. Raises `UnserializableValue`, `ValueTooLarge` if
        all details together are longer than `MAX_VALUE_BYTES`, and `ResultUnavailable` outside the body of this run.
        """
        current = active_pass.get()
        if current is None or current.run_id != self.pk:
            raise ResultUnavailable("update_details() is for the body of this run: take `run` as its argument.")
        current.update_details(values)

    async def aretry(self, from_step: str | Sequence[str] | None = None, by: str = "") -> None:
        """`retry()` for async code."""
        await sync_to_async(self.retry)(from_step, by)

    async def acancel(self, reason: str = "", by: str = "", undo: bool = False) -> None:
        """`cancel()` for async code."""
        await sync_to_async(self.cancel)(reason, by, undo)

    async def apause(self, reason: str = "", by: str = "") -> None:
        """`pause()` for async code."""
        await sync_to_async(self.pause)(reason, by)

    async def aresume(self, by: str = "") -> None:
        """`resume()` for async code."""
        await sync_to_async(self.resume)(by)

    async def arestart(self, from_step: str | None = None) -> Self:
        """`restart()` for async code."""
        run: Self = await sync_to_async(self.restart)(from_step)
        return run


def log_control(connection: BaseDatabaseWrapper, run_id: UUID, what: str, by: str) -> None:
    """Log who did something to a run, once that is committed. Nothing where nobody says who."""
    if by:
        connection.on_commit(lambda: logger.info("Run %s was %s by %s.", run_id, what, by), robust=True)


def follow_cancel(connection: BaseDatabaseWrapper, run_id: UUID, *, is_all: bool = False) -> None:
    """After the commit of a cancel: cancel the children of the run, or let its parent know, and send the signals of runs that
    have ended by it. What can't be done here, a worker does. `is_all`: it has ended, and has neither, nor a schedule."""

    def follow() -> None:
        _tell_canceled([run_id] if is_all else cascades.after_cancel(connection, run_id), connection.alias)

    connection.on_commit(follow, robust=True)


def _tell_canceled(run_ids: Sequence[UUID], alias: str) -> None:
    model = apps.get_model("django_steps", "WorkflowRun")
    if run_ids and signals.run_canceled.has_listeners(model):
        for run in model._default_manager.using(alias).filter(pk__in=run_ids):
            signals.run_canceled.send_robust(sender=model, run=run)


def _warn_of_waiting_in_vain(run: RunColumns) -> results.Say:
    def warn(unclaimed: Unclaimed) -> None:
        text = "Waiting for run %s of %r, which is %s. %s"
        logger.warning(text, run.pk, run.workflow, run.status, unclaimed.text())

    return warn


def _returned(run: RunColumns) -> Any:
    if run.status == run.Status.FAILED:
        raise RunFailed(run)
    if run.status == run.Status.CANCELED:
        raise RunCanceled(f"Run {run.pk} of {run.workflow!r} was canceled.", run.pk)
    return run.output


def _connection(run: RunColumns) -> Any:
    connection = database.connection_for(router.db_for_write(type(run), instance=run))
    notify.ensure_possible(connection)
    return connection


def _changed(run: RunColumns, connection: Any) -> None:
    run.refresh_from_db(using=connection.alias)
    notify.workers(connection)


def _search_text(run: RunColumns) -> str | None:
    return None if run.input_search is None else json.dumps(run.input_search)
