"""Several at once: `gather`, `map` and `branch` in bodies, executed by real workers."""

from __future__ import annotations

import contextvars
import enum
import threading
import time
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from uuid import UUID

import pytest
from django.db import DataError, transaction

from django_steps import UNFINISHED, GroupFailed, RetryPolicy, failures, workflow
from django_steps.errors import FailureWasHandled, NonRetryableError, UnknownStep
from django_steps.ledger import leases, records
from django_steps.ledger.leases import Renewal
from django_steps.models import WorkflowRun
from django_steps.worker.crew import Crew
from django_steps.worker.group_commit import Entry, GroupCommit
from tests.app.models import Person
from tests.looking import names_of
from tests.staging import Background

pytestmark = pytest.mark.django_db(transaction=True)


class Broken(Exception):
    pass


def double(number):
    return 2 * number


def fail_for(*numbers):
    def check(number):
        if number in numbers:
            raise Broken(number)
        return number

    return check


def raised_by(run):
    run.refresh_from_db()
    assert run.status == "failed"
    return failures.rebuild(run.error_text)


# -- Results ---------------------------------------------------------------------------------------


def test_gathered_results_stand_in_the_order_of_the_arguments(work):
    @workflow
    def both(step):
        return step.gather(
            step.define("b", lambda: "B").bind(),
            step.define("none", lambda: None).bind(),
            step.define("a", double).bind(4),
        )

    run = both.start()
    work()
    assert run.result(timeout=0) == ("B", None, 8)
    assert sorted(names_of(run)) == ["a", "b", "none"]


def test_gather_of_nothing_is_an_empty_tuple(work):
    @workflow
    def none(step):
        return [step.gather(), step.gather(return_exceptions=True)]

    run = none.start()
    work()
    assert run.result(timeout=0) == [(), ()]


def test_results_of_a_map_stand_in_the_order_of_the_items(work):
    @workflow
    def doubled(step):
        return step.map("double", double, [3, 1, 2])

    run = doubled.start()
    work()
    assert run.result(timeout=0) == [6, 2, 4]
    assert sorted(names_of(run)) == ["double", "double#1", "double#2", "double#3"]
    assert {record.name: record.kind for record in run.steps.all()}["double"] == "map"


def test_map_over_nothing_begins_and_ends(work):
    @workflow
    def nothing(step):
        return step.map("double", double, [])

    run = nothing.start()
    work()
    assert run.result(timeout=0) == []
    assert names_of(run) == ["double"]


def test_branch_has_steps_of_its_own_names(work):
    @workflow
    def shop(step):
        total = step.branch("invoice", invoice).run(3)
        return [total, step.define("total", double).run(1)]

    def invoice(amount, step):
        return step.define("total", double).run(amount)

    run = shop.start()
    work()
    assert run.result(timeout=0) == [6, 2]
    assert names_of(run) == ["invoice#/total", "invoice#", "total"]
    assert [record.branch for record in run.steps.all()] == ["invoice#", "", ""]


def test_map_over_branches_calls_each_with_a_step_of_its_own(work):
    def handle(number, step, run, logger):
        logger.info("item %s", number)
        doubled = step.define("double", double).run(number)
        return [str(run.pk), step.define("again", double).run(doubled)]

    @workflow
    def orders(step, run):
        return [str(run.pk), step.map("order", handle, ["7", "8"])]

    run = orders.start()
    work()
    pk = str(run.pk)
    assert run.result(timeout=0) == [pk, [[pk, "7777"], [pk, "8888"]]]
    assert set(names_of(run)) == {
        "order#7/double", "order#7/again", "order#7", "order#8/double", "order#8/again", "order#8", "order",
    }  # fmt: skip


def test_branches_within_branches_have_paths(work):
    def outer(name, step):
        return step.map("inner", partial(inner, extra=name), [1, 2])

    def inner(number, step, extra):
        return step.define("say", lambda: f"{extra}{number}").run()

    @workflow
    def nested(step):
        return step.map("outer", outer, ["a", "b"])

    run = nested.start()
    work()
    assert run.result(timeout=0) == [["a1", "a2"], ["b1", "b2"]]
    assert "outer#a/inner#1/say" in names_of(run)
    assert run.steps.get(name="outer#a/inner#1/say").branch == "outer#a/inner#1"


def test_branches_take_part_in_a_gather(work):
    @workflow
    def mixed(step):
        return step.gather(
            step.branch("one", lambda step: step.define("x", double).run(1)).bind(),
            step.define("two", double).bind(2),
            step.branch("three", lambda a, b, step: step.map("x", double, [a, b])).bind(1, 2),
        )

    run = mixed.start()
    work()
    assert run.result(timeout=0) == (2, 4, [2, 4])


def test_async_functions_are_steps_of_maps_and_gathers(work):
    async def later(number):
        return number + 1

    @workflow
    def mixed(step):
        return [step.map("later", later, [1, 2]), step.gather(step.define("one", later).bind(1))]

    run = mixed.start()
    work()
    assert run.result(timeout=0) == [[2, 3], (2,)]


# -- Keys ------------------------------------------------------------------------------------------


class Color(enum.StrEnum):
    RED = "r"


