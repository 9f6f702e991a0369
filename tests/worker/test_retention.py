"""How long runs are kept: by the setting and by workflow, for each status."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from django_steps import workflow
from django_steps.core import clock
from django_steps.ledger import database, dialect, tables
from django_steps.models import WorkflowRun
from django_steps.worker.retention import Retention
from tests.admin.conftest import make_run
from tests.plans import NUMBERS, analyze, analyzed, id_of, is_scan, plan_of, recorded_statements, rows_looked_at

pytestmark = pytest.mark.django_db(transaction=True)


def ended(status: str, days: float, name: str = "usual", version: str = "") -> Any:
    """The id of a run that ended so many days ago."""
    at = clock.to_datetime(database.read_clock(connection)) - timedelta(days=days)
    return make_run(status, workflow=name, version=version, finished_at=at).pk


def left(*runs: Any) -> list[int]:
    """Which of the runs are still there after all that is due has been deleted."""
    Retention(lambda: False).prune(connection)
    there = set(WorkflowRun.objects.values_list("pk", flat=True))
    return [number for number, run in enumerate(runs) if run in there]


def by_status(days: float, name: str = "usual") -> list[Any]:
    return [ended(status, days, name) for status in ("succeeded", "failed", "canceled")]


def test_setting_may_name_statuses_and_keeps_the_others(settings):
    settings.DJANGO_STEPS = {"RETENTION": {"succeeded": "7d", "failed": "1y"}}
    runs = [*by_status(8), *by_status(366)]
    assert left(*runs) == [1, 2, 5]


def test_workflow_comes_before_the_setting_and_a_status_before_all(settings):
    settings.DJANGO_STEPS = {"RETENTION": {"succeeded": "7d", "failed": "30d"}}
    workflow(name="retention_short", retention="1d")(lambda: None)
    workflow(name="retention_long", retention={"succeeded": "90d", "failed": None})(lambda: None)
    short, usual, long = (by_status(8, name) for name in ("retention_short", "usual", "retention_long"))
    assert left(*short, *usual, *long) == [4, 5, 6, 7, 8]
    usual, long = by_status(31), by_status(91, "retention_long")
    assert left(*usual, *long) == [2, 4, 5]  # of canceled ones nobody says anything


def test_workflow_is_pruned_also_where_the_setting_says_nothing(settings):
    settings.DJANGO_STEPS = {}
    workflow(name="retention_alone", retention={"succeeded": "1d"})(lambda: None)
    assert left(*by_status(2, "retention_alone"), *by_status(2)) == [1, 2, 3, 4, 5]


def test_setting_holds_for_workflows_that_are_not_known_here(settings):
    settings.DJANGO_STEPS = {"RETENTION": "7d"}
    workflow(name="retention_known", retention="1d")(lambda: None)
    assert left(*by_status(2, "retention_unknown"), *by_status(8, "retention_unknown")) == [0, 1, 2]


def test_longest_time_holds_for_all_versions_of_a_workflow(settings):
    settings.DJANGO_STEPS = {"RETENTION": "7d"}
    for version, kept in (("1", "1d"), ("2", "3d")):
        workflow(name="retention_versions", version=version, retention=kept)(lambda: None)
    runs = [ended("failed", days, "retention_versions", version) for days in (2, 4) for version in ("0", "1", "2")]
    assert left(*runs) == [0, 1, 2]
    workflow(name="retention_versions", version="3", retention={"failed": None})(lambda: None)
    assert left(ended("failed", 100, "retention_versions", "1")) == [0]


def test_retention_counts_from_the_end(settings):
    settings.DJANGO_STEPS = {"RETENTION": "7d"}
    WorkflowRun.objects.filter(pk=(run := ended("failed", 1))).update(created_at=clock.to_datetime(0))
    assert left(run) == [0]


def test_batches_go_on_until_nothing_is_due(settings, monkeypatch):
    settings.DJANGO_STEPS = {"RETENTION": "7d"}
    workflow(name="retention_batches", retention="1d")(lambda: None)
    monkeypatch.setattr("django_steps.ledger.pruning.BATCH", 2)
    monkeypatch.setattr("django_steps.ledger.pruning.prune.__defaults__", ((), 2))
    assert (
        left(*(ended("failed", 2, "retention_batches") for _ in range(5)), *(ended("failed", 8) for _ in range(5)))
        == []
    )


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (
            30,
            ValueError,
            "retention of @workflow: What is older is deleted, so say the unit: 30 seconds are '30s', days '30d'",
        ),
        ("0s", ValueError, "retention of @workflow: must be at least 1 seconds"),
        ("soon", ValueError, "retention of @workflow: Not a duration"),
        ({"failed": 7}, ValueError, "say the unit: 7 seconds"),
        ({"paused": "7d"}, ValueError, "has a time for 'paused'"),
        (["7d"], TypeError, "retention of @workflow: Not a duration"),
        (True, TypeError, "retention of @workflow: Not a duration"),
    ],
    ids=repr,
)
def test_wrong_retention_is_refused_where_it_is_written(given, error, text):
    with pytest.raises(error, match=text):
        workflow(name="retention_wrong", retention=given)(lambda: None)


def test_nothing_is_asked_where_everything_is_kept(settings, django_assert_num_queries):
    settings.DJANGO_STEPS = {"RETENTION": {"failed": None}}
    with django_assert_num_queries(0):
        Retention(lambda: False).prune(connection)


ENDED, OTHERS, YOUNG = 100_000, 20, 5_000


@pytest.fixture
def many(transactional_db: None) -> None:
    """Runs of an old time: nearly all of a workflow that keeps them for longer than others, and some of one that doesn't. Of
    that one there are many young ones, too: to look at all of its runs would be too much."""
    moment = dialect.date_value(connection, database.read_clock(connection) - 100 * 86_400_000_000)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {tables.RUN} (id, workflow, status, phase, input, created_at, finished_at) SELECT {id_of('n.n')},"
            f" CASE WHEN n.n < {OTHERS} THEN 'retention_brief' ELSE 'retention_audit' END, 'succeeded', 2, '{{}}', %s, %s"
            f" FROM {NUMBERS} WHERE n.n < {ENDED}",
            [moment, moment],
        )
        young = dialect.date_value(connection, database.read_clock(connection))
        cursor.execute(
            f"INSERT INTO {tables.RUN} (id, workflow, status, phase, input, created_at, finished_at)"
            f" SELECT {id_of(f'{ENDED} + n.n')}, 'retention_brief', 'succeeded', 2, '{{}}', %s, %s FROM {NUMBERS}"
            f" WHERE n.n < {YOUNG}",
            [young, young],
        )
    analyze(tables.RUN)


def test_what_is_kept_for_longer_is_not_walked_over(many, settings):
    settings.DJANGO_STEPS = {"RETENTION": "30d"}
    workflow(name="retention_audit", retention="10y")(lambda: None)
    workflow(name="retention_brief", retention="1d")(lambda: None)
    ended("succeeded", 8, "retention_other")

    def cost() -> tuple[int, list[Any]]:
        with rows_looked_at() as looked_at, recorded_statements() as statements:
            Retention(lambda: False).prune(connection)
        return looked_at[0], [(text, given) for text, given in statements if text.startswith(("SELECT", "WITH"))]

    cost()
    assert WorkflowRun.objects.count() == ENDED - OTHERS + YOUNG + 1
    analyze(tables.RUN)
    most = 5_000 if connection.vendor == "sqlite" else 100
    looked_at, nothing_due = cost()
    assert looked_at <= most, "\n".join(analyzed(*statement) for statement in nothing_due)
    plans = [(text, plan_of(text, given)) for text, given in nothing_due if "finished_at" in text]
    assert plans and all(not is_scan(plan) for _, plan in plans), plans
    assert any("django_steps_kept" in plan for _, plan in plans), plans

    old = ended("succeeded", 31, "retention_other")
    assert left(old) == []
    assert [text for text, _ in cost()[1]] == [text for text, _ in nothing_due]
