"""`Schedule`, and the decorator that takes it."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_steps import InvalidName, Schedule, workflow


def body(step):
    pass


def names(**options):
    return list(workflow(**options)(body).schedules)


def test_the_only_schedule_has_the_name_of_the_workflow():
    assert names(name="nightly", schedule=Schedule("30 2 * * *")) == ["nightly"]
    assert names(name="never") == []
    assert names(name="never again", schedule=[]) == []


def test_all_of_a_list_but_one_need_a_name():
    several = [Schedule(every="10s", name="often"), Schedule("@daily")]
    assert names(name="both", schedule=several) == ["often", "both"]
    with pytest.raises(ValueError, match=r"Two schedules of workflow 'two' have no name="):
        workflow(name="two", schedule=[Schedule(every="10s"), Schedule("@daily")])(body)
    with pytest.raises(ValueError, match=r"Two schedules of workflow 'two' are named 'a'"):
        workflow(name="two", schedule=[Schedule(every="10s", name="a"), Schedule("@daily", name="a")])(body)


def test_two_workflows_cannot_share_the_name_of_a_schedule():
    workflow(name="first", schedule=Schedule("@daily", name="daily"))(body)
    with pytest.raises(ImproperlyConfigured, match=r"Two schedules are named 'daily': .*test_definitions"):
        workflow(name="second", schedule=Schedule("@daily", name="daily"))(body)


def test_of_several_versions_one_is_scheduled():
    workflow(name="first", version="1", schedule=Schedule("@daily"))(body)
    with pytest.raises(ImproperlyConfigured, match="one alone is scheduled"):
        workflow(name="first", version="2", schedule=Schedule("@daily"))(body)
    workflow(name="first", version="2")(body)


def test_a_module_may_be_imported_again():
    for _ in range(2):
        workflow(name="first", schedule=Schedule("@daily"))(body)


@pytest.mark.parametrize(
    ("arguments", "error", "what"),
    [
        (((), {}), TypeError, "either cron"),
        ((("0 0 * * *",), {"every": "10s"}), TypeError, "either cron"),
        (((), {"every": "10s", "timezone": "UTC"}), TypeError, "timezone= is for cron"),
        ((("61 * * * *",), {}), ValueError, "Not a cron expression: '61 \\* \\* \\* \\*'. Bad minute"),
        (((5,), {}), TypeError, "A cron expression is a string"),
        ((("@daily",), {"timezone": "Mars/Olympus"}), ValueError, "Unknown time zone 'Mars/Olympus'"),
        (((), {"every": "0s"}), ValueError, "at least 1"),
        (((), {"every": -5}), ValueError, "negative"),
        ((("@daily",), {"overlap": "queue"}), ValueError, "overlap takes one of 'skip', 'allow', 'wait', 'cancel'"),
        ((("@daily",), {"missed": "all"}), ValueError, "missed takes one of 'latest', 'skip'"),
        ((("@daily",), {"pause_after": 0}), ValueError, "at least 1"),
        ((("@daily",), {"pause_after": True}), TypeError, "whole number"),
        ((("@daily",), {"spread": "soon"}), ValueError, "Not a duration"),
        ((("@daily",), {"priority": 1000}), ValueError, "-100 to 100"),
        ((("@daily",), {"queue": ""}), InvalidName, "can't be empty"),
        ((("@daily",), {"name": " x"}), InvalidName, "white space"),
        ((("@daily",), {"name": "x" * 201}), InvalidName, "at most 200 characters"),
    ],
)
def test_what_can_never_fire_is_refused_where_it_is_written(arguments, error, what):
    given, options = arguments
    with pytest.raises(error, match=what):
        Schedule(*given, **options)


def test_a_long_name_of_a_workflow_asks_for_a_name_of_the_schedule():
    with pytest.raises(InvalidName, match=r"Give the schedule a shorter name="):
        workflow(name="x" * 201, schedule=Schedule("@daily"))(body)
    assert names(name="x" * 201, schedule=Schedule("@daily", name="short")) == ["short"]


@pytest.mark.parametrize("given", ["@daily", 5, ["@daily"], [Schedule("@daily"), None]])
def test_what_is_no_schedule_is_refused(given):
    with pytest.raises(TypeError, match="schedule= takes a Schedule or a list of them"):
        workflow(name="first", schedule=given)(body)


def test_it_shows_what_it_is_but_not_its_input():
    assert repr(Schedule("30 2 * * *", timezone="Europe/Berlin", input={"token": "secret"}, overlap="wait")) == (
        "Schedule('30 2 * * *', timezone='Europe/Berlin', overlap='wait')"
    )
    assert repr(Schedule(every=90)) == "Schedule(every='1m30s')"


@pytest.mark.parametrize("key", ["schedule:nightly:2026-11-27T02:30:00Z", "schedule:"])
def test_keys_of_scheduled_runs_are_reserved(key, db):
    other = workflow(name="other")(body)
    with pytest.raises(InvalidName, match="as the keys of scheduled runs do"):
        other.start(key=key)
    with pytest.raises(InvalidName, match="as the keys of scheduled runs do"):
        other.start_many([None], key=lambda input: key)
    assert other.start(key="my schedule:").created
