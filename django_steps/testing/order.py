"""In which order the kit executes what a worker would execute side by side: any, but one that a failing test can repeat.

All follows from one text, `DJANGO_STEPS_TEST_SEED`; each call of the kit begins with it anew, so that a test alone has the
same order as among others.
"""

from __future__ import annotations

import logging
import os
import unittest
from collections.abc import Sequence
from random import Random, randrange
from typing import Any, TypeVar
from weakref import WeakSet

from .caller import calling_test

logger = logging.getLogger("django_steps.testing")

U = TypeVar("U")

VARIABLE = "DJANGO_STEPS_TEST_SEED"
# Whether anything had an order in the present test; the pytest plugin resets it.
was_used = False

_new_seed = str(randrange(1_000_000))
_telling: WeakSet[unittest.TestCase] = WeakSet()


def seed() -> str:
    """What the order follows from: the environment variable, or a number of this process."""
    return os.environ.get(VARIABLE) or _new_seed


def how_to_repeat() -> str:
    """What a failing test says of the order, as a sentence."""
    return f"Steps side by side were executed in the order of {VARIABLE}={seed()}; set it to repeat that order."


class Order:
    """The order within one call of the kit."""

    def __init__(self) -> None:
        self._random = Random(seed())
        self._was_used = False

    def arranged(self, begun: Sequence[U], others: Sequence[U], concurrency: int | None) -> list[U]:
        """As `Host.arrange()`, but whatever may be executed at once is executed in any order."""
        waiting = [*begun, *self._shuffled(others)]
        together = len(waiting) if concurrency is None else concurrency
        return [*self._shuffled(waiting[:together]), *waiting[together:]]

    def chosen(self, number: int) -> int:
        """Which of so many things comes next, as an index."""
        if number < 2:
            return 0
        self._note()
        return self._random.randrange(number)

    def _shuffled(self, units: Sequence[U]) -> list[U]:
        if len(units) > 1:
            self._note()
        return self._random.sample(units, len(units))

    def hint(self) -> str:
        """The end of a message about what went wrong; empty where there was nothing side by side."""
        return f" {how_to_repeat()}" if self._was_used else ""

    def _note(self) -> None:
        global was_used
        if not self._was_used:
            self._was_used = was_used = True
            _tell_if_test_fails()


def _tell_if_test_fails() -> None:
    """Log the order if the test case that calls fails: by its own assertion, which knows nothing of it. With pytest, the
    plugin reports it."""
    test = calling_test()
    if isinstance(test, unittest.TestCase) and test not in _telling:
        _telling.add(test)
        test.addCleanup(_tell, test)


def _tell(test: unittest.TestCase) -> None:
    _telling.discard(test)
    result: Any = getattr(getattr(test, "_outcome", None), "result", None)
    failed = [*getattr(result, "failures", ()), *getattr(result, "errors", ())]
    if any(getattr(one, "test_case", one) is test for one, _ in failed):  # it, or a part of it by subTest()
        logger.error("%s failed. %s", test.id(), how_to_repeat())
