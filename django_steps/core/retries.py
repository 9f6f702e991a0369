"""When something that failed may be tried again, and how long to wait before.

`RetryPolicy` only answers; what waiting means (in place, or putting the run down) is decided by whoever asks.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ..durations import Duration, to_timedelta
from ..errors import GroupFailed, NonRetryableError, RetryAfter

logger = logging.getLogger("django_steps")

Condition = tuple[type[BaseException], ...] | type[BaseException] | Callable[[BaseException], bool]


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often to try, how long to wait in between, and for which exceptions.

    - `max_attempts`: all attempts, the first included; at least 1.
    - `initial_interval`, `max_interval`: durations (`"1s"`, a `timedelta`, or seconds). An `initial_interval` that is
      longer than `max_interval` is kept as the wait.
    - `backoff_coefficient`: the factor from one wait to the next; at least 1.
    - `give_up_after`: a duration that bounds all attempts and waits together: no attempt is planned that would begin later
      than this after the first one began. None: no bound but `max_attempts`, which holds beside it.
    - `jitter`: wait a random time between half of the interval and all of it, so that runs that failed
      together don't come back together.
    - `retry_on`, `give_up_on`: an exception class, a tuple of them, or a function that takes the exception
      and returns a bool. `give_up_on` wins.

    `NonRetryableError` is never tried again. `RetryAfter` sets the wait itself; in a step it uses up no attempt.

    >>> RetryPolicy(max_attempts=5, initial_interval="1s", jitter=False).delay_after(3, OSError())
    datetime.timedelta(seconds=4)
    """

    max_attempts: int = 3
    initial_interval: Duration = "1s"
    backoff_coefficient: float = 2.0
    max_interval: Duration = "5m"
    give_up_after: Duration | None = None
    jitter: bool = True
    retry_on: Condition = (Exception,)
    give_up_on: Condition = ()
    _initial: timedelta = field(init=False, repr=False, compare=False)
    _longest: timedelta = field(init=False, repr=False, compare=False)
    _bound: timedelta | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_attempts(self.max_attempts, "RetryPolicy.max_attempts")
        check_coefficient(self.backoff_coefficient, "RetryPolicy.backoff_coefficient")
        for name in ("retry_on", "give_up_on"):
            _check_condition(getattr(self, name), f"RetryPolicy.{name}")
        object.__setattr__(self, "_initial", to_timedelta(self.initial_interval))
        object.__setattr__(self, "_longest", max(self._initial, to_timedelta(self.max_interval)))
        bound = self.give_up_after
        object.__setattr__(self, "_bound", None if bound is None else to_timedelta(bound))

    def delay_after(self, attempt: int, error: BaseException) -> timedelta | None:
        """How long to wait after `attempt` (counted from 1) failed with `error`; None: don't try again."""
        if attempt >= self.max_attempts or isinstance(error, NonRetryableError):
            return None
        if isinstance(error, GroupFailed):  # again, if each member would be tried again
            is_final = _gives_up(self, error) or any(_is_final(self, member) for member in error.exceptions)
            return None if is_final else self._backoff(attempt)
        if isinstance(error, RetryAfter) and (delay := _asked_for(error)) is not None:
            return delay
        if _is_excluded(self, error):
            return None
        return self._backoff(attempt)

    def delay_asked_for(self, error: BaseException) -> timedelta | None:
        """The wait that a `RetryAfter` of a step asks for, which uses up no attempt; None for other errors.

        With jitter it is up to a tenth longer, never shorter. `give_up_on` wins.
        """
        if not isinstance(error, RetryAfter) or isinstance(error, NonRetryableError) or _gives_up(self, error):
            return None
        return error.delay * random.uniform(1.0, 1.1) if self.jitter else error.delay

    def is_too_late(self, elapsed: timedelta) -> bool:
        """Whether `give_up_after` forbids an attempt that would begin so long after the first one."""
        return self._bound is not None and elapsed > self._bound

    def _backoff(self, attempt: int) -> timedelta:
        try:
            interval = min(self._initial * self.backoff_coefficient ** (attempt - 1), self._longest)
        except OverflowError:
            interval = self._longest
        return interval * random.uniform(0.5, 1.0) if self.jitter else interval


def to_policy(value: Any, what: str) -> RetryPolicy | None:
    """A `RetryPolicy` from what users may write: a policy, a total number of attempts, or None.

    Raises `TypeError` or `ValueError` naming `what`.
    """
    if value is None or isinstance(value, RetryPolicy):
        return value
    return RetryPolicy(max_attempts=_check_attempts(value, what))


def _check_attempts(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} takes a RetryPolicy or a number of attempts (the first included), got {value!r}.")
    if value < 1:
        raise ValueError(f"{what} counts all attempts, the first included: at least 1, got {value}.")
    return value


def check_coefficient(value: Any, what: str) -> float:
    """Return the factor from one wait to the next, or raise `ValueError` naming `what`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value < 1e6:
        raise ValueError(f"{what} must be a number of at least 1, got {value!r}.")
    return value


def _check_condition(condition: Any, what: str) -> None:
    classes = condition if isinstance(condition, tuple) else (condition,)
    if all(isinstance(cls, type) and issubclass(cls, BaseException) for cls in classes):
        return
    if not isinstance(condition, (tuple, type)) and callable(condition):
        return
    raise TypeError(f"{what} takes exception classes or a function that takes the exception, got {condition!r}.")


def _asked_for(error: RetryAfter) -> timedelta | None:
    """The delay of the exception; None where a subclass has made something else of it, which is logged."""
    try:
        return to_timedelta(error.delay)
    except Exception:
        logger.exception("%s has no delay that can be waited for; the policy's own applies.", type(error).__name__)
        return None


def _holds(condition: Condition, error: BaseException) -> bool:
    if isinstance(condition, (tuple, type)):
        return isinstance(error, condition)
    return bool(condition(error))


def _is_final(policy: RetryPolicy, error: BaseException) -> bool:
    """Whether a failed member of a group is not to be tried again."""
    if isinstance(error, GroupFailed):
        return any(_is_final(policy, member) for member in error.exceptions)
    if isinstance(error, RetryAfter) and not isinstance(error, NonRetryableError):
        return _gives_up(policy, error)
    return isinstance(error, NonRetryableError) or _is_excluded(policy, error)


def _is_excluded(policy: RetryPolicy, error: BaseException) -> bool:
    return _gives_up(policy, error) or not _safely_holds(policy.retry_on, error, otherwise=False)


def _gives_up(policy: RetryPolicy, error: BaseException) -> bool:
    return _safely_holds(policy.give_up_on, error, otherwise=True)


def _safely_holds(condition: Condition, error: BaseException, *, otherwise: bool) -> bool:
    try:
        return _holds(condition, error)
    except BaseException:  # the failure that is being judged must be recorded all the same, also after a SystemExit
        logger.exception("A function of a RetryPolicy raised, so that there is no further attempt.")
        return otherwise


ONE_ATTEMPT = RetryPolicy(max_attempts=1)
