"""Writing the schedules of the code: what the code says, and what operators have said, are different columns."""

from __future__ import annotations

import pytest
from django.core.management import CommandError
from django.db import connection

from django_steps import Schedule, workflow
from django_steps.definitions import registry, scheduling
from django_steps.models import Worker, WorkflowSchedule
from tests.commands.conftest import run_command  # noqa: F401

from .conftest import now, schedule

pytestmark = pytest.mark.django_db(transaction=True)


def define(*given, name="sync_me", **options):
    """The code now has this schedule, in place of the one before."""
    registry._registry.pop((name, options.get("version", "")), None)

    def body(input, step):
        pass

    return workflow(name=name, schedule=given[0] if len(given) == 1 else list(given), **options)(body)


def forget(name="sync_me"):
    registry._registry.pop((name, ""))


def test_all_that_the_schedule_says_is_in_the_row(settings):
    settings.TIME_ZONE = "Europe/Berlin"
    define(
        Schedule(
            "30 2 * * *",
            input={"a": 1},
            overlap="wait",
            missed="skip",
            spread="10m",
            pause_after=3,
            queue="q",
            priority=2,
        ),
        Schedule(every="90s", name="often"),
        version="2",
    )
    assert scheduling.sync().created == ["often", "sync_me"]
    row = schedule("sync_me")
    assert (row.workflow, row.version, row.cron, row.every, row.timezone) == (
        "sync_me",
        "2",
        "30 2 * * *",
        "",
        "Europe/Berlin",
    )
    assert (row.input, row.overlap, row.missed, row.spread, row.pause_after) == ({"a": 1}, "wait", "skip", "10m", 3)
    assert (row.queue, row.priority, row.source) == ("q", 2, "code")
    often = schedule("often")
    assert (often.every, often.cron, often.timezone, often.queue, often.priority) == ("1m30s", "", "", "default", 0)
    assert now() < often.next_at_us <= now() + 90_000_000
    assert scheduling.sync() == scheduling.Synced()


def test_changed_definition_is_written_and_counts_from_now_on(pass_time, fire):
    define(Schedule(every="1h"))
    scheduling.sync()
    before = schedule("sync_me").next_at_us
    define(Schedule(every="1h", overlap="allow"))
    assert scheduling.sync().changed == ["sync_me"]
    assert (schedule("sync_me").overlap, schedule("sync_me").next_at_us) == ("allow", before), "its times are the same"

    pass_time("3h")
    define(Schedule("0 0 1 1 *"))
    scheduling.sync()
    assert schedule("sync_me").next_at_us > now()
    assert fire() == 0, "changing a schedule never fires retroactively"


def test_worker_does_not_bring_back_a_definition_that_the_row_has_had():
    define(Schedule(every="1h"))
    scheduling.sync()
    define(Schedule(every="2h"))
    scheduling.sync()
    define(Schedule(every="1h"))  # an old process starts again
    assert scheduling.sync() == scheduling.Synced()
    assert schedule("sync_me").every == "2h"


def test_syncschedules_goes_back(run_command):  # noqa: F811
    define(Schedule(every="1h"))
    scheduling.sync()
    define(Schedule(every="2h"))
    scheduling.sync()
    define(Schedule(every="1h"))
    assert run_command("syncschedules").out.splitlines() == ["sync_me: changed"]
    assert schedule("sync_me").every == "1h"
    assert run_command("syncschedules").out.splitlines() == ["Nothing has changed."]
    define(Schedule(every="2h"))  # what was newer is old now
    assert scheduling.sync() == scheduling.Synced()


def test_deploy_never_unpauses():
    define(Schedule(every="1h"))
    scheduling.sync()
    schedule("sync_me").pause("holidays", by="eve")
    define(Schedule(every="2h"))
    scheduling.sync()
    row = schedule("sync_me")
    assert (row.every, row.is_paused, row.pause_reason, row.next_at) == ("2h", True, "holidays", None)
    row.resume()
    assert row.next_at is not None


def test_two_that_sync_at_once_leave_one_row(monkeypatch):
    define(Schedule(every="1h"))
    table = WorkflowSchedule._base_manager.db_manager("default")
    scheduling.sync()
    # The other one has looked before this one wrote.
    row = scheduling._new_row("sync_me", scheduling.definition(next(iter(_own()))), now())
    table.bulk_create([row], ignore_conflicts=True)
    assert table.filter(name="sync_me").count() == 1