KEYS = [
    (Color.RED, "RED"),
    ("a/b", "a%2Fb"),
    ("50%", "50%25"),
    ("a#1", "a%231"),
    (" a b ", "%20a b%20"),
    ("a\nb", "a%0Ab"),
    ("é", "é"),
    (7, "7"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Decimal("1.50"), "1.50"),
    (date(2026, 1, 2), "2026-01-02"),
    (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:00:00+00:00"),
    (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
]


@pytest.mark.parametrize(("item", "key"), KEYS)
def test_items_are_their_own_keys(work, item, key):
    @workflow
    def one(step):
        return step.map("m", lambda item: 1, [item])

    run = one.start()
    work()
    assert run.result(timeout=0) == [1]
    assert f"m#{key}" in names_of(run)


def test_instances_are_known_by_their_primary_keys(work):
    people = [Person.objects.create(name=name) for name in ("Ann", "Bob")]

    @workflow
    def greet(step):
        return step.map("greet", lambda person: person.name, Person.objects.order_by("name"))

    run = greet.start()
    work()
    assert run.result(timeout=0) == ["Ann", "Bob"]
    assert f"greet#{people[0].pk}" in names_of(run)


def test_long_keys_are_cut_and_told_apart_by_a_hash(work):
    keys = ["x" * 150 + "a", "x" * 150 + "b"]

    @workflow
    def long(step):
        return step.map("m", lambda item: item[-1], keys)

    run = long.start()
    work()
    assert run.result(timeout=0) == ["a", "b"]
    items = [name for name in names_of(run) if "#" in name]
    assert len(set(items)) == 2 and all(len(name) == len("m#") + 96 for name in items)


@pytest.mark.parametrize("item", [True, 0.5, None, "", [1], {"a": 1}, Person()])
def test_what_is_no_key_is_refused_with_a_hint(work, item):
    @workflow
    def bad(step):
        step.map("m", lambda item: item, [1, item])

    run = bad.start()
    work()
    message = str(raised_by(run))
    assert "item 1" in message and "key=" in message
    assert not run.steps.exists()


def test_key_function_makes_the_keys(work):
    @workflow
    def keyed(step):
        return step.map("m", lambda row: row["n"], [{"n": 1}, {"n": 2}], key=lambda row: row["n"])

    run = keyed.start()
    work()
    assert run.result(timeout=0) == [1, 2]


def test_two_equal_keys_are_a_mistake_that_names_both_positions(work):
    @workflow
    def twice(step):
        try:
            step.map("m", double, ["1", 2, 1])
        except Exception:
            return "swallowed"

    run = twice.start()
    work()
    error = raised_by(run)
    assert type(error).__name__ == "DuplicateStepName"
    assert "positions 0 and 2" in str(error)


def test_path_that_is_too_long_is_refused_before_anything_is_executed(work):
    executed = []

    @workflow
    def long(step):
        step.map("m" * 200, executed.append, ["a", "k" * 90])

    run = long.start()
    work()
    assert type(raised_by(run)).__name__ == "InvalidName"
    assert executed == []


# -- Failures --------------------------------------------------------------------------------------


def test_a_failure_is_always_a_group_with_failures_and_results_by_key(work):
    seen = []

    @workflow
    def failing(step):
        try:
            step.map("check", fail_for(2), [1, 2], concurrency=1)
        except GroupFailed as group:
            seen.append((group.message, dict(group.failures), dict(group.results), group.exceptions))
            error = group.exceptions[0]
            assert "check#2" in error.__notes__[0]
        step.sleep("pause", "1ms")
        return "handled"

    run = failing.start()
    work()
    assert run.result(timeout=0) == "handled"
    message, failures, results, exceptions = seen[-1]
    assert list(failures) == ["2"] and results == {"1": 1}
    assert [type(error) for error in exceptions] == [Broken] and exceptions[0].args == (2,)
    assert all(one[0] == message and one[2] == results for one in seen)


def test_members_are_caught_by_except_star(work):
    @workflow
    def failing(step):
        caught = []
        try:
            step.gather(step.define("a", fail_for(1)).bind(1), step.define("b", double).bind(1))
        except* Broken as group:
            caught.append(type(group).__name__)
            caught.append([error.args[0] for error in group.exceptions])
        return caught

    run = failing.start()
    work()
    assert run.result(timeout=0) == ["GroupFailed", [1]]


def test_after_a_failure_nothing_new_begins(work):
    executed = []

    def check(number):
        executed.append(number)
        raise Broken(number)

    @workflow
    def failing(step):
        step.map("check", check, [1, 2, 3], concurrency=1)

    run = failing.start()
    work(concurrency=1)
    assert len(executed) == 1
    group = raised_by(run)
    assert isinstance(group, GroupFailed) and list(group.failures) == [str(executed[0])]
    assert dict(group.results) == {}
    assert run.error["step"] == f"check#{executed[0]}"


@pytest.mark.counts_passes
def test_quick_items_begin_neither_after_a_failure_nor_after_enough_successes(work):
    executed = []

    def check(number):
        executed.append(number)
        if number == 2:
            raise Broken(number)
        return number

    @workflow
    def mapped(step):
        step.map("m", check, [1, 2, 3, 4])

    @workflow
    def quorum(step):
        step.map("q", check, [5, 6, 7, 8], min_successes=2)

    mapped.start()
    work(concurrency=1)
    assert executed == [1, 2]
    quorum.start()
    work(concurrency=1)
    assert executed == [1, 2, 5, 6]


def test_a_group_is_the_same_on_every_pass_and_its_members_are_not_executed_again(work):
    executed, seen = [], []

    def check(number):
        executed.append(number)
        if number != 2:
            raise Broken(number)

    @workflow
    def failing(step):
        try:
            step.gather(*[step.define(f"c{n}", check).bind(n) for n in (1, 2, 3)], return_exceptions=False)
        except GroupFailed as group:
            seen.append((list(group.failures), list(group.results)))
        step.sleep("pause", "1ms")
        step.define("after", lambda: None).run()

    run = failing.start()
    work(concurrency=1)
    run.refresh_from_db()
    assert run.status == "succeeded"
    assert len(executed) == len(set(executed))
    assert all(one == seen[0] for one in seen)


def test_return_exceptions_stops_nothing(work):
    @workflow
    def tolerant(step):
        results = step.map("check", fail_for(1, 3), [1, 2, 3], return_exceptions=True)
        pair = step.gather(
            step.define("bad", fail_for(1)).bind(1), step.define("good", double).bind(1), return_exceptions=True
        )
        return [[type(one).__name__ for one in results], [type(one).__name__ for one in pair]]

    run = tolerant.start()
    work()
    assert run.result(timeout=0) == [["Broken", "int", "Broken"], ["Broken", "int"]]


def test_exceptions_that_are_no_exception_class_stand_as_step_failed(work):
    def leave(number):
        raise SystemExit(3)

    @workflow
    def tolerant(step):
        results = step.map("leave", leave, [1], return_exceptions=True)
        return type(results[0]).__name__

    run = tolerant.start()
    work()
    assert run.result(timeout=0) == "StepFailed"


def test_max_failures_are_taken_and_one_more_is_not(work):
    @workflow
    def taken(step):
        results = step.map("check", fail_for(1, 2), [1, 2, 3], max_failures=2, concurrency=1)
        return [type(one).__name__ for one in results]

    @workflow
    def too_many(step):
        step.map("check", fail_for(1, 2), [1, 2, 3], max_failures=1, concurrency=1)

    run, other = taken.start(), too_many.start()
    work(concurrency=1)
    assert run.result(timeout=0) == ["Broken", "Broken", "int"]
    assert list(raised_by(other).failures) == ["1", "2"]
    assert "check#3" not in names_of(other)


def test_min_successes_stops_and_says_what_is_unfinished(work):
    @workflow
    def quorum(step):
        results = step.map("check", fail_for(1), [1, 2, 3, 4], min_successes=2, concurrency=1)
        step.sleep("pause", "1ms")
        return [one if isinstance(one, int) else type(one).__name__ for one in results]

    run = quorum.start()
    work(concurrency=1)
    assert run.result(timeout=0) == ["Broken", 2, 3, "Unfinished"]


def test_min_successes_that_cannot_be_reached_fail_at_once(work):
    executed = []

    def check(number):
        executed.append(number)
        raise Broken(number)

    @workflow
    def quorum(step):
        step.map("check", check, [1, 2, 3], min_successes=2, concurrency=1)

    run = quorum.start()
    work(concurrency=1)
    assert executed == [1, 2]
    assert type(raised_by(run)).__name__ == "GroupFailed"


def test_unfinished_is_itself_after_a_replay(work):
    seen = []

    @workflow
    def quorum(step):
        results = step.map("m", double, [1, 2], min_successes=1, concurrency=1)
        seen.append(results[1] is UNFINISHED and str(results[1]) == repr(results[1]) == "UNFINISHED")
        step.sleep("pause", "1ms")

    quorum.start()
    work(concurrency=1)
    assert seen and all(seen)


MISUSES = [
    ({"max_failures": 1.5}, TypeError),
    ({"max_failures": True}, TypeError),
    ({"max_failures": -1}, ValueError),
    ({"min_successes": 0}, ValueError),
    ({"min_successes": 3}, ValueError),
    ({"concurrency": 0}, ValueError),
    ({"concurrency": "2"}, TypeError),
    ({"return_exceptions": 1}, TypeError),
    ({"return_exceptions": True, "max_failures": 1}, TypeError),
    ({"return_exceptions": True, "min_successes": 1}, TypeError),
    ({"timout": 1}, TypeError),
]


@pytest.mark.parametrize(("options", "error"), MISUSES)
def test_options_that_make_no_sense_are_refused(work, options, error):
    @workflow
    def wrong(step):
        step.map("m", double, [1, 2], **options)

    run = wrong.start()
    work()
    assert type(raised_by(run)) is error
    assert not run.steps.exists()


def test_list_of_calls_that_is_gathered_is_told_how_it_is_written(work):
    @workflow
    def wrong(step):
        step.gather([step.define("a", double).bind(1)])

    run = wrong.start()
    work()
    assert isinstance(raised_by(run), TypeError) and "step.gather(*calls)" in str(raised_by(run))


def test_items_that_are_none_are_a_clear_error(work):
    @workflow
    def wrong(step):
        step.map("m", double, None)

    run = wrong.start()
    work()
    assert isinstance(raised_by(run), TypeError) and "Map 'm' takes its items" in str(raised_by(run))


def test_item_without_a_key_is_told_how_one_is_made(work):
    @workflow
    def wrong(step):
        step.map("m", double, [{"id": 1}])

    run = wrong.start()
    work()
    assert isinstance(raised_by(run), TypeError) and 'key=lambda item: item["id"]' in str(raised_by(run))


def test_options_of_steps_are_refused_for_branches(work):
    @workflow
    def wrong(step):
        step.map("m", lambda item, step: item, [1], retry=3)

    run = wrong.start()
    work()
    assert isinstance(raised_by(run), TypeError) and "retry" in str(raised_by(run))


def test_what_is_no_branch_is_refused(work):
    async def later(item, step):
        pass

    @workflow
    def inner(step):
        pass

    def wrong(call):
        @workflow(name=f"wrong{id(call)}")
        def body(step):
            call(step)

        run = body.start()
        work()
        return raised_by(run)

    assert "parameter named step" in str(wrong(lambda step: step.branch("b", double)))
    assert "async def" in str(wrong(lambda step: step.branch("b", later)))
    assert "async def" in str(wrong(lambda step: step.map("b", later, [1])))
    assert "step.invoke('b', …)" in str(wrong(lambda step: step.branch("b", inner)))
    assert "bound" in str(wrong(lambda step: step.gather(step.define("x", double))))


def test_bound_and_never_gathered_is_a_mistake(work):
    @workflow
    def forgotten(step):
        step.define("x", double).bind(1)

    run = forgotten.start()
    work()
    assert type(raised_by(run)).__name__ == "StepNotRun"


def test_mistakes_in_branches_fail_the_run_and_stand_in_no_list(work):
    def twice(item, step):
        step.define("x", double).run(1)
        step.define("x", double).run(1)

    @workflow
    def mistaken(step):
        return [type(one).__name__ for one in step.map("m", twice, [1], return_exceptions=True)]

    run = mistaken.start()
    work()
    assert type(raised_by(run)).__name__ == "DuplicateStepName"


def test_step_of_the_body_is_refused_in_a_branch(work):
    @workflow
    def mistaken(step):
        outer = step

        def branch(item, step):
            return outer.define("x", double).run(1)

        return step.map("m", branch, [1], return_exceptions=True)

    run = mistaken.start()
    work()
    assert type(raised_by(run)).__name__ == "NestedStep"
    assert "parameter named step" in str(raised_by(run))


# -- Suspension ------------------------------------------------------------------------------------


def test_branch_that_sleeps_lets_the_others_go_on(work, pass_time):
    order = []

    def nap(number, step):
        step.define("before", order.append).run(f"before {number}")
        if number == 1:
            step.sleep("long", "1h")
        step.define("after", order.append).run(f"after {number}")
        return number

    @workflow
    def naps(step):
        return step.map("nap", nap, [1, 2])

    run = naps.start()
    work(concurrency=1)
    run.refresh_from_db()
    assert run.status == "sleeping"
    assert set(order) == {"before 1", "before 2", "after 2"}
    pass_time("2h")
    work(concurrency=1)
    assert run.result(timeout=0) == [1, 2]
    assert len(order) == 4 and order[-1] == "after 1"


def test_run_is_due_when_the_first_branch_is(work, pass_time):
    def nap(hours, step):
        step.sleep("nap", f"{hours}h")
        return hours

    @workflow
    def naps(step):
        return step.map("nap", nap, [5, 1, 3])

    run = naps.start()
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    assert timedelta(minutes=50) < run.wakes_at - datetime.now(UTC) < timedelta(minutes=61)
    for _ in range(5):
        pass_time("61m")
        work()
    pass_time("1h")
    work()
    assert run.result(timeout=0) == [5, 1, 3]


def test_suspended_branches_keep_their_slots(work, pass_time):
    begun = []

    def nap(number, step):
        step.define("begin", begun.append).run(number)
        step.sleep("nap", "1h")

    @workflow
    def naps(step):
        step.map("nap", nap, [1, 2, 3], concurrency=2)

    run = naps.start()
    work()
    assert sorted(begun) == [1, 2]
    pass_time("2h")
    work()
    assert sorted(begun) == [1, 2, 3]
    pass_time("2h")
    work()
    run.refresh_from_db()
    assert run.status == "succeeded"


def test_short_sleeps_of_branches_pass_side_by_side(work):
    def nap(number, step):
        step.sleep("nap", "200ms")
        return number

    @workflow
    def naps(step):
        began = time.monotonic()
        results = step.map("nap", nap, list(range(10)))
        return [results, time.monotonic() - began]

    run = naps.start()
    work(concurrency=1)
    results, _ = run.result(timeout=0)
    assert results == list(range(10))
    ends = sorted(record.finished_at for record in run.steps.filter(kind="branch"))
    assert ends[-1] - ends[0] < timedelta(seconds=1)


def test_item_that_is_tried_again_waits_alone(work, pass_time):
    tries = {}

    def flaky(number):
        tries[number] = tries.get(number, 0) + 1
        if number == 2 and tries[number] < 3:
            raise Broken(number)
        return number

    @workflow
    def mapped(step):
        policy = RetryPolicy(max_attempts=3, initial_interval="10m", jitter=False)
        return step.map("flaky", flaky, [1, 2, 3], retry=policy)

    run = mapped.start()
    work()
    assert tries == {1: 1, 2: 1, 3: 1}
    for _ in range(2):
        pass_time("1h")
        work()
    assert run.result(timeout=0) == [1, 2, 3]
    assert tries == {1: 1, 2: 3, 3: 1}
    record = run.steps.get(name="flaky#2")
    assert len(list(record.earlier_attempts)) == 2


def test_what_a_branch_makes_of_its_suspension_does_not_matter(work, pass_time):
    def stubborn(number, step):
        try:
            step.sleep("nap", "1h")
        except BaseException:
            return "swallowed"
        return "slept"

    @workflow
    def naps(step):
        return step.map("nap", stubborn, [1, 2])

    run = naps.start()
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    pass_time("2h")
    work()
    assert run.result(timeout=0) == ["slept", "slept"]


@pytest.mark.counts_passes  # a branch that is put down before its first record says its first line again
def test_finished_branches_are_not_called_again_and_log_lines_come_once(work, pass_time, caplog):
    called = []

    def nap(number, step, logger):
        called.append(number)
        logger.warning("first line of %s", number)
        if number == 1:
            step.sleep("nap", "1h")
        logger.warning("last line of %s", number)

    @workflow
    def naps(step):
        step.map("nap", nap, [1, 2])

    naps.start()
    work()
    pass_time("2h")
    work()
    lines = [record.getMessage() for record in caplog.records if "line of" in record.getMessage()]
    assert sorted(lines) == ["first line of 1", "first line of 2", "last line of 1", "last line of 2"]
    assert called.count(2) == 1


# -- The list changes ------------------------------------------------------------------------------


def test_each_key_keeps_its_result_when_the_list_changes(work, pass_time):
    items, executed = [1, 2, 3], []

    def handle(number, step):
        step.define("do", executed.append).run(number)
        step.sleep("nap", "1h")
        return number * 10

    @workflow
    def changing(step):
        return step.map("m", handle, items)

    run = changing.start()
    work()
    items[:] = [4, 3, 1]
    pass_time("2h")
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == [40, 30, 10]
    assert sorted(executed) == [1, 2, 3, 4]


def test_finished_map_gives_the_same_results_whatever_items_it_gets(work, pass_time, caplog):
    items = [1, 2]

    @workflow
    def changing(step):
        results = step.map("m", double, items)
        step.sleep("nap", "1h")
        return results

    run = changing.start()
    work()
    items[:] = [2, 3]
    pass_time("2h")
    work()
    assert run.result(timeout=0) == [2, 4]
    warning = next(record.getMessage() for record in caplog.records if "other items" in record.getMessage())
    assert "new: '3'" in warning and "missing: '1'" in warning


# -- Retry -----------------------------------------------------------------------------------------


def test_retry_executes_failed_members_and_what_was_left_and_no_others(work):
    executed, broken = [], {2}

    def check(number):
        executed.append(number)
        if number in broken:
            raise Broken(number)
        return number

    @workflow
    def mapped(step):
        return step.map("check", check, [1, 2, 3], concurrency=1)

    run = mapped.start()
    work(concurrency=1)
    assert executed == [1, 2]
    broken.clear()
    run.retry()
    work(concurrency=1)
    assert run.result(timeout=0) == [1, 2, 3]
    assert executed == [1, 2, 2, 3]


def test_retry_of_a_branch_goes_on_from_its_failed_step(work):
    executed, broken = [], {"b"}

    def handle(number, step):
        for name in "abc":
            step.define(name, partial(do, name)).run(number)

    def do(name, number):
        executed.append(f"{name}{number}")
        if number == 2 and name in broken:
            raise Broken(name)

    @workflow
    def mapped(step):
        step.map("m", handle, [1, 2], concurrency=1)

    run = mapped.start()
    work(concurrency=1)
    run.refresh_from_db()
    assert run.status == "failed" and run.failed_step == "m/b"
    broken.clear()
    run.retry()
    work(concurrency=1)
    run.refresh_from_db()
    assert run.status == "succeeded"
    assert executed == ["a1", "b1", "c1", "a2", "b2", "b2", "c2"]


def test_what_siblings_record_after_a_failure_does_not_handle_it(work, pass_time):
    broken = {1}

    def handle(number, step):
        if number == 1:
            step.define("fail", lambda: fail_for(*broken)(1)).run()
        else:
            step.define("x", double).run(1)
            step.define("y", double).run(1)

    @workflow
    def mapped(step):
        step.gather(*[step.branch(f"b{n}", handle).bind(n) for n in (1, 2)])

    run = mapped.start()
    work(concurrency=2)
    run.refresh_from_db()
    assert run.status == "failed"
    broken.clear()
    run.retry()
    work()
    run.refresh_from_db()
    assert run.status == "succeeded"


def test_what_comes_after_the_group_handles_its_failure(work):
    @workflow
    def compensated(step):
        try:
            step.map("check", fail_for(1), [1])
        except GroupFailed:
            step.define("refund", double).run(1)
            raise

    run = compensated.start()
    work()
    with pytest.raises(FailureWasHandled, match="refund"):
        run.retry()


def test_what_comes_later_in_the_branch_handles_its_failure(work):
    def handle(number, step):
        try:
            step.define("charge", fail_for(1)).run(number)
        except Broken:
            step.define("refund", double).run(1)
            raise

    @workflow
    def compensated(step):
        step.map("m", handle, [1, 2], concurrency=1)

    run = compensated.start()
    work(concurrency=1)
    with pytest.raises(FailureWasHandled, match="m#1/refund"):
        run.retry()


def test_retry_from_a_step_in_a_branch_keeps_the_siblings_results(work):
    executed = []

    def handle(number, step):
        for name in ("charge", "ship"):
            step.define(name, executed.append).run(f"{name}{number}")
        return number

    @workflow
    def orders(step):
        results = step.map("order", handle, [16, 17], concurrency=1)
        step.define("report", executed.append).run("report")
        raise Broken(results)

    run = orders.start()
    work(concurrency=1)
    executed.clear()
    run.retry(from_step="order#17/charge")
    work(concurrency=1)
    assert executed == ["charge17", "ship17", "report"]
    executed.clear()
    run.retry(from_step="order")
    work(concurrency=1)
    assert executed == ["charge16", "ship16", "charge17", "ship17", "report"]
    executed.clear()
    run.retry(from_step=["order#16", "order#17/ship"])
    work(concurrency=1)
    assert sorted(executed[:-1]) == ["charge16", "ship16", "ship17"] and executed[-1] == "report"
    executed.clear()
    run.retry(from_step="report")
    work(concurrency=1)
    assert executed == ["report"]
    with pytest.raises(UnknownStep, match="nothing"):
        run.retry(from_step=["report", "nothing"])


def test_retry_from_a_member_resets_the_failures_of_its_siblings(work):
    executed, broken = [], {2}

    def check(number):
        executed.append(number)
        if number in broken:
            raise Broken(number)

    @workflow
    def mapped(step):
        step.map("check", check, [1, 2, 3], concurrency=1)

    run = mapped.start()
    work(concurrency=1)
    broken.clear()
    executed.clear()
    run.retry(from_step="check#1")
    work(concurrency=1)
    run.refresh_from_db()
    assert run.status == "succeeded"
    assert sorted(executed) == [1, 2, 3]


def test_retry_from_a_gathered_step_keeps_what_its_siblings_returned(work):
    executed = []

    @workflow
    def gathered(step):
        step.gather(*[step.define(name, executed.append).bind(name) for name in ("a", "b", "c")])
        raise Broken

    run = gathered.start()
    work(concurrency=1)
    for name in ("a", "b"):
        executed.clear()
        run.retry(from_step=name)
        work(concurrency=1)
        assert executed == [name]


def test_restart_from_a_step_copies_a_group_whole(work):
    executed = []

    def handle(number, step):
        return step.define("do", lambda: executed.append(number) or number).run()

    @workflow
    def orders(step):
        step.define("first", double).run(1)
        results = step.map("order", handle, [1, 2])
        return step.define("report", lambda: results).run()

    run = orders.start()
    work()
    executed.clear()
    again = run.restart(from_step="report")
    work()
    assert again.result(timeout=0) == [1, 2] and executed == []
    third = run.restart(from_step="order#2")
    work()
    assert third.result(timeout=0) == [1, 2] and executed == [2]


def test_automatic_retries_of_the_run_reset_failed_members(work, pass_time):
    executed, broken = [], {2}

    def check(number):
        executed.append(number)
        if number in broken:
            broken.clear()
            raise Broken(number)

    @workflow(retry=RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False))
    def mapped(step):
        step.map("check", check, [1, 2], concurrency=1)

    run = mapped.start()
    work(concurrency=1)
    pass_time("2h")
    work(concurrency=1)
    run.refresh_from_db()
    assert run.status == "succeeded"
    assert executed == [1, 2, 2]


# -- Threads ---------------------------------------------------------------------------------------


def test_idle_threads_help(work):
    together = threading.Barrier(4, timeout=20)

    @workflow
    def mapped(step):
        return step.map("wait", lambda number: together.wait() >= 0, [1, 2, 3, 4])

    run = mapped.start()
    work(concurrency=4)
    assert run.result(timeout=0) == [True] * 4


def test_nested_maps_end_on_a_worker_with_one_thread(work):
    def outer(a, step):
        return step.map("inner", partial(inner, a=a), [1, 2, 3])

    def inner(b, step, a):
        return sum(step.map("leaf", lambda c: a * b * c, [1, 2]))

    @workflow
    def nested(step):
        return step.map("outer", outer, [1, 2])

    run = nested.start()
    work(concurrency=1)
    assert run.result(timeout=0) == [[3, 6, 9], [6, 12, 18]]


def test_concurrency_bounds_what_is_executed_at_once(work):
    lock, now, most = threading.Lock(), [0], [0]

    def measure(number):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1

    @workflow
    def mapped(step):
        step.map("m", measure, list(range(20)), concurrency=3)

    mapped.start()
    work(concurrency=8)
    assert 2 <= most[0] <= 3


def test_atomic_items_take_effect_once(work):
    @workflow
    def people(step):
        return step.map("add", lambda name: Person.objects.create(name=name).pk, ["a", "b", "c"], atomic=True)

    run = people.start()
    work(concurrency=3)
    assert len(run.result(timeout=0)) == 3
    assert Person.objects.count() == 3


# -- What surrounds groups ---------------------------------------------------------------------------


class Hopeless(NonRetryableError):
    pass


@pytest.mark.parametrize(
    ("error", "is_tried_again"), [(Broken(1), True), (Hopeless("no"), False), (KeyError(1), False)]
)
def test_policy_tries_a_group_again_if_it_would_try_each_member(work, pass_time, error, is_tried_again):
    called = []

    def check(number):
        if number == 2:
            raise error
        raise Broken(number)

    policy = RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False, give_up_on=KeyError)

    @workflow(retry=policy)
    def mapped(step):
        called.append(1)
        step.gather(*[step.branch(f"b{n}", branch).bind(n) for n in (1, 2)], return_exceptions=False)

    def branch(number, step):
        return step.define("check", check).run(number)

    run = mapped.start()
    work(concurrency=2)
    run.refresh_from_db()
    members = len(failures.rebuild(run.error_text).failures)
    assert run.status == ("sleeping" if is_tried_again or (members == 1 and "b1" in str(run.error)) else "failed")


