"""`health/`: what `showworkflows --check` finds, for programs."""

from __future__ import annotations

import logging

import pytest
from django.db import connection, connections
from django.test import override_settings
from django.utils import translation

from django_steps.ledger import metrics
from django_steps.monitoring import cached, views
from tests.app.workflows import three_steps

HEALTH, METRICS = "/monitoring/health/", "/monitoring/metrics/"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def always_new(monkeypatch):
    monkeypatch.setattr(cached, "GOOD_FOR", 0)


def test_a_healthy_system_is_200_and_no_cache_keeps_it(client, live_worker):
    live_worker()
    answer = client.get(HEALTH)
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "problems": []})
    assert "no-store" in answer["Cache-Control"]


def test_an_ill_one_is_503_with_what_the_command_says(client, live_worker, pass_time):
    three_steps.start({}, queue="bulk")
    pass_time("61s")
    live_worker(queues=["default"])
    answer = client.get(HEALTH)
    assert answer.status_code == 503
    said = answer.json()
    assert not said["ok"]
    assert "1 run in queue 'bulk' has been ready for more than 60 s" in said["problems"][0]


def test_no_mail_is_sent_for_each_time_that_somebody_asks(client, caplog):
    with caplog.at_level(logging.WARNING, "django.request"):
        assert client.get(HEALTH).status_code == 503
    assert caplog.records == []


@override_settings(MIDDLEWARE=["django.middleware.locale.LocaleMiddleware"])
def test_problems_are_not_translated_whoever_asks(client, monkeypatch):
    languages = []
    monkeypatch.setattr(views, "problems", lambda connection: languages.append(translation.get_language()) or [])
    client.get(HEALTH, headers={"accept-language": "de"})
    assert languages == [None]


@pytest.mark.parametrize("url", [HEALTH, METRICS])
def test_only_get_and_head_are_answered(client, live_worker, url):
    live_worker()
    assert client.head(url).status_code == 200
    assert client.head(url).content == b""
    for method in ("post", "put", "patch", "delete"):
        assert getattr(client, method)(url).status_code == 405


@pytest.mark.parametrize("url", [HEALTH, METRICS])
def test_what_was_found_is_good_for_some_seconds(client, live_worker, monkeypatch, django_assert_num_queries, url):
    live_worker()
    client.get(url)
    monkeypatch.setattr(cached, "GOOD_FOR", 5)
    first = client.get(url).content
    with django_assert_num_queries(0):
        assert client.get(url).content == first


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("url", [HEALTH, METRICS])
def test_a_database_that_cannot_be_reached_is_503_also_where_requests_are_atomic(client, monkeypatch, url):
    database = connections["default"]
    database.close()
    unreachable = {"sqlite": {"NAME": "/nowhere/at/all.sqlite3"}}.get(connection.vendor, {"PORT": "1"})
    for key, value in {**unreachable, "ATOMIC_REQUESTS": True}.items():
        monkeypatch.setitem(database.settings_dict, key, value)
    try:
        answer = client.get(url)
    finally:
        database.close()
    assert answer.status_code == 503
    assert len(answer.content.decode().strip().splitlines()) == 1


def test_metrics_of_a_database_that_refuses_are_503(client, monkeypatch):
    monkeypatch.setattr(metrics, "SCHEDULE", "no_such_table")
    answer = client.get(METRICS)
    assert answer.status_code == 503
    assert answer.content.decode().startswith("# The database refused: ")
