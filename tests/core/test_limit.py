"""What a Limit takes, and what it refuses where it is written."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_steps import Limit, workflow
from django_steps.conf import QueueLimit, conf, problems
from django_steps.core.limit import definition_name, definition_of, limit_name, shown
from django_steps.durations import rate_interval


@pytest.mark.parametrize(
    "rate, interval",
    [
        ("100/m", 600_000),
        ("5/s", 200_000),
        ("1/h", 3_600_000_000),
        ("7/s", 142_858),
        ("10/30s", 3_000_000),
        ("1/d", 86400 * 10**6),
    ],
)
def test_a_rate_is_so_many_in_a_time_evenly_spread_and_never_more(rate: str, interval: int) -> None:
    assert rate_interval(rate) == interval == Limit(rate=rate).interval_us


@pytest.mark.parametrize(
    "rate", ["", "100", "100/", "/m", "0/m", "1.5/m", "-1/m", "5/0s", "5/x", "5 / m", "1/1000000w", "5/m/s"]
)
def test_a_wrong_rate_says_what_to_write(rate: str) -> None:
    with pytest.raises(ValueError, match='as in "100/m"'):
        Limit(rate=rate)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({}, TypeError, "needs at_once= or rate="),
        ({"at_once": 1}, TypeError, 'at_once= needs hold="executing"'),
        ({"rate": "1/s", "hold": "executing"}, TypeError, "hold= goes with at_once="),
        ({"at_once": 1, "hold": "ended"}, ValueError, 'takes "executing" or "unfinished"'),
        ({"at_once": "1", "hold": "executing"}, TypeError, "whole number"),
        ({"at_once": True, "hold": "executing"}, TypeError, "whole number"),
        ({"at_once": 0, "hold": "executing"}, ValueError, "from 1 to"),
        ({"at_once": 1, "hold": "executing", "burst": 2}, TypeError, "burst= goes with rate="),
        ({"rate": "1/s", "burst": 0}, ValueError, "from 1 to"),
        ({"rate": 5}, TypeError, "Not a rate"),
        ({"rate": "1/s", "key": "customer"}, TypeError, "takes a function of the input"),
    ],
)
def test_a_wrong_limit_is_refused_where_it_is_made(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Limit(**options)


@pytest.mark.parametrize(
    "limit, error", [("100/m", TypeError), ([1], TypeError), ([Limit(rate="1/s")] * 3, ValueError), (5, TypeError)]
)
def test_a_workflow_takes_a_limit_or_up_to_two(limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="limit="):
        workflow(limit=limit)(lambda: None)


def test_limits_are_named_by_workflow_and_key() -> None:
    name = limit_name("1", "sync", "7")
    assert (definition_of(name), definition_name("1", "sync")) == ("1:#sync",) * 2
    assert [shown(name), shown("2:#sync"), shown("q:#mail")] == ["sync 7", "sync", "queue mail"]


def test_no_two_limits_have_the_same_name() -> None:
    assert limit_name("1", "a#b", "") != limit_name("1", "b", "a")


def test_queues_are_read_from_the_settings() -> None:
    queues = {"mail": {"at_once": 10, "rate": "100/m"}, "api": {"rate": "5/s", "burst": 3}}
    with override_settings(DJANGO_STEPS={"QUEUES": queues}):
        assert conf.queues == {"mail": QueueLimit(10, 600_000, 1), "api": QueueLimit(None, 200_000, 3)}
        assert problems() == []


@pytest.mark.parametrize(
    "queues",
    [
        ["mail"],
        {"mail": 10},
        {"mail": {}},
        {"mail": {"at_once": 0}},
        {"mail": {"at_once": "1"}},
        {"mail": {"rate": "x"}},
        {"mail": {"at_once": 1, "burst": 2}},
        {"mail": {"at_once": 1, "hold": "executing"}},
        {7: {"at_once": 1}},
    ],
)
def test_wrong_queues_are_a_problem_of_the_settings(queues: Any) -> None:
    with override_settings(DJANGO_STEPS={"QUEUES": queues}):
        assert len(problems()) == 1
        with pytest.raises(ImproperlyConfigured, match="QUEUES"):
            _ = conf.queues