def test_run_that_is_canceled_in_a_map_begins_no_further_item(work):
    begun = []

    def cancel(number):
        begun.append(number)
        WorkflowRun.objects.get().cancel()
        return number

    @workflow
    def mapped(step):
        step.map("m", cancel, [1, 2, 3, 4], concurrency=1)

    run = mapped.start()
    work(concurrency=1, lease=0.6)
    run.refresh_from_db()
    assert run.status == "canceled"
    assert len(begun) < 4 and len(names_of(run)) == len(begun)
    begun_before = len(begun)
    run.retry()
    work(concurrency=1)
    assert set(begun[begun_before:]).isdisjoint(begun[:begun_before])


def test_branch_that_never_ends_its_pass_fails_the_run_and_leaves_the_worker_well(work):
    is_helping = threading.Event()

    def stubborn(number, step):
        if number == 1:
            is_helping.wait(10)
            return number
        is_helping.set()
        while True:
            try:
                step.sleep("nap", "1h")
            except BaseException:
                continue

    @workflow
    def mapped(step):
        step.map("m", stubborn, [1, 2])

    run, other = mapped.start(), None
    work(concurrency=2)
    assert type(raised_by(run)).__name__ == "EndlessBody"

    @workflow
    def fine(step):
        return step.map("double", double, [1, 2])

    other = fine.start()
    work(concurrency=2)
    assert other.result(timeout=0) == [2, 4]


