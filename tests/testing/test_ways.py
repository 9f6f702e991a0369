"""What one pass comes to is compared to the pass before, by branch."""

from __future__ import annotations

import itertools

from django.test import SimpleTestCase, TestCase

from django_steps import workflow
from django_steps.testing import NotRepeatable, run_workflow
from django_steps.testing.ways import Way


def go(way, *names, branch=""):
    """What is wrong with each of these."""
    return [found for name in names if (found := way.come_to(name, branch))]


class WayTests(SimpleTestCase):
    def test_a_branch_that_others_came_before_is_remembered(self):
        first = Way("w", None)
        first.enter("m#1")
        self.assertEqual(go(first, "m#1/a", branch="m#1"), [])
        second = Way("w", first)  # another branch was executed, and the pass ended
        third = Way("w", second)
        third.enter("m#1")
        self.assertIn("came to 'm#1/a' here, and now it came to 'm#1/b'", go(third, "m#1/b", branch="m#1")[0])

    def test_a_map_that_a_pass_did_not_come_to_is_remembered(self):
        first = Way("w", None)
        go(first, "b#x/m", "b#x/m#1", "b#x/m#2")
        third = Way("w", Way("w", first))
        go(third, "b#x/m", "b#x/m#2")
        self.assertIn("(missing: '1')", third.changed_items())

    def test_a_sleep_of_a_name_with_a_slash_or_a_gathered_branch_is_no_item(self):
        first = Way("w", None)
        go(first, "a/b", "invoice#", "nap")
        self.assertEqual(go(Way("w", first), "a/b", "invoice#", "nap"), [])
        self.assertEqual(len(go(Way("w", first), "a/b", "nap")), 1)

    def test_only_some_of_many_items_are_shown(self):
        first = Way("w", None)
        go(first, "m", *(f"m#{number}" for number in range(9)))
        second = Way("w", first)
        go(second, "m", "m#new")
        self.assertIn("(missing: '0', '1', '2', '3', '4', …; new: 'new')", second.changed_items())


class SleepingTests(TestCase):
    def test_items_that_vanish_while_all_branches_sleep_are_told(self):
        passes = itertools.count()

        @workflow(name="kit_vanishing_asleep")
        def vanishing(input, step):
            days = [1, 2, 3] if next(passes) == 0 else [1, 2]
            return step.map("nap", lambda item, step: step.sleep("nap", f"{item}d"), days)

        with self.assertRaisesMessage(NotRepeatable, "(missing: '3')"):
            run_workflow(vanishing)
