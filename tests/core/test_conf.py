"""The `DJANGO_STEPS` setting."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_steps.conf import conf, problems


@override_settings(DJANGO_STEPS={})
def test_defaults():
    assert problems() == []
    assert (conf.concurrency, conf.max_recoveries, conf.max_value_bytes) == (8, 3, 1024 * 1024)
    assert (conf.poll_interval, conf.lease) == (timedelta(seconds=1), timedelta(seconds=30))
    assert (conf.inline_wait, conf.retention, conf.base_url) == (timedelta(seconds=1), {}, None)
    assert (conf.event_retention, conf.on_changed_arguments) == (timedelta(days=7), "warn")


def test_settings_are_read_when_they_are_asked_for():
    with override_settings(DJANGO_STEPS={"CONCURRENCY": 3, "LEASE": "2m", "INLINE_WAIT": 0, "RETENTION": "30d"}):
        assert (conf.concurrency, conf.lease) == (3, timedelta(minutes=2))
        assert (conf.inline_wait, set(conf.retention.values())) == (timedelta(0), {timedelta(days=30)})
        assert problems() == []
    assert conf.concurrency == 8
    with override_settings(DJANGO_STEPS={"EVENT_RETENTION": None}):
        assert conf.event_retention is None


@pytest.mark.parametrize(
    "name, value, hint",
    [
        ("CONCURRENCY", 0, "whole number of at least 1"),
        ("CONCURRENCY", True, "whole number of at least 1"),
        ("CONCURRENCY", "8", "whole number of at least 1"),
        ("CONCURRENCY", None, "whole number of at least 1"),
        ("MAX_RECOVERIES", -1, "whole number of at least 0"),
        ("MAX_VALUE_BYTES", 10, "whole number of at least 1024"),
        ("LEASE", "0.5s", "at least 1 seconds"),
        ("LEASE", "soon", "Not a duration"),
        ("LEASE", None, "Not a duration"),
        ("POLL_INTERVAL", 0, "at least 0.01 seconds"),
        ("INLINE_WAIT", -1, "can't be negative"),
        ("RETENTION", "0s", "at least 1 seconds"),
        ("RETENTION", 0, "say the unit"),
        ("RETENTION", 30, "say the unit: 30 seconds are '30s', days '30d'"),
        ("RETENTION", 30.0, "say the unit"),
        ("RETENTION", "30", "Not a duration"),
        ("RETENTION", {"succeeded": 7}, "say the unit: 7 seconds are '7s', days '7d'"),
        ("RETENTION", {"failed": "0s"}, "at least 1 seconds"),
        ("RETENTION", {"running": "1d"}, "has a time for 'running'; what can be deleted are runs that have ended"),
        ("RETENTION", ["7d"], "Not a duration"),
        ("BASE_URL", "", "must be an address"),
        ("BASE_URL", 7, "must be an address"),
        ("BASE_URL", b"https://example.com", "must be an address"),
        ("BASE_URL", "example.com", "must be an address"),
        ("BASE_URL", "//example.com", "must be an address"),
        ("BASE_URL", "ftp://example.com", "must be an address"),
        ("BASE_URL", "javascript:alert(1)", "must be an address"),
        ("BASE_URL", "https://", "must be an address"),
        ("BASE_URL", "https:///path", "must be an address"),
        ("BASE_URL", "https://example.com:x", "must be an address"),
        ("BASE_URL", "https://[::1", "must be an address"),
        ("BASE_URL", "https://exa mple.com", "must be an address"),
        ("BASE_URL", "https://example.com\n", "must be an address"),
        ("BASE_URL", "https://example.com/?a=b", "without a query"),
        ("BASE_URL", "https://example.com/?", "without a query"),
        ("BASE_URL", "https://example.com/#a", "without a query"),
        ("BASE_URL", "https://user:word@example.com", "without a user name"),
        ("EVENT_RETENTION", 7, "say the unit: 7 seconds are '7s', days '7d'"),
        ("EVENT_RETENTION", "0s", "at least 1 seconds"),
        ("ON_CHANGED_ARGUMENTS", "error", "must be one of 'ignore', 'warn', 'fail', got 'error'"),
        ("ON_CHANGED_ARGUMENTS", None, "must be one of 'ignore', 'warn', 'fail', got None"),
    ],
    ids=repr,
)
def test_bad_value_is_named_by_the_checks_and_refused_when_read(name, value, hint):
    with override_settings(DJANGO_STEPS={name: value}):
        (problem,) = problems()
        assert f"DJANGO_STEPS['{name}']" in problem
        assert hint in problem
        with pytest.raises(ImproperlyConfigured, match=name):
            getattr(conf, name.lower())


@pytest.mark.parametrize(
    "given, read",
    [
        ("https://example.com", "https://example.com"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("https://example.com/app/", "https://example.com/app"),
        ("https://[::1]:8000", "https://[::1]:8000"),
        ("HTTPS://Example.com", "HTTPS://Example.com"),
        (None, None),
    ],
)
def test_base_url_is_read_without_a_slash_at_its_end(given, read):
    with override_settings(DJANGO_STEPS={"BASE_URL": given}):
        assert problems() == []
        assert conf.base_url == read


def test_unknown_key_is_a_problem_that_lists_the_known_ones():
    with override_settings(DJANGO_STEPS={"CONCURENCY": 3}):
        (problem,) = problems()
    assert "'CONCURENCY'" in problem
    assert "CONCURRENCY, EVENT_RETENTION, EXECUTOR, INLINE_WAIT, LEASE" in problem


@pytest.mark.parametrize("value", [None, [], "CONCURRENCY=3", 7])
def test_setting_that_is_no_dict_is_a_problem(value):
    with override_settings(DJANGO_STEPS=value):
        (problem,) = problems()
        assert "must be a dict" in problem
        with pytest.raises(ImproperlyConfigured):
            conf.concurrency  # noqa: B018


def test_retention_may_be_one_for_all_or_by_status():
    year, week = timedelta(days=365), timedelta(days=7)
    with override_settings(DJANGO_STEPS={"RETENTION": {"succeeded": "7d", "failed": "1y", "canceled": None}}):
        assert conf.retention == {"succeeded": week, "failed": year, "canceled": None}
    with override_settings(DJANGO_STEPS={"RETENTION": {"succeeded": "1w"}}):
        assert conf.retention == {"succeeded": week}
    with override_settings(DJANGO_STEPS={"RETENTION": timedelta(days=7)}):
        assert conf.retention == {"succeeded": week, "failed": week, "canceled": week}