@pytest.mark.counts_passes
def test_new_runs_come_before_the_items_that_are_left(work):
    order = []
    began = threading.Event()

    def item(number):
        began.set()
        time.sleep(0.02)
        order.append("item")

    @workflow
    def mapped(step):
        step.map("m", item, list(range(200)))

    @workflow
    def other(step):
        order.append("other")

    mapped.start()

    def start_other():
        began.wait(10)
        other.start()

    starting = Background(start_other)
    work(concurrency=2)
    starting.result()
    assert order.index("other") < 190


def test_each_item_sees_the_context_of_the_body_and_not_that_of_others(work):
    tenant = contextvars.ContextVar("tenant", default="none")

    def look(number):
        seen = tenant.get()
        tenant.set(f"item {number}")
        return seen

    def branch(number, step):
        seen = tenant.get()
        tenant.set(f"branch {number}")
        step.define("x", double).run(1)
        return [seen, tenant.get()]

    @workflow
    def mapped(step):
        tenant.set("body")
        items = step.map("look", look, [1, 2, 3], concurrency=2)
        return [items, step.map("branch", branch, [1, 2]), tenant.get()]

    run = mapped.start()
    work(concurrency=3)
    expected = [["body"] * 3, [["body", "branch 1"], ["body", "branch 2"]], "body"]
    assert run.result(timeout=0) == expected


