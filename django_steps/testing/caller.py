"""Which test case calls the kit: what has to be done at the end of the test is left to it."""

from __future__ import annotations

import sys
import unittest


def calling_test() -> unittest.TestCase | type[unittest.TestCase] | None:
    """The test case that is being executed; its class in `setUpClass()` and the like; None where there is neither."""
    test_class: type[unittest.TestCase] | None = None
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(owner, unittest.TestCase):
            return owner
        if isinstance(owner, type) and issubclass(owner, unittest.TestCase):
            test_class = owner  # setUpClass or setUpTestData, or a class method that a test calls
        frame = frame.f_back  # type: ignore[assignment]
    return test_class
