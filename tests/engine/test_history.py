"""What a run has recorded, as later passes see it: the same values, whatever the number of steps."""

from __future__ import annotations

import dataclasses
import enum
import math
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from pydantic import BaseModel

from django_steps import workflow
from django_steps.engine.history import History
from django_steps.engine.scopes import Scope
from django_steps.errors import DuplicateStepName, HistoryMismatch
from django_steps.ledger import database, dialect, histories
from django_steps.ledger.histories import Recorded
from django_steps.models import StepRecord, WorkflowRun
from tests.app import effects
from tests.app.workflows import tiny


class Color(enum.Enum):
    RED = "r"


@dataclasses.dataclass
class Point:
    x: int
    y: tuple[int, ...] = ()


class Order(BaseModel):
    number: int
    total: Decimal


VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "empty string": "",
    "nul": "a\0b",
    "lone surrogates": "\ud800 \udfff\ud83d",
    "emoji": "😀",
    "large integer": 2**200 + 1,
    "negative integer": -(2**63) - 1,
    "negative zero": -0.0,
    "infinity": -math.inf,
    "float": 1e22,
    "decimal": Decimal("1.10"),
    "tuple": (1, (2, [3, ()])),
    "set": {1, 2, (3, 4)},
    "frozenset": frozenset("ab"),
    "bytes": b"\0\xff",
    "integer keys": {1: "a", 2: {3: "b"}, "1": "text"},
    "odd keys": {(1, "a"): 1, None: 2, True: 3, Decimal("1.5"): 4},
    "order of keys": {"z": 1, "a": 2, "m": 3},
    "zoned datetime": {"at": [datetime(2026, 3, 29, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)]},
    "naive datetime": datetime(2026, 1, 1, 12, 0, 0, 1),
    "utc datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "date": date(2026, 2, 28),
    "time": clock_time(23, 59, 59, 999999),
    "timedelta": timedelta(days=-1, microseconds=7),
    "uuid": uuid.UUID(int=7),
    "enum": Color.RED,
    "dataclass": Point(1, (2, 3)),
    "pydantic": Order(number=1, total=Decimal("9.90")),
    "dict that looks like a record": {"$": "tuple", "v": [1]},
    "list": [[], {}, [None]],
}