def test_transaction_of_the_body_around_a_group_is_refused(work):
    @workflow
    def wrong(step):
        with transaction.atomic():
            step.map("m", double, [1])

    run = wrong.start()
    work()
    assert type(raised_by(run)).__name__ == "StepInTransaction"


def test_transaction_left_open_by_a_branch_reaches_nobody_else(work):
    def leave_open(number, step):
        transaction.set_autocommit(False)
        return number

    @workflow
    def mapped(step):
        return [step.map("m", leave_open, [1, 2]), step.map("double", double, [1])]

    run = mapped.start()
    work(concurrency=1)
    assert run.result(timeout=0) == [[1, 2], [2]]


def test_result_that_cannot_be_recorded_is_the_items_failure(work):
    @workflow
    def mapped(step):
        results = step.map("m", lambda number: object() if number == 2 else number, [1, 2, 3], return_exceptions=True)
        branch = step.map("b", lambda number, step: object(), [1], return_exceptions=True)
        return [[type(one).__name__ for one in results], type(branch[0]).__name__]

    run = mapped.start()
    work()
    assert run.result(timeout=0) == [["int", "UnserializableResult", "int"], "UnserializableResult"]


@pytest.mark.any_database
def test_many_items_end(work):
    @workflow
    def many(step):
        return sum(step.map("double", double, list(range(3000)), concurrency=64))

    run = many.start()
    work(concurrency=4)
    assert run.result(timeout=0) == 2999 * 3000
    assert run.steps.count() == 3001