def _own():
    return [item for item in scheduling.defined() if item.name == "sync_me"]


def test_name_that_a_row_of_the_database_has_is_left_to_it(run_command):  # noqa: F811
    define(None, name="plain")
    WorkflowSchedule.objects.create(name="sync_me", workflow="plain", every="5h")
    define(Schedule(every="1h"))
    assert scheduling.sync().taken == ["sync_me"]
    assert schedule("sync_me").every == "5h"
    with pytest.raises(CommandError, match="sync_me: the name is taken by a row of the database"):
        run_command("syncschedules")


def test_wrong_input_keeps_no_other_schedule_from_being_written(run_command):  # noqa: F811
    def body(input: int, step):
        pass

    from dataclasses import dataclass

    @dataclass
    class Shop:
        number: int

    def of_shop(input, step):
        pass

    of_shop.__annotations__["input"] = Shop
    workflow(name="shops", schedule=Schedule("@daily", input={"numbr": 1}))(of_shop)
    define(Schedule(every="1h"))
    synced = scheduling.sync()
    assert (synced.created, list(synced.invalid)) == (["sync_me"], ["shops"])
    with pytest.raises(CommandError, match="shops: The input does not fit Shop"):
        run_command("syncschedules")


# -- What no live code has --------------------------------------------------------------------------


def test_schedule_that_no_live_code_has_is_disabled_until_some_has(live_worker, fire, pass_time):
    define(Schedule(every="1h"))
    scheduling.sync()
    live_worker(workflows=[["sync_me", ""]], schedules=["sync_me"])
    forget()
    assert scheduling.disable_unknown() == [], "another live worker has it"
    Worker.objects.update(last_seen_us=0)
    assert scheduling.disable_unknown() == ["sync_me"]
    row = schedule("sync_me")
    assert (row.disabled_reason, row.next_at) == ("no live code has it", None)
    pass_time("2h")
    define(Schedule(every="1h"))
    assert scheduling.sync().enabled == ["sync_me"]
    assert not schedule("sync_me").is_disabled
    assert fire() == 0, "what it has left out meanwhile is not made up for"
    pass_time("1h")
    assert fire() == 1


def test_schedule_of_the_database_is_disabled_while_nobody_knows_its_workflow(fire, pass_time):
    define(None, name="plain")
    WorkflowSchedule.objects.create(name="x", workflow="plain", every="1h")
    WorkflowSchedule.objects.create(name="y", workflow="plain", every="1h").pause()
    forget("plain")
    assert scheduling.disable_unknown() == ["x", "y"]
    assert schedule("x").disabled_reason == "no live code has workflow 'plain'"
    assert scheduling.enable_known() == []
    define(None, name="plain")
    assert scheduling.enable_known() == ["x", "y"]
    assert schedule("x").next_at is not None and schedule("y").next_at is None


def test_schedule_of_a_version_is_disabled_while_nobody_knows_that_one():
    define(None, name="plain", version="1")
    WorkflowSchedule.objects.create(name="x", workflow="plain", version="1", every="1h")
    registry._registry.pop(("plain", "1"))
    define(None, name="plain", version="2")
    assert scheduling.disable_unknown() == ["x"]
    assert schedule("x").disabled_reason == "no live code has workflow 'plain' version '1'"
    assert scheduling.enable_known() == []


def test_schedule_without_a_version_goes_on_with_the_next_one():
    define(None, name="plain", version="1")
    WorkflowSchedule.objects.create(name="x", workflow="plain", every="1h")
    registry._registry.pop(("plain", "1"))
    define(None, name="plain", version="2")
    assert scheduling.disable_unknown() == []


def test_looking_after_ten_thousand_rows_takes_a_few_statements(django_assert_num_queries):
    define(None, name="plain")
    WorkflowSchedule.objects.bulk_create(
        [WorkflowSchedule(name=f"s{n}", workflow="plain", every="1h") for n in range(1000)], batch_size=500
    )
    with django_assert_num_queries(4):
        assert scheduling.disable_unknown() == []
    assert connection.queries_limit
