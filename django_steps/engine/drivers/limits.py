"""How the timeout of an attempt ends what can be ended: an async function, and a statement in an atomic step."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError

from ...ledger import database
from ..loops import PassLoop
from ..operations.attempts import Attempt


@contextmanager
def canceled_in_time(attempt: Attempt, loop: PassLoop) -> Iterator[None]:
    """Cancel what the present task awaits in here when the time of the attempt is over, and raise `StepTimedOut` then.

    As `asyncio.timeout()` does, so that a cancellation by somebody else stays one. What takes no notice of it goes on.
    """
    if attempt.deadline_us is None:
        yield
        return
    task = asyncio.current_task()
    assert task is not None
    before, has_fired = task.cancelling(), False

    def fire() -> None:
        nonlocal has_fired
        has_fired = True
        task.cancel()

    timer = loop.after(attempt.remaining_us() / 1_000_000, fire)
    try:
        yield
    except asyncio.CancelledError as canceled:
        if has_fired and task.uncancel() <= before:
            raise attempt.timeout_error() from canceled
        raise
    except BaseException:
        if has_fired:
            task.uncancel()
        raise
    else:
        if has_fired:
            task.uncancel()
    finally:
        timer.cancel()


async def awaited_in_time(awaitable: Awaitable[Any], attempt: Attempt) -> Any:
    """Await something on a loop of its own, and cancel it when the time of the attempt is over."""
    if attempt.deadline_us is None:
        return await awaitable
    limit = asyncio.timeout(attempt.remaining_us() / 1_000_000)
    try:
        async with limit:
            return await awaitable
    except TimeoutError as error:
        if limit.expired():
            raise attempt.timeout_error() from error
        raise


@contextmanager
def statements_in_time(attempt: Attempt, connection: Any) -> Iterator[None]:
    """PostgreSQL: let each statement of the open transaction take no longer than the attempt has left.

    Only in here; what follows in the transaction has the limit that there was before.
    """
    before = None if attempt.deadline_us is None else database.statement_limit(connection)
    if before is None:
        yield
        return

    def bounded(execute: Callable[..., Any], *statement: Any) -> Any:
        database.limit_statements(connection, max(1, math.ceil(attempt.remaining_us() / 1000)))
        return execute(*statement)

    try:
        with connection.execute_wrapper(bounded):
            yield
    except OperationalError as error:
        if database.is_statement_timeout(error) and not attempt.remaining_us():
            raise attempt.timeout_error() from error
        raise
    finally:
        database.limit_statements(connection, before)