@pytest.mark.counts_passes
def test_run_whose_own_writes_lock_it_at_every_renewal_keeps_its_lease(work, monkeypatch):
    monkeypatch.setattr(leases, "renew", lambda connection, holdings, lease_us: Renewal())
    executed = []

    def item(number):
        time.sleep(0.02)
        executed.append(number)

    @workflow
    def mapped(step):
        step.map("m", item, list(range(200)), concurrency=4)

    run = mapped.start()
    other = Background(lambda: work(lease=0.4))
    work(concurrency=4, lease=0.4)
    other.result()
    run.refresh_from_db()
    assert (run.status, run.recoveries) == ("succeeded", 0)
    assert sorted(executed) == list(range(200))


@pytest.mark.parametrize("options", [{"max_failures": 1}, {"return_exceptions": True}])
@pytest.mark.parametrize("retry", [None, 2])
def test_retry_after_a_tolerated_failure_was_raised_decides_the_map_anew(work, pass_time, options, retry):
    failing = [1]

    def item(number):
        if number in failing:
            failing.clear()
            raise Broken(number)
        return number

    @workflow(retry=retry)
    def mapped(step):
        done = step.map("m", item, [1, 2], **options)
        for one in done:
            if isinstance(one, Exception):
                raise one
        return done

    run = mapped.start()
    work()
    if retry is None:
        assert isinstance(raised_by(run), Broken)
        run.retry()
    pass_time(60)
    work()
    assert run.result(timeout=0) == [1, 2]


