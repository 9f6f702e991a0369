"""The verbs of a run: what `run.retry()` and the others do. They are methods of `WorkflowRun`, kept apart from its columns.

Each refreshes the instance and wakes the workers; the writes are in `ledger/`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import operator
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db import router, transaction

from . import signals, waiting, wakeups
from .context import active_pass, active_step
from .errors import ResultUnavailable, RunCanceled, RunFailed, StartOutsideStep
from .ledger import sql, starts
from .ledger import verbs as ledger
from .liveness import Untaken

if TYPE_CHECKING:
    from .models import R, WorkflowRun

logger = logging.getLogger("django_steps")

_MOST_PROGRESS = 2**63 - 1  # what a column holds: the renewal that carries it is all runs'


def result(self: WorkflowRun[R], timeout: float | None = None) -> R:
    """Wait for the end of the run and return what its body returned.

    `timeout` is in seconds; None waits for ever. Where no live worker would take the run, that is logged as a warning
    after 5 seconds. Raises `RunFailed`, `RunCanceled`, `TimeoutError`, and `ResultUnavailable` at once inside
    `atomic()` (no worker can see the run before the commit), a body or a step.

    >>> process_order.start({"order_id": 7}).result(timeout=30)  # doctest: +SKIP
    """
    waiting.wait(self, timeout, _warn_of_waiting_in_vain(self))
    return _returned(self)


async def aresult(self: WorkflowRun[R], timeout: float | None = None) -> R:
    """`result()` for async code; other code of the same event loop goes on meanwhile, and may use the database."""
    pauses = waiting.pauses(self, timeout, _warn_of_waiting_in_vain(self))
    look = sync_to_async(lambda: next(pauses, None))
    while (pause := await look()) is not None:
        await asyncio.sleep(pause)
    returned: R = await sync_to_async(_returned)(self)
    return returned


def retry(self: WorkflowRun, from_step: str | None = None) -> None:
    """Let a failed or canceled run go on from the step that failed, or from `from_step`.

    With `from_step` that step and all recorded after it are forgotten and execute again. Raises `InvalidState` in any
    other status, `FailureWasHandled` where the body had handled the failure, `UnknownStep` for a step not recorded.
    """
    connection = _connection(self)
    ledger.retry(connection, self.pk, from_step)
    _changed(self, connection)


def cancel(self: WorkflowRun) -> None:
    """Cancel the run; a body that is running stops at its next step. Canceling a canceled run does nothing.

    Raises `InvalidState` for a run that succeeded or failed.
    """
    connection = _connection(self)
    is_canceled_now = ledger.cancel(connection, self.pk)
    _changed(self, connection)
    if is_canceled_now:
        tell_canceled(self, connection.alias)


def tell_canceled(run: WorkflowRun, alias: str) -> None:
    """Send the signal after the commit, unless a worker holds the run: that worker sends it when it has let go."""
    if run.phase == run.Phase.ENDED:
        transaction.on_commit(
            lambda: signals.run_canceled.send_robust(sender=type(run), run=run), using=alias, robust=True
        )


def restart(self: WorkflowRun[R], from_step: str | None = None) -> WorkflowRun[R]:
    """Start a new run of the same workflow with the same input, linked to this one by `restart_of`.

    With `from_step` the steps recorded before it are copied. The key is not. Raises `UnknownStep`.
    """
    refuse_outside_step("restart")
    connection = _connection(self)
    new = starts.NewRun(
        workflow=self.workflow,
        version=self.version,
        queue=self.queue,
        priority=self.priority,
        input=self.input_text,
        input_search=_search_text(self),
        created_at=sql.host_time(),
        restart_of=self.pk,
    )
    with transaction.atomic(using=connection.alias):
        starts.insert(connection, new)
        if from_step is not None:
            starts.copy_steps(connection, self.pk, new.id, ledger.position_of(connection, self.pk, from_step))
    wakeups.notify(connection)
    return type(self)._default_manager.using(connection.alias).get(pk=new.id)


def set_progress(self: WorkflowRun, done: int, total: int) -> None:
    """Say from a body how far it is, such as 37 of 100. Costs no write: the renewal of the lease carries it.

    Raises `TypeError` for what is no whole number, `ValueError` unless 0 <= done <= total < 2**63, and
    `ResultUnavailable` outside the body of this run.
    """
    done, total = operator.index(done), operator.index(total)
    if not 0 <= done <= total <= _MOST_PROGRESS:
        raise ValueError(f"Progress needs whole numbers with 0 <= done <= total < 2**63, got {done!r} of {total!r}.")
    current = active_pass.get()
    if current is None or current.run_id != self.pk:
        raise ResultUnavailable("set_progress() is for the body of this run: take `run` as its argument.")
    self.progress_done, self.progress_total = current.progress = done, total


async def aretry(self: WorkflowRun, from_step: str | None = None) -> None:
    """`retry()` for async code."""
    await sync_to_async(self.retry)(from_step)


async def acancel(self: WorkflowRun) -> None:
    """`cancel()` for async code."""
    await sync_to_async(self.cancel)()


async def arestart(self: WorkflowRun[R], from_step: str | None = None) -> WorkflowRun[R]:
    """`restart()` for async code."""
    run: WorkflowRun[R] = await sync_to_async(self.restart)(from_step)
    return run


def refuse_outside_step(verb: str) -> None:
    """Raise `StartOutsideStep` in a body outside a step: every pass over it would start another run."""
    if active_pass.get() is not None and active_step.get() is None:
        raise StartOutsideStep(
            f"{verb}() in a body starts a run on every pass over it. Wrap it in a step: "
            f'step.define("start_other", lambda: str(other.{verb}(…).pk)).run()'
        )


def _warn_of_waiting_in_vain(run: WorkflowRun[Any]) -> waiting.Say:
    def warn(untaken: Untaken) -> None:
        text = "Waiting for run %s of %r, which is %s. %s"
        logger.warning(text, run.pk, run.workflow, run.status, untaken.text())

    return warn


def _returned(run: WorkflowRun[R]) -> R:
    if run.status == run.Status.FAILED:
        raise RunFailed(run)
    if run.status == run.Status.CANCELED:
        raise RunCanceled(f"Run {run.pk} of {run.workflow!r} was canceled.")
    return run.output  # type: ignore[no-any-return]


def _connection(run: WorkflowRun) -> Any:
    return sql.connection_for(router.db_for_write(type(run), instance=run))


def _changed(run: WorkflowRun, connection: Any) -> None:
    run.refresh_from_db(using=connection.alias)
    wakeups.notify(connection)


def _search_text(run: WorkflowRun) -> str | None:
    return None if run.input_search is None else json.dumps(run.input_search)
