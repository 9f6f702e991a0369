"""The virtual clock: it stays ahead until the end of the test, and no longer."""

from __future__ import annotations

import unittest

from django.test import TestCase

from django_steps.core import clock as engine_clock
from django_steps.testing import clock, drain

from .workflows import kit_greeting

DAY = 24 * 3600 * 1_000_000


def let_pass(microseconds):
    with clock.running():
        clock.advance(microseconds)


def run_in_a_row(test_class):
    """Run test cases as a runner does; how far the clock was ahead afterwards."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(test_class).run(result)
    assert result.wasSuccessful() and result.testsRun > 1, result.errors + result.failures
    return engine_clock.offset_us


class _TimePasses(unittest.TestCase):
    before = 0

    def setUp(self):
        self.assertEqual(engine_clock.offset_us, self.before)
        let_pass(1)

    def test_once(self):
        let_pass(2)
        let_pass(3)
        self.assertEqual(engine_clock.offset_us, self.before + 6)

    def test_again(self):
        self._helper()
        self.assertEqual(engine_clock.offset_us, self.before + 5)

    @classmethod
    def _helper(cls):
        let_pass(4)


class _TimePassesForAll(_TimePasses):
    before = 100

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        let_pass(100)


def test_time_that_passes_in_a_test_case_has_not_passed_in_the_next():
    assert run_in_a_row(_TimePasses) == 0


def test_time_that_passes_for_a_class_has_passed_in_all_its_tests_and_not_after():
    assert run_in_a_row(_TimePassesForAll) == 0


def test_in_pytest_time_stays_passed_until_the_plugin_puts_it_back():
    with clock.kept():
        let_pass(5)
        let_pass(6)
        assert engine_clock.offset_us == 11
    assert engine_clock.offset_us == 0


def test_where_nobody_could_put_it_back_time_goes_back_at_once(monkeypatch):
    monkeypatch.setattr(clock, "_is_kept", False)
    let_pass(5)
    assert engine_clock.offset_us == 0


class InADjangoTestCase(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.run_for_all = kit_greeting.start({"name": "for all", "pause": "2d"})
        drain(advance="1d")

    def test_drain_moves_it(self):
        self.assertEqual(engine_clock.offset_us // DAY, 1)
        drain(advance="6d")
        self.assertEqual(engine_clock.offset_us // DAY, 7)

    def test_drain_moves_it_from_where_it_was(self):
        self.assertEqual(engine_clock.offset_us // DAY, 1)
        self.assertEqual(drain(advance="23h"), [])
        [run] = drain(advance="1h")
        self.assertEqual(run.pk, self.run_for_all.pk)