def test_finished_map_takes_fewer_items_than_the_successes_it_needed(work, pass_time):
    items = [1, 2, 3]

    @workflow
    def mapped(step):
        done = step.map("m", double, list(items), min_successes=3)
        step.sleep("nap", "1h")
        return done

    run = mapped.start()
    work()
    del items[1:]
    pass_time(7200)
    work()
    assert run.result(timeout=0) == [2, 4, 6]


def test_step_and_branch_of_one_name_in_a_gather_keep_their_own_keys(work):
    @workflow
    def both(step):
        try:
            step.gather(
                step.define("a", double).bind(1),
                step.branch("a", lambda step: 3).bind(),
                step.define("b", fail_for(1)).bind(1),
            )
        except GroupFailed as error:
            return error.results

    run = both.start()
    work()
    assert run.result(timeout=0) == {"a": 2, "a#": 3}


def test_part_of_a_group_keeps_the_keys_of_groups_in_it():
    inner = GroupFailed("inner", {"x": ValueError("x"), "y": KeyError("y")})
    outer = GroupFailed("outer", {"1": inner, "0": ValueError("z")})
    part, _ = outer.split(ValueError)
    assert list(part.failures) == ["1", "0"] and len(part.exceptions) == 2


def call_without_end(step):
    while True:
        try:
            step.sleep("nap", "1h")
        except BaseException:
            continue


