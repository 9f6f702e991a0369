"""Schedules in tests: they fire on the virtual clock, and by nothing else."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from django.test import TestCase
from django.utils import timezone

from django_steps import Schedule, workflow
from django_steps.models import WorkflowRun, WorkflowSchedule
from django_steps.testing import DoesNotEnd, drain, run_workflow

pytestmark = pytest.mark.django_db


@pytest.fixture
def nightly():
    @workflow(schedule=Schedule("30 2 * * *", timezone="Europe/Berlin"))
    def nightly(run, step):
        return step.define("which", lambda: f"{run.scheduled_for:%Y-%m-%d}").run()

    return nightly


def scheduled(name):
    return WorkflowRun.objects.filter(schedule=name).order_by("scheduled_for")


def test_a_day_is_one_night(nightly):
    [run] = drain(advance="1d")
    assert (run.schedule, run.status, run.output) == ("nightly", "succeeded", f"{run.scheduled_for:%Y-%m-%d}")
    assert drain() == []
    assert len(drain(advance="3d")) == 3


def test_nothing_fires_that_is_not_asked_for(nightly):
    assert drain(advance="1d", schedules=False) == []

    @workflow
    def long(step):
        step.sleep("week", "7d")

    run_workflow(long)
    assert scheduled("nightly").count() == 0


def test_every_slot_fires_in_its_turn_with_what_runs_do_meanwhile():
    seen = []

    @workflow(schedule=Schedule(every="10m"))
    def ticking(run, step):
        step.define("look", lambda: seen.append((run.scheduled_for, timezone.now()))).run()

    @workflow
    def napper(step):
        step.sleep("nap", "25m")
        step.define("wake", lambda: seen.append((None, timezone.now()))).run()

    napper.start()
    drain(advance="1h")
    times = [at for _, at in seen]
    assert times == sorted(times)
    slots = [slot for slot, _ in seen if slot is not None]
    assert len(slots) == 6 and {b - a for a, b in pairwise(slots)} == {timedelta(minutes=10)}
    assert all(timedelta(0) <= at - slot < timedelta(seconds=30) for slot, at in seen if slot is not None)
    assert [slot is None for slot, _ in seen].index(True) in (2, 3)


def test_run_that_is_still_active_is_an_overlap():
    @workflow(schedule=Schedule(every="1h"))
    def slow(step):
        step.sleep("long", "90m")

    drain(advance="6h")
    row = WorkflowSchedule.objects.get(name="slow")
    assert scheduled("slow").count() == 3
    assert row.skipped["counts"] == {"overlap": 3}


def test_held_run_begins_when_the_old_one_has_ended():
    @workflow(schedule=Schedule(every="1h", overlap="wait"))
    def slow(step):
        step.sleep("long", "90m")

    drain(advance="4h")
    runs = list(scheduled("slow"))
    assert [run.status for run in runs][:2] == ["succeeded", "succeeded"]
    assert runs[1].started_at >= runs[0].finished_at


def test_schedule_of_the_database_fires_too(nightly):
    @workflow
    def sync(input, step):
        return input

    WorkflowSchedule.objects.create(name="customer-7", workflow="sync", every="6h", input={"customer": 7})
    drain(advance="1d")
    assert [run.output for run in scheduled("customer-7")] == [{"customer": 7}] * 4


def test_time_that_passed_for_a_single_run_is_a_time_without_workers():
    @workflow(schedule=Schedule(every="1m"))
    def ticking(step):
        pass

    @workflow
    def long(step):
        step.sleep("day", "1d")

    drain()
    run_workflow(long)
    assert len(drain()) == 1
    assert WorkflowSchedule.objects.get(name="ticking").skipped["counts"]["missed"] >= 1000


@pytest.mark.any_database
def test_too_many_runs_are_an_error_that_says_what_to_do():
    @workflow(schedule=Schedule(every="10s"))
    def often(step):
        pass

    assert len(drain(advance="100s", max_steps=10)) == 10
    with pytest.raises(DoesNotEnd, match=r"Schedules have started 501 runs .* schedules=False"):
        drain(advance="6d")


def test_paused_one_does_not_fire(nightly):
    drain()
    WorkflowSchedule.objects.get(name="nightly").pause()
    assert drain(advance="2d") == []


class InTestCase(TestCase):
    def test_it_works_in_a_plain_test_case(self):
        @workflow(schedule=Schedule("@daily", timezone="UTC"))
        def daily(step):
            pass

        self.assertEqual(len(drain(advance="2d")), 2)


def test_same_input_as_check_finds(nightly):
    from dataclasses import dataclass

    from django.core.checks import run_checks

    @dataclass
    class Shop:
        number: int

    def shops(input, step):
        pass

    shops.__annotations__["input"] = Shop
    workflow(schedule=Schedule("@daily", input={"numbr": 1}))(shops)
    [found] = [message for message in run_checks(tags=["django_steps"]) if message.id == "django_steps.E010"]
    assert found.msg.startswith("Schedule 'shops' can't start its workflow: The input does not fit Shop")
