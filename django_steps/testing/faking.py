"""What fake steps need that knows nothing of them: polls that don't wait, the failures of runs that were invoked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from .. import failures
from ..core import clock
from ..core.ids import uuid7
from ..definitions.requests import Invoke, Poll
from ..errors import PollTimedOut, StepsError
from .errors import DoesNotEnd

MOST_CHECKS = 1000  # of a poll that has neither a timeout nor max_checks


def run_failed(request: Invoke, error: Exception) -> StepsError:
    """What a run that has failed raises where it was invoked."""
    # Fake steps can be imported before the apps are ready.
    from ..engine.operations.invoke import failure_of
    from ..ledger.children import Found

    child = Found(uuid7(), request.workflow.name, "failed", None, failures.record(error), "")
    return failure_of(child, request.name)


def unstubbed(*arguments: Any) -> Any:
    """Stands for what no stub takes the place of."""


def span(microseconds: int | None) -> timedelta | None:
    return None if microseconds is None else timedelta(microseconds=microseconds)


def moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else clock.to_datetime(microseconds)


async def polled(request: Poll, check: Callable[[], Awaitable[Any]]) -> Any:
    """Check until something is found, as long as the timeout would last if only the waits took time."""
    rules, waited_us, checks = request.polling, 0, 0
    while True:
        value, checks = await check(), checks + 1
        if rules.is_done(value):
            return value
        if checks == rules.max_checks or (rules.timeout_us is not None and waited_us >= rules.timeout_us):
            raise PollTimedOut(request.name, checks, value)
        if checks == MOST_CHECKS and not rules.is_bounded:
            raise DoesNotEnd(
                f"Poll {request.name!r} has checked {checks:,} times and found nothing; maybe it never does. Give it a stub, "
                "or give the poll a timeout."
            )
        waited_us += rules.interval_us(checks)
        if rules.timeout_us is not None:
            waited_us = min(waited_us, rules.timeout_us)


async def value_of(awaitable: Any) -> Any:
    return await awaitable
