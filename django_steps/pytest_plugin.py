"""The pytest plugin: the `workflow_kit` fixture, and the virtual clock put back after each test.

Being installed costs nothing: no settings are loaded and no models imported before a test uses the kit.
"""

from __future__ import annotations

import unittest
from collections.abc import Generator
from types import ModuleType

import pytest

from .testing import clock


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None]:
    """Keep the time that passes in a test until its end. Test cases of `unittest` see to that themselves."""
    test_class = getattr(item, "cls", None)
    if isinstance(test_class, type) and issubclass(test_class, unittest.TestCase):
        yield
        return
    with clock.kept():
        yield


@pytest.fixture
def workflow_kit(db: None) -> ModuleType:
    """The testing kit, in a test that may use the database: `workflow_kit.run_workflow(…)`, `workflow_kit.drain()`."""
    from . import testing

    return testing