def quick_one_before(number, step, has_begun):
    """The thread that helps has handed over the record of a quick branch when it comes to the one that never ends."""
    if number == 1:
        return
    has_begun.set()
    call_without_end(step)


def first_on_the_thread_that_helps(number, step, has_begun):
    """The branch sleeps on the thread that helps, and then never ends on the body's own."""
    has_begun.set()
    step.sleep("short", 0.1)
    call_without_end(step)


def within_another_group(number, step, has_begun):
    has_begun.set()
    step.map("inner", lambda number, step: call_without_end(step), [1])


@pytest.mark.parametrize("branch", [quick_one_before, first_on_the_thread_that_helps, within_another_group])
def test_branch_that_never_ends_its_pass_holds_nobody_up(work, branch):
    has_begun = threading.Event()

    def item(number, step):
        if number:
            branch(number, step, has_begun)
        else:
            has_begun.wait(10)

    @workflow
    def mapped(step):
        step.map("m", item, [0, 1, 2] if branch is quick_one_before else [0, 1])

    run = mapped.start()
    Background(lambda: work(concurrency=2)).result()
    assert type(raised_by(run)).__name__ == "EndlessBody"


def raise_a_member(step, item):
    try:
        step.map("m", item, [1, 2])
    except GroupFailed as error:
        raise error.exceptions[0] from None


def raise_a_part(step, item):
    try:
        step.map("m", item, [1, 2])
    except* Broken:
        raise


def raise_a_member_in_a_branch(step, item):
    step.branch("inner", lambda step: raise_a_member(step, item)).run()


@pytest.mark.parametrize("raising", [raise_a_member, raise_a_part, raise_a_member_in_a_branch])
def test_retry_after_a_member_of_the_group_was_raised_decides_the_map_anew(work, raising):
    failing = [1]

    def item(number):
        if number in failing:
            failing.clear()
            raise Broken(number)
        return number

    @workflow
    def mapped(step):
        raising(step, item)
        return "done"

    run = mapped.start()
    work()
    raised_by(run)
    run.retry()
    work()
    assert run.result(timeout=0) == "done"


def test_call_of_a_group_that_is_over_wants_no_help_when_the_group_goes_on(work, monkeypatch):
    offered, offer, wanted = [], Crew.offer, []
    monkeypatch.setattr(Crew, "offer", lambda crew, work: (offered.append(work), offer(crew, work)))

    def item(number, step):
        step.sleep("short", 0.05)
        time.sleep(0.02)  # the other one is due by now
        wanted.append([call.wants_help() for call in offered])

    @workflow
    def mapped(step):
        step.map("m", item, [1, 2])

    mapped.start()
    work(concurrency=1)
    assert len(offered) > 1 and not any(any(calls[:-1]) for calls in wanted)


def test_policy_that_gives_up_on_groups_tries_none_again():
    group = GroupFailed("1 of 1 failed", {"a": Broken(1)})
    assert RetryPolicy(max_attempts=2, jitter=False).delay_after(1, group) is not None
    assert RetryPolicy(max_attempts=2, give_up_on=GroupFailed).delay_after(1, group) is None


def test_result_that_is_gone_since_is_left_out_of_a_failed_group(work, pass_time):
    found = []

    def person(number):
        return Person.objects.create(name="Ann") if number == 1 else fail_for(2)(number)

    @workflow
    def mapped(step):
        try:
            step.map("m", person, [1, 2], concurrency=1)
        except GroupFailed as group:
            found.append((list(group.failures), list(group.results)))
        step.sleep("nap", "1h")

    run = mapped.start()
    work(concurrency=1)
    Person.objects.all().delete()
    pass_time("2h")
    work()
    run.refresh_from_db()
    assert run.status == "succeeded"
    assert found[0] == (["2"], ["1"]) and found[-1] == (["2"], [])


def test_branch_whose_result_the_database_refuses_has_failed(work, monkeypatch):
    record = records.record

    def refuse(connection, write):
        if write.kind == "branch" and write.status == "succeeded":
            raise DataError("too odd")
        return record(connection, write)

    monkeypatch.setattr(records, "record", refuse)
    monkeypatch.setattr(GroupCommit, "commit", lambda self, write: False)
    # Nothing is left to the thread that writes what waits too long.
    monkeypatch.setattr(GroupCommit, "hand_over", lambda self, write: Entry(write))
    monkeypatch.setattr(GroupCommit, "settle", lambda self, entry: False)

    @workflow
    def mapped(step):
        return [type(one).__name__ for one in step.map("m", lambda number, step: number, [1], return_exceptions=True)]

    run = mapped.start()
    work()
    assert run.result(timeout=0) == ["UnserializableResult"]
    assert run.steps.get(name="m#1").status == "failed"
