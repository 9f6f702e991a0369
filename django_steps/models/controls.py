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
from django.db import router, transaction

from .. import signals
from ..core import clock
from ..core.context import active_pass, refuse_control_outside_step, refuse_outside_step
from ..errors import ResultUnavailable, RunCanceled, RunFailed
from ..ledger import controls as ledger
from ..ledger import database, inserts, notify
from . import results
from .columns import RunColumns
from .diagnosis import Unclaimed

if TYPE_CHECKING:
    from typing import Generic

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
        results.wait(self, timeout, _warn_of_waiting_in_vain(self))
        returned: R = _returned(self)
        return returned

    async def aresult(self, timeout: float | None = None) -> R:
        """`result()` for async code; other code of the same event loop goes on meanwhile, and may use the database."""
        pauses = results.pauses(self, timeout, _warn_of_waiting_in_vain(self))
        look = sync_to_async(lambda: next(pauses, None))
        while (pause := await look()) is not None:
            await asyncio.sleep(pause)
        returned: R = await sync_to_async(_returned)(self)
        return returned

    def retry(self, from_step: str | Sequence[str] | None = None) -> None:
        """Let a failed or canceled run go on from the step that failed, or from `from_step`.

        With `from_step` (the name of a step, a branch or a map as it is recorded, such as `"order#17/charge"`, or several of
        them) that step and all that came later are reset and execute again. Raises `InvalidState` in any other
        status, `FailureWasHandled` where the body had handled the failure, `UnknownStep` for a step not recorded. A run that
        is canceling can be retried once it is canceled.
        """
        refuse_control_outside_step("retry")
        connection = _connection(self)
        ledger.retry(connection, self.pk, from_step)
        _changed(self, connection)

    def cancel(self, reason: str = "", by: str = "") -> None:
        """Cancel the run. `reason` and `by` (who does it) are kept as `cancel_reason` and `canceled_by`, for people.

        While a worker executes a step of it the run is `canceling`: no further step begins, and it is canceled, and
        finished, once that step has ended and is recorded. Canceling what is canceled or canceling does nothing. Raises
        `InvalidState` for a run that succeeded or failed.
        """
        refuse_control_outside_step("cancel")
        connection = _connection(self)
        is_canceled_now = ledger.cancel(connection, self.pk, reason, by)
        _changed(self, connection)
        if is_canceled_now:
            tell_canceled(self, connection.alias)

    def restart(self, from_step: str | None = None) -> Self:
        """Start a new run of the same workflow with the same input, linked to this one by `restart_of`.

        With `from_step` what was recorded is copied, but for that step and all that came later. The key is not copied.
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
        )
        with transaction.atomic(using=connection.alias):
            inserts.insert(connection, new)
            if from_step is not None:
                inserts.copy_steps(connection, self.pk, new.id, from_step)
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

    async def aretry(self, from_step: str | Sequence[str] | None = None) -> None:
        """`retry()` for async code."""
        await sync_to_async(self.retry)(from_step)

    async def acancel(self, reason: str = "", by: str = "") -> None:
        """`cancel()` for async code."""
        await sync_to_async(self.cancel)(reason, by)

    async def arestart(self, from_step: str | None = None) -> Self:
        """`restart()` for async code."""
        run: Self = await sync_to_async(self.restart)(from_step)
        return run


def tell_canceled(run: RunColumns, alias: str) -> None:
    """Send the signal after the commit, unless the run is canceling: its worker sends it when it has released the run."""
    if run.is_finished:
        transaction.on_commit(
            lambda: signals.run_canceled.send_robust(sender=type(run), run=run), using=alias, robust=True
        )


def _warn_of_waiting_in_vain(run: RunColumns) -> results.Say:
    def warn(unclaimed: Unclaimed) -> None:
        text = "Waiting for run %s of %r, which is %s. %s"
        logger.warning(text, run.pk, run.workflow, run.status, unclaimed.text())

    return warn


def _returned(run: RunColumns) -> Any:
    if run.status == run.Status.FAILED:
        raise RunFailed(run)
    if run.status == run.Status.CANCELED:
        raise RunCanceled(f"Run {run.pk} of {run.workflow!r} was canceled.")
    return run.output


def _connection(run: RunColumns) -> Any:
    return database.connection_for(router.db_for_write(type(run), instance=run))


def _changed(run: RunColumns, connection: Any) -> None:
    run.refresh_from_db(using=connection.alias)
    notify.workers(connection)


def _search_text(run: RunColumns) -> str | None:
    return None if run.input_search is None else json.dumps(run.input_search)