def shape(value: Any) -> Any:
    """A value with all its types and the order of what has one."""
    if isinstance(value, dict):
        return "dict", [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [shape(item) for item in value]
    if isinstance(value, datetime):
        return "datetime", repr(value), value.fold
    if isinstance(value, (set, frozenset)):
        # It is read as a subclass, in the order of the record.
        return "set" if isinstance(value, set) else "frozenset", sorted(map(shape, value))
    return type(value).__qualname__, repr(value)


def test_body_sees_the_same_values_types_and_order_on_every_pass(work, pass_time):
    passes: list[dict[str, Any]] = []

    @workflow
    def values(input, step):
        seen = {name: step.define(name, lambda value=value: value).run() for name, value in VALUES.items()}
        seen["not a number"] = repr(step.define("not a number", lambda: math.nan).run())
        passes.append(seen)
        step.sleep("pause", "1h")
        return seen

    run = values.start(VALUES)
    work()
    pass_time("2h")
    work()
    output = run.result(timeout=0)
    assert len(passes) == 2
    for name, value in VALUES.items():
        assert shape(passes[0][name]) == shape(value), name
        assert shape(passes[1][name]) == shape(value), name
        assert shape(output[name]) == shape(value), name
        assert shape(run.input[name]) == shape(value), name
        if isinstance(value, (set, frozenset)):
            assert list(passes[0][name]) == list(passes[1][name]) == list(output[name]) == list(run.input[name])
    assert {seen["not a number"] for seen in passes} == {"nan"}


@pytest.mark.parametrize("before, after", [("step", "sleep"), ("sleep", "step")])
def test_name_whose_kind_changed_between_deploys_is_a_clear_error(work, pass_time, before, after):
    kinds = [before]

    @workflow
    def deployed(step):
        if kinds[0] == "sleep":
            step.sleep("pause", "1ms")
        else:
            step.define("pause", lambda: 1).run()
        step.sleep("deploy", "1h")

    run = deployed.start()
    work()
    kinds[0] = after
    pass_time("2h")
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert run.error["type"] == "django_steps.errors.HistoryMismatch"
    assert f"recorded 'pause' as a {before}" in run.error["message"]
    assert "version" in run.error["message"]


def test_steps_that_the_code_has_left_out_or_added_do_not_disturb(work, pass_time):
    executed: list[str] = []
    names = [["a", "b", "c"]]

    @workflow
    def deployed(step):
        for name in names[0]:
            step.define(name, lambda name=name: executed.append(name)).run()
        step.sleep("deploy", "1h")
        step.define("end", lambda: executed.append("end")).run()

    run = deployed.start()
    work()
    names[0] = ["c", "new", "a"]
    pass_time("2h")
    work()
    run.result(timeout=0)
    assert executed == ["a", "b", "c", "new", "end"]
    assert [record.name for record in run.steps.all()] == ["a", "b", "c", "deploy", "new", "end"]


def test_record_that_cannot_be_read_any_more_is_a_clear_failure(work, pass_time):
    @workflow
    def renamed(step):
        step.define("point", lambda: Point(1)).run()
        step.sleep("deploy", "1h")

    run = renamed.start()
    work()
    text = StepRecord.objects.get(name="point").output_text
    StepRecord.objects.filter(name="point").update(output_text=text.replace(":Point", ":Place"))
    pass_time("2h")
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert run.error["type"] == "django_steps.errors.UnreadableValue"
    assert "Place" in run.error["message"]


# -- Many steps --------------------------------------------------------------------------------------


@pytest.mark.counts_passes
def test_a_thousand_steps_execute_and_are_passed_over(work, pass_time):
    executed: list[int] = []

    @workflow
    def thousand(step):
        results = [step.define(f"step_{i}", lambda i=i: executed.append(i) or i).run() for i in range(1000)]
        step.sleep("pause", "1h")
        return sum(results)

    run = thousand.start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == 499_500
    assert executed == list(range(1000))
    assert run.steps.count() == 1001


def give_history(run: WorkflowRun, count: int) -> None:
    """Let a run have recorded so many steps, `step_0` and so on."""
    moment = run.created_at
    StepRecord.objects.bulk_create(
        [
            StepRecord(
                run=run,
                name=f"step_{i}",
                kind="step",
                position=i,
                status="succeeded",
                output_text=str(i),
                started_at=moment,
                finished_at=moment,
                claim_token=1,
                write_id=i + 1,
            )
            for i in range(count)
        ],
        batch_size=2000,
    )
    WorkflowRun.objects.filter(pk=run.pk).update(has_history=True)


@pytest.mark.counts_passes
def test_run_of_ten_thousand_steps_is_resumed_quickly_by_one_query(work):
    seconds: list[float] = []
    queries: list[int] = []

    @workflow
    def long(step):
        began = time.thread_time()  # of the processor: other processes don't count
        with CaptureQueriesContext(connection) as captured:
            total = sum(step.define(f"step_{i}", effects.leave).run(str(i)) for i in range(10_000))
        seconds.append(time.thread_time() - began)
        queries.append(len(captured))
        step.define("last", lambda: None).run()
        return total

    run = long.start()
    give_history(run, 10_000)
    began = time.process_time()
    work()
    assert run.result(timeout=0) == 49_995_000
    assert queries == [0]  # its history came with the claim
    assert effects.names() == []
    assert seconds[0] < 2, f"{seconds[0]:.2f} s for passing over 10,000 steps"
    assert time.process_time() - began < 4
    assert run.steps.get(name="last").position == 10_000


@override_settings(DJANGO_STEPS={"INLINE_WAIT": 0})
def test_run_of_many_sleeps_loads_only_what_is_newer_each_time(work):
    naps = 5

    @workflow
    def many_sleeps(step):
        for i in range(1000):
            step.define(f"step_{i}", effects.leave).run()
        for _ in range(naps):
            step.sleep("nap", "10ms")
        return "rested"

    run = many_sleeps.start()
    give_history(run, 1000)
    with CaptureQueriesContext(connection) as captured:
        work(until_idle=False, max_runs=naps + 1)  # one worker sees all the wake-ups
    assert run.result(timeout=0) == "rested"
    loads = [query["sql"] for query in captured if "attempt_log" in query["sql"] and query["sql"].startswith("SELECT")]
    assert len(loads) == naps + 1
    assert ["position >" in sql for sql in loads] == [False] + [True] * naps
    assert effects.names() == []


# -- The class by itself -----------------------------------------------------------------------------


def test_histories_in_a_truncated_answer_are_complete_by_their_order_in_it(transactional_db, monkeypatch):
    runs = [tiny.start() for _ in range(4)]
    for run in runs[:3]:
        give_history(run, 3)
    # As a MariaDB orders them whose native UUIDs don't begin with their time.
    select = histories._select
    monkeypatch.setattr(histories, "_ROWS_AT_ONCE", 8)

    def select_backwards(connection: Any, known: Any, limit: int | None) -> list[Any]:
        rows = sorted(select(connection, known, None), key=lambda row: dialect.run_id(row[0]), reverse=True)
        return rows[:limit]

    monkeypatch.setattr(histories, "_select", select_backwards)
    found = histories.load(connection, {run.pk: -1 for run in runs})
    assert {run_id: len(records) for run_id, records in found.items()} == {runs[2].pk: 3, runs[1].pk: 3}


def test_histories_in_a_complete_answer_are_all_there(transactional_db):
    runs = [tiny.start() for _ in range(2)]
    give_history(runs[0], 3)
    found = histories.load(connection, {run.pk: -1 for run in runs})
    assert {run_id: len(records) for run_id, records in found.items()} == {runs[0].pk: 3, runs[1].pk: 0}


@pytest.mark.counts_passes
def test_record_that_is_forgotten_while_a_pass_is_to_read_it_ends_the_pass(work, pass_time):
    passes: list[str] = []

    @workflow
    def forgotten(step, run):
        passes.append("began")
        if len(passes) == 3:  # the second pass
            StepRecord.objects.filter(run_id=run.pk, name="large").delete()
        large = step.define("large", lambda: "x" * 2 * database.LONG_VALUE).run()
        passes.append("read")
        step.sleep("nap", "1h")
        return len(large)

    run = forgotten.start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == 2 * database.LONG_VALUE
    assert passes == ["began", "read", "began", "began", "read"]


def recorded(name: str, position: int = 0, kind: str = "step", status: str = "succeeded", **known: Any) -> Recorded:
    fields = {
        "after": position - 1,
        "attempts": 1,
        "output": "1",
        "error": None,
        "attempt_log": "",
        "wakes_at_us": None,
    }
    return Recorded(name=name, kind=kind, position=position, status=status, **{**fields, **known})


def test_name_reserved_twice_is_refused():
    scope = Scope(History())
    scope.reserve("a")
    with pytest.raises(DuplicateStepName, match="'a' is used twice"):
        scope.reserve("a")


def test_second_sleep_of_a_name_has_a_name_of_its_own():
    scope = Scope(History())
    assert [scope.reserve_sleep("nap") for _ in range(3)] == ["nap", "nap#2", "nap#3"]


def test_positions_go_on_after_the_highest_recorded_one():
    history = History([recorded("a", 0), recorded("b", 7)])
    assert history.next_position() == 8
    assert history.next_position() == 9


def test_record_of_another_kind_is_a_mismatch():
    history = History([recorded("a", kind="sleep")])
    with pytest.raises(HistoryMismatch, match="as a sleep, and the code now asks for a step"):
        history.look_up("a", "step")


def test_replay_lasts_until_the_last_record_is_reached():
    scope = Scope(History([recorded("a", 0), recorded("b", 1)]))
    assert scope.is_replaying
    scope.look_up("a", "step")
    assert scope.is_replaying
    scope.look_up("b", "step")
    assert not scope.is_replaying


def test_replay_is_over_at_a_step_that_is_not_recorded():
    scope = Scope(History([recorded("a", 0), recorded("left out", 1)]))
    scope.look_up("a", "step")
    scope.look_up("new", "step")
    assert not scope.is_replaying


def test_long_output_is_fetched_when_it_is_read():
    fetched: list[str] = []
    history = History([recorded("a", is_long=True)], lambda name: fetched.append(name) or '"long"')
    record = history.look_up("a", "step")
    assert record is not None
    assert fetched == []
    assert history.output_of(record) == '"long"'
    assert fetched == ["a"]


def test_failure_is_handled_once_something_is_recorded_that_knew_of_it():
    history = History([recorded("a", 0, after=-1), recorded("b", 1, after=0, status="failed")])
    assert not history.is_handled(["b"])
    history.add(recorded("added before b", 2, after=0))
    assert not history.is_handled(["b"])
    history.add(recorded("c", 3, after=2))
    assert history.is_handled(["b"])
    assert not history.is_handled(["c"])
    assert not history.is_handled(["b", "c"])
    assert history.is_handled(["unknown", "b"])
    assert not history.is_handled(["unknown"]) and not history.is_handled([])


def test_what_was_tried_before_ends_at_a_position_above_all_others():
    history = History([recorded("a", 0), recorded("b", 1, status="retrying")])
    assert history.final_position(1) == 1
    history.add(recorded("added before b", history.next_position()))
    assert history.final_position(1) == 3
    assert history.final_position(3) == 3


def test_delivered_is_the_highest_position_that_the_body_was_given():
    history = History([recorded("a", 0), recorded("moved", 5), recorded("b", 3)])
    scope = Scope(history)
    assert scope.delivered == -1
    for name, delivered in (("a", 0), ("moved", 5), ("b", 5)):
        scope.deliver(scope.look_up(name, "step"))
        assert scope.delivered == delivered


def test_only_what_is_final_up_to_what_is_not_is_kept_for_the_next_pass():
    nap = recorded("nap", 1, kind="sleep", status="waiting", wakes_at_us=9)
    history = History([recorded("c", 3), recorded("a", 0), nap, recorded("b", 2), recorded("d", 4, status="retrying")])
    assert [record.name for record in history.records()] == ["a"]
    Scope(history).deliver(nap)
    assert [record.name for record in history.records()] == ["a", "nap", "b", "c"]


def test_branch_has_begun_as_soon_as_anything_in_it_is_recorded_also_in_this_pass():
    context = '{"levels":[["m#1","m",-1],["m#1/n#2","n",-1]]}'
    history = History([])
    assert not history.has_begun("m#1")
    history.add(recorded("m#1/n#2/x", 0, branch="m#1/n#2", context=context))
    assert history.has_begun("m#1") and history.has_begun("m#1/n#2")
    assert not history.has_begun("m#2")
