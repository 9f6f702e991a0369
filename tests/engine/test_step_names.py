"""Which names steps may have, and that each names one step of its run."""

from __future__ import annotations

from enum import Enum

import pytest
from django.utils.safestring import mark_safe

from django_steps import current_step, workflow
from tests.looking import error_of, names_of


def test_second_step_of_one_name_is_a_clear_error_and_not_the_first_value(work):
    @workflow
    def twice(step):
        step.define("process", lambda: 1).run()
        step.define("process", lambda: 2).run()

    run = twice.start()
    work()
    error = error_of(run)
    assert error["type"] == "django_steps.errors.DuplicateStepName"
    assert 'f"process_{i}"' in error["message"]


def test_running_one_call_twice_is_a_duplicate(work):
    @workflow
    def run_twice(step):
        call = step.define("process", lambda: 1)
        call.run()
        call.run()

    run = run_twice.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.DuplicateStepName"
    assert names_of(run) == ["process"]


def test_duplicate_is_noticed_on_a_later_pass_too(work, pass_time):
    @workflow
    def late(step):
        step.define("process", lambda: 1).run()
        step.sleep("pause", "1h")
        step.define("process", lambda: 2).run()

    run = late.start()
    work()
    pass_time("2h")
    work()
    assert error_of(run)["type"] == "django_steps.errors.DuplicateStepName"


@pytest.mark.parametrize("sleep_first", [True, False])
def test_step_and_sleep_of_one_name_are_a_clear_error(work, sleep_first):
    @workflow
    def mixed(step):
        calls = [lambda: step.sleep("pause", 0), lambda: step.define("pause", lambda: 1).run()]
        for call in calls if sleep_first else reversed(calls):
            call()

    run = mixed.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.DuplicateStepName"


def test_names_that_differ_in_case_and_accents_are_different_steps(work, pass_time):
    names = [
        "name",
        "Name",
        "NAME",
        "nàme",
        "ñame",
        "straße",
        "strasse",
        "ﬁ",
        "fi",
        "e\u0301",
        "é",
        "ss",
        "ß",
        "😀",
        "😁",
    ]
    executed: list[str] = []

    @workflow
    def close_names(step):
        results = [step.define(name, lambda name=name: executed.append(name) or name).run() for name in names]
        step.sleep("pause", "1h")
        return results

    run = close_names.start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == names
    assert executed == names
    assert names_of(run) == [*names, "pause"]


@pytest.mark.parametrize(
    "name",
    ["", " ", "padded ", " padded", "tab\t", "a#2", "new\nline", "nul\0", "\ud800", "\u2028", "x" * 256, None, 7, b"x"],
    ids=repr,
)
def test_unusable_step_name_is_refused_before_anything_runs(work, name):
    executed: list[int] = []

    @workflow
    def bad_name(step):
        step.define(name, lambda: executed.append(1)).run()

    run = bad_name.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.InvalidName"
    assert executed == []
    assert names_of(run) == []


def test_longest_name_is_kept_whole(work):
    longest = "😀" * 255

    @workflow
    def long_name(step):
        step.define(longest, lambda: 1).run()

    run = long_name.start()
    work()
    run.result(timeout=0)
    assert names_of(run) == [longest]


def test_name_of_a_string_subclass_is_kept_as_its_text(work):
    class Names(str, Enum):  # noqa: UP042
        CHARGE = "charge"

    @workflow
    def named_by_enum(step):
        step.define(Names.CHARGE, lambda: 1).run()
        step.define(mark_safe("refund"), lambda: current_step().name).run()

    run = named_by_enum.start()
    work()
    run.result(timeout=0)
    assert names_of(run) == ["charge", "refund"]
