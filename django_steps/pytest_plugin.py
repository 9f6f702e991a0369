"""The pytest plugin: the `workflow_kit` fixture, the virtual clock put back after each test, and what a failed test says of
the order in which things were executed side by side.

Being installed costs nothing: no settings are loaded and no models imported before a test uses the kit.
"""

from __future__ import annotations

import unittest
from collections.abc import Generator
from types import ModuleType
from typing import Any

import pytest

from .testing import clock, order


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None]:
    """Keep the time that passes in a test until its end. Test cases of `unittest` see to that themselves."""
    order.was_used = False
    test_class = getattr(item, "cls", None)
    if isinstance(test_class, type) and issubclass(test_class, unittest.TestCase):
        yield
        return
    with clock.kept():
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any]:
    """Name the seed in the report of a failed test that executed anything side by side."""
    report = (yield).get_result()
    if report.failed and order.was_used:
        report.sections.append(("django_steps", order.how_to_repeat()))


@pytest.fixture
def workflow_kit(db: None) -> ModuleType:
    """The testing kit, in a test that may use the database: `workflow_kit.run_workflow(…)`, `workflow_kit.drain()`."""
    from . import testing

    return testing
