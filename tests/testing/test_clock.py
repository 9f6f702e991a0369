"""The virtual clock: it stays ahead until the end of the test, and no longer."""

from __future__ import annotations

import unittest
from datetime import UTC, datetime, timedelta
from unittest import mock

from django.contrib.auth.models import User
from django.test import TestCase, override_settings
from django.utils import timezone
from django.utils.timezone import now as imported_now

from django_steps import RetryPolicy, workflow
from django_steps.core import clock as engine_clock
from django_steps.signals import run_succeeded
from django_steps.testing import DoesNotEnd, clock, drain, run_workflow

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


@workflow
def kit_tells_the_time(input, step):
    started = step.define("start", timezone.now).run()
    step.sleep("wait", "30d")
    return started, step.define("end", imported_now).run()


class TimezoneNow(TestCase):
    """What `timezone.now()` says to bodies and steps."""

    def test_it_follows_the_clock_in_steps(self):
        before = timezone.now()
        for straight_through in (False, True):
            started, ended = run_workflow(kit_tells_the_time, straight_through=straight_through).result()
            self.assertEqual((ended - started) // timedelta(days=1), 30)
        self.assertEqual((started - before) // timedelta(days=1), 30)
        self.assertIs(type(ended), datetime)

    def test_it_follows_the_clock_in_the_body(self):
        @workflow(name="kit_waits_for_a_moment")
        def body(input, step):
            deadline = step.define("deadline", lambda: timezone.now() + timedelta(days=3)).run()
            number = 0
            while not step.define(f"look {number}", lambda: timezone.now() >= deadline).run():
                step.sleep("wait", "8h")
                number += 1
            return number, timezone.localtime() >= deadline

        self.assertEqual(run_workflow(body).result(), (9, True))
        self.assertEqual(run_workflow(body, straight_through=True).result(), (9, True))

    def test_it_follows_waits_within_one_pass(self):
        @workflow(name="kit_waits_inline")
        def body(input, step):
            began = timezone.now()
            for _ in range(20):
                step.sleep("wait", "900ms")
            return timezone.now() - began

        self.assertGreaterEqual(run_workflow(body, straight_through=True).result(), timedelta(seconds=18))

    def test_it_follows_back_offs_and_columns_of_rows(self):
        @workflow(name="kit_makes_rows")
        def body(input, step):
            @step.define("make", retry=RetryPolicy(max_attempts=2, initial_interval="5d", jitter=False))
            def make():
                user, made = User.objects.get_or_create(username="ann")
                if made:
                    raise OSError
                return User.objects.create(username="bob").date_joined - user.date_joined

            return make.run()

        self.assertEqual(run_workflow(body).result() // timedelta(days=1), 5)

    def test_it_follows_in_receivers_of_signals(self):
        seen = []

        def receive(**kwargs):
            seen.append(timezone.now())

        run_succeeded.connect(receive)
        try:
            _, ended = run_workflow(kit_tells_the_time).result()
        finally:
            run_succeeded.disconnect(receive)
        self.assertLess(seen[0] - ended, timedelta(hours=1))
        self.assertGreaterEqual(seen[0], ended)

    def test_it_does_not_follow_in_the_test_itself(self):
        run = run_workflow(kit_tells_the_time)
        self.assertLess(timezone.now() - run.created_at, timedelta(hours=1))
        self.assertIs(timezone.datetime, datetime)

    def test_it_is_put_back_when_a_body_breaks_off(self):
        @workflow(name="kit_breaks_off")
        def body(input, step):
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            run_workflow(body)
        self.assertIs(timezone.datetime, datetime)

    def test_what_a_test_has_replaced_stays_replaced(self):
        moment = datetime(2020, 1, 1, tzinfo=UTC)
        with mock.patch("django.utils.timezone.now", return_value=moment):
            started, _ = run_workflow(kit_tells_the_time).result()
        self.assertEqual(started, moment)
        with mock.patch("django.utils.timezone.datetime") as replaced:
            replaced.now.return_value = moment
            self.assertEqual(run_workflow(kit_tells_the_time).result(), (moment, moment))
            self.assertIs(timezone.datetime, replaced)

    def test_it_goes_on_from_where_a_test_has_frozen_it(self):
        class Frozen(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime(2020, 1, 1, tzinfo=tz)

        # freezegun replaces the class wherever its name is.
        with mock.patch.object(timezone, "datetime", Frozen), mock.patch.object(clock, "datetime", Frozen):
            started, ended = run_workflow(kit_tells_the_time).result()
        self.assertEqual(started.date().isoformat(), "2020-01-01")
        self.assertIn(ended.date().isoformat(), ("2020-01-30", "2020-01-31"))

    @override_settings(USE_TZ=False)
    def test_it_is_naive_where_time_zones_are_off(self):
        started, ended = run_workflow(kit_tells_the_time).result()
        self.assertIsNone(ended.tzinfo)
        self.assertEqual((ended - started + timedelta(hours=2)) // timedelta(days=1), 30)
        self.assertLess(abs(started - datetime.now()), timedelta(hours=1))

    def test_templates_still_know_what_a_datetime_is(self):
        @workflow(name="kit_localizes")
        def body(input, step):
            with timezone.override("Asia/Tokyo"):
                return timezone.template_localtime(datetime(2026, 1, 1, tzinfo=UTC)).hour

        self.assertEqual(run_workflow(body).result(), 9)

    def test_a_run_that_waits_for_another_clock_is_told_which_one_follows(self):
        @workflow(name="kit_waits_for_another_clock")
        def body(input, step):
            deadline = step.define("deadline", lambda: datetime.now() + timedelta(days=3)).run()
            while datetime.now() < deadline:
                step.sleep("wait", "8h")

        with self.assertRaisesMessage(DoesNotEnd, "timezone.now() follows the clock of the test"):
            run_workflow(body, max_steps=20)

        @workflow(name="kit_waits_for_nothing")
        def endless(input, step):
            for number in range(100):
                step.define(f"step {number}", lambda: None).run()

        with clock.kept():
            engine_clock.offset_us = 0
            with self.assertRaises(DoesNotEnd) as raised:
                run_workflow(endless, max_steps=20)
        self.assertNotIn("clock", str(raised.exception))
