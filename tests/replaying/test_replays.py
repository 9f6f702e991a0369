"""Replays tell what a deploy does to runs in flight, and execute and write nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_steps import Event, RetryPolicy, workflow
from django_steps.models import StepRecord, WorkflowEvent, WorkflowRun
from django_steps.replaying import recordings, writes
from django_steps.replaying.replays import replay
from django_steps.replaying.verdicts import Verdict
from tests.app.models import Effect
from tests.changing import deploy

pytestmark = pytest.mark.django_db(transaction=True)


def verdict_on(run: Any) -> Verdict:
    (recording,) = recordings.of_runs(connection, iter([WorkflowRun.objects.get(pk=run.pk)]))
    return replay(recording, "default")


def problems(run: Any) -> list[tuple[str, str]]:
    return [(problem.kind, problem.step) for problem in verdict_on(run).problems]


@pytest.fixture
def done() -> list[str]:
    """The steps that were executed."""
    return []


@pytest.fixture
def make(done: list[str]) -> Any:
    def note(step: Any, *names: str) -> None:
        for name in names:
            step.define(name, lambda name=name: done.append(name)).run()

    return note


def night(step: Any) -> None:
    step.sleep("night", "1h")


@pytest.fixture
def asleep(work, make) -> Any:
    """A run that has recorded `pack` and `label` and sleeps: `asleep()`."""

    def body(step):
        make(step, "pack", "label")
        night(step)
        make(step, "send")

    run = deploy("shipping", body).start()
    work()
    return run


# -- What fits ----------------------------------------------------------------------------------------


def test_same_body_fits_and_says_what_comes_next(asleep, pass_time, done):
    assert verdict_on(asleep).next == {"night": "sleep"}
    pass_time("2h")
    verdict = verdict_on(asleep)
    assert (verdict.fits, verdict.next) == (True, {"send": "step"})
    assert done == ["pack", "label"]


def test_fresh_run_fits_whatever_the_body_is():
    run = deploy("shipping", lambda step: night(step)).start()
    assert verdict_on(run).next == {"night": "sleep"}
    deploy("shipping", lambda step: step.define("anything", print).run())
    assert verdict_on(run).fits


def test_order_of_steps_is_free(asleep, make):
    def body(step):
        make(step, "label", "pack")
        night(step)

    deploy("shipping", body)
    assert problems(asleep) == []


def test_what_is_new_behind_everything_fits(asleep, make, pass_time):
    def body(step):
        make(step, "pack", "label")
        night(step)
        make(step, "weigh", "send")

    deploy("shipping", body)
    pass_time("2h")
    assert verdict_on(asleep).next == {"weigh": "step"}
    assert verdict_on(asleep).fits


def test_what_is_new_in_front_fits_behind_a_patch(asleep, make, pass_time):
    def body(step):
        if step.patched("weigh first"):
            make(step, "weigh")
        make(step, "pack", "label")
        night(step)
        if step.patched("thank them"):
            make(step, "thank")

    deploy("shipping", body)
    pass_time("2h")
    assert verdict_on(asleep).next == {"thank": "step"}
    assert verdict_on(asleep).fits
    assert not StepRecord.objects.filter(kind="patch").exists()


# -- What doesn't -------------------------------------------------------------------------------------


def test_renamed_step(asleep, make):
    def body(step):
        make(step, "wrap", "label")
        night(step)

    deploy("shipping", body)
    verdict = verdict_on(asleep)
    assert [(problem.kind, problem.step) for problem in verdict.problems] == [
        ("unreached", "pack"),
        ("unreached", "label"),
        ("unreached", "night"),
        ("executes", "wrap"),
    ]
    assert verdict.problems[0].text == "does not come to 'pack' any more, a recorded step"
    assert verdict.problems[3].text == "would execute 'wrap', a new step, before it comes to them"


def test_removed_step(asleep, make, pass_time):
    def body(step):
        make(step, "pack")
        night(step)
        make(step, "send")

    deploy("shipping", body)
    pass_time("2h")
    assert problems(asleep) == [("unreached", "label"), ("executes", "send")]


def test_step_that_is_added_in_front(asleep, make):
    def body(step):
        make(step, "weigh", "pack", "label")
        night(step)

    deploy("shipping", body)
    assert problems(asleep)[-1] == ("executes", "weigh")


def test_kind_that_changed(asleep, make):
    def body(step):
        step.sleep("pack", "1h")

    deploy("shipping", body)
    (problem,) = verdict_on(asleep).problems
    assert problem.kind == "mistake"
    assert "has recorded 'pack' as a step, and the code now asks for a sleep" in problem.text


def test_random_decision(asleep, make):
    def body(step):
        if random.random() < 2:
            make(step, "pack")
        night(step)

    deploy("shipping", body)
    assert problems(asleep) == [("unreached", "label")]


def test_body_that_raises(asleep, make):
    def body(step):
        make(step, "pack")
        raise LookupError("no such order")

    deploy("shipping", body)
    assert verdict_on(asleep).problems[-1].text == "raises LookupError: no such order"


def test_loop_by_index_whose_list_is_shorter(work, make):
    def body(step, count=3):
        for number in range(count):
            make(step, f"item {number}")
        night(step)

    run = deploy("shipping", lambda step: body(step)).start()
    work()
    deploy("shipping", lambda step: body(step, 2))
    assert problems(run) == [("unreached", "item 2")]


def test_workflow_that_is_gone_and_version_that_is_gone(asleep, make):
    from django_steps.definitions import registry

    registry._registry.pop(("shipping", ""))
    assert problems(asleep) == [("unknown", "")]
    deploy("shipping", lambda step: None, version="2")
    assert problems(asleep) == [("unknown", "")]


def test_versions_side_by_side_fit_each_its_own(asleep, work, make):
    two = deploy("shipping", lambda step: (make(step, "wrap"), night(step)), version="2")
    run = two.start()
    work()
    assert (problems(asleep), problems(run)) == ([], [])
    assert verdict_on(run).recording.version == "2"


# -- It executes and writes nothing -------------------------------------------------------------------


def test_it_writes_nothing(asleep, make, pass_time):
    def body(step):
        make(step, "pack", "label")
        night(step)
        step.map("item", lambda item: item, [1, 2])
        step.wait_for_event("paid")

    deploy("shipping", body)
    pass_time("2h")
    before = list(StepRecord.objects.order_by("pk").values())
    with CaptureQueriesContext(connection) as captured:
        assert verdict_on(asleep).fits
    assert all(query["sql"].startswith("SELECT") for query in captured)
    assert len(captured) == 2  # the run, its records
    assert list(StepRecord.objects.order_by("pk").values()) == before


@pytest.mark.parametrize(
    ("what", "named"),
    [
        (lambda: Effect.objects.create(name="x", pid=0, at=0), "The body writes outside of its steps: INSERT INTO"),
        (lambda: Effect.objects.update(pid=1), "The body writes outside of its steps: UPDATE"),
        (lambda: Effect.objects.all().delete(), "The body writes outside of its steps: DELETE"),
        (lambda: other.start(), "raises django_steps.errors.StartOutsideStep"),
        (lambda: WorkflowRun.objects.get().send_event("x"), "raises django_steps.errors.StartOutsideStep"),
        (lambda: other.start(event=Event("x", 1)), "raises django_steps.errors.StartOutsideStep"),
    ],
    ids=["create", "update", "delete", "start", "send_event", "start with an event"],
)
def test_what_a_body_writes_itself_is_refused_and_named(asleep, make, what, named):
    Effect.objects.create(name="first", pid=0, at=0)

    def body(step):
        make(step, "pack", "label")
        what()
        night(step)

    deploy("shipping", body)
    verdict = verdict_on(asleep)
    assert any(problem.text.startswith(named) for problem in verdict.problems), verdict.problems
    assert list(Effect.objects.values_list("name", "pid")) == [("first", 0)]
    assert (WorkflowRun.objects.count(), WorkflowEvent.objects.count()) == (1, 0)


@workflow(name="replayed_other")
def other(step):
    """Started by bodies that must not."""


def test_refusal_that_the_body_catches_is_named_all_the_same(asleep, make):
    def body(step):
        make(step, "pack", "label")
        with contextlib.suppress(Exception):
            Effect.objects.create(name="x", pid=0, at=0)
        night(step)

    deploy("shipping", body)
    assert [kind for kind, _ in problems(asleep)] == ["refused"]


def test_body_may_read(asleep, make):
    def body(step):
        assert not Effect.objects.exists()
        make(step, "pack", "label")
        night(step)

    deploy("shipping", body)
    assert problems(asleep) == []


def test_body_that_swallows_the_end_of_its_pass_ends_all_the_same(asleep, make):
    def body(step):
        for name in ("pack", "label", "weigh", "send"):
            with contextlib.suppress(BaseException):
                make(step, name)

    deploy("shipping", body)
    assert ("executes", "weigh") in problems(asleep)


# -- Failures -----------------------------------------------------------------------------------------


def test_failed_run_fits_if_it_comes_to_its_failure(work, make):
    def fail():
        raise LookupError("no")

    def body(step):
        make(step, "pack")
        step.define("charge", fail).run()

    run = deploy("shipping", body).start()
    work()
    assert problems(run) == []

    def handled(step):
        make(step, "pack")
        try:
            step.define("charge", fail).run()
        except LookupError:
            make(step, "refund")

    deploy("shipping", handled)
    assert (problems(run), verdict_on(run).next) == ([], {"refund": "step"})

    deploy("shipping", lambda step: make(step, "pack"))
    assert problems(run) == [("unreached", "charge")]


def test_failure_that_is_not_handled_any_more(work, make):
    def fail():
        raise LookupError("no")

    def body(step):
        try:
            step.define("charge", fail).run()
        except LookupError:
            night(step)

    run = deploy("shipping", body).start()
    work()

    deploy("shipping", lambda step: step.define("charge", fail).run())
    assert problems(run) == [("unreached", "night"), ("raises", "")]


# -- Side by side, branches, events, children ---------------------------------------------------------


def parcel(make: Any, *names: str) -> Any:
    def body(item, step):
        make(step, *names)
        night(step)
        make(step, "send")
        return item

    return body


def test_branches_are_replayed_each_as_far_as_it_is(work, make, pass_time):
    def body(step, names=("pack",)):
        step.map("parcel", parcel(make, *names), ["a", "b"])
        step.gather(step.branch("x", parcel(make)).bind("x"), step.define("y", lambda: 1).bind())

    run = deploy("shipping", lambda step: body(step)).start()
    work()
    assert verdict_on(run).next == {"parcel#a/night": "sleep", "parcel#b/night": "sleep"}
    pass_time("2h")
    assert verdict_on(run).next == {"parcel#a/send": "step", "parcel#b/send": "step"}
    assert problems(run) == []
    work()
    assert verdict_on(run).next == {"x#/night": "sleep"}
    deploy("shipping", lambda step: body(step, ("wrap",)))
    assert problems(run) == []  # the map is over


def test_branch_whose_step_was_renamed(work, make, pass_time):
    def body(step, names=("pack",)):
        step.map("parcel", parcel(make, *names), ["a", "b"])

    run = deploy("shipping", lambda step: body(step)).start()
    work()
    deploy("shipping", lambda step: body(step, ("wrap",)))
    assert set(problems(run)) == {
        ("unreached", "parcel#a/pack"),
        ("unreached", "parcel#a/night"),
        ("unreached", "parcel#b/pack"),
        ("unreached", "parcel#b/night"),
        ("executes", "parcel#a/wrap"),
        ("executes", "parcel#b/wrap"),
    }


def test_event_that_was_taken_and_one_that_is_waited_for(work):
    def body(step):
        first = step.wait_for_event("paid")
        return [first, step.wait_for_event("sent", timeout="1d")]

    run = deploy("shipping", body).start()
    run.send_event("paid", 7)
    work()
    run.send_event("sent", 8)  # nobody has looked yet, and a replay does not
    assert (verdict_on(run).next, problems(run)) == ({"sent": "event"}, [])
    assert WorkflowEvent.objects.filter(consumed_at=None).count() == 1


def test_child_that_is_waited_for(work):
    child = deploy("shipping_child", lambda step: step.sleep("long", "1d"))
    run = deploy("shipping", lambda step: step.invoke("child", child).run()).start()
    work()
    assert (verdict_on(run).next, problems(run)) == ({"child": "invoke"}, [])


def test_long_outputs_are_loaded(work, make, monkeypatch):
    def body(step):
        text = step.define("text", lambda: "x" * 200_000).run()
        make(step, str(len(text)))
        night(step)

    run = deploy("shipping", body).start()
    work()
    assert (verdict_on(run).next, problems(run)) == ({"night": "sleep"}, [])


# -- async def ----------------------------------------------------------------------------------------


async def note() -> str:
    return "noted"


def test_async_body_is_replayed(work, pass_time):
    async def old(step):
        await asyncio.gather(step.define("a", note).run(), step.define("b", note).run())
        async with asyncio.timeout(3600):
            await step.define("c", note).run()
        await step.sleep("night", "1h")
        await step.define("d", note).run()

    async def new(step):
        await step.define("a", note).run()
        await step.define("c", note).run()
        await step.sleep("night", "1h")

    run = deploy("shipping", old).start()
    work()
    assert (verdict_on(run).next, problems(run)) == ({"night": "sleep"}, [])
    pass_time("2h")
    assert (verdict_on(run).next, problems(run)) == ({"d": "step"}, [])
    deploy("shipping", new)
    assert problems(run) == [("unreached", "b")]


def test_timer_of_an_async_body_does_not_fire_where_the_run_is(work):
    async def body(step):
        await step.define("a", note).run()
        await step.sleep("night", "1h")

    async def new(step):
        await step.define("a", note).run()
        async with asyncio.timeout(60):
            await step.sleep("night", "1h")
        await step.define("after", note).run()

    run = deploy("shipping", body).start()
    work()
    deploy("shipping", new)
    assert (verdict_on(run).next, problems(run)) == ({"night": "sleep"}, [])


def test_branches_and_maps_of_an_async_body(work):
    async def one(item, step):
        await step.define("pack", note).run()
        await step.sleep("night", "1h")

    async def body(step):
        await step.map("parcel", one, ["a", "b"])

    run = deploy("shipping", body).start()
    work()
    assert verdict_on(run).next == {"parcel#a/night": "sleep", "parcel#b/night": "sleep"}
    assert problems(run) == []


def test_async_body_may_read_and_not_write(work):
    async def body(step):
        await step.define("a", note).run()
        await step.sleep("night", "1h")

    async def new(step):
        assert not await Effect.objects.aexists()
        await step.define("a", note).run()
        await Effect.objects.acreate(name="x", pid=0, at=0)

    run = deploy("shipping", body).start()
    work()
    deploy("shipping", new)
    assert [kind for kind, _ in problems(run)] == ["refused", "unreached"]
    assert not Effect.objects.exists()


# -- Arguments ----------------------------------------------------------------------------------------


def test_list_that_shifted_under_steps_named_by_index(work):
    def body(step, items):
        for number, item in enumerate(items):
            step.define(f"item {number}", str).run(item)
        night(step)

    run = deploy("shipping", lambda step: body(step, ["a", "b", "c"])).start()
    work()
    deploy("shipping", lambda step: body(step, ["b", "c"]))
    assert problems(run) == [("unreached", "item 2"), ("arguments", "item 0"), ("arguments", "item 1")]
    assert verdict_on(run).problems[1].text == "calls 'item 0', a recorded step, with other arguments"


def test_setting_that_ignores_changed_arguments_counts_here_too(work, settings):
    settings.DJANGO_STEPS = {**settings.DJANGO_STEPS, "ON_CHANGED_ARGUMENTS": "ignore"}
    run = deploy("shipping", lambda step: (step.define("pack", str).run(1), night(step))).start()
    work()
    deploy("shipping", lambda step: (step.define("pack", str).run(2), night(step)))
    assert problems(run) == []


# -- Undo ---------------------------------------------------------------------------------------------


def booking(step: Any, done: list[str], *, fails: bool = True) -> None:
    step.define("flight", lambda: done.append("flight"), undo=lambda result: done.append("no flight")).run()
    try:
        step.define("hotel", lambda: 1 / (not fails)).run()
    except ZeroDivisionError:
        night(step)
        step.undo()
        raise


def test_undo_in_a_body_comes_next_and_is_replayed(work, pass_time, done):
    run = deploy("journey", lambda step: booking(step, done)).start()
    work()
    assert (verdict_on(run).next, problems(run)) == ({"night": "sleep"}, [])
    pass_time("2h")
    assert (verdict_on(run).next, problems(run)) == ({"flight#undo": "undo"}, [])
    assert done == ["flight"]
    work()
    assert done == ["flight", "no flight"]
    assert problems(run) == []


def test_run_that_was_canceled_with_undo_fits(work, done):
    def body(step):
        step.define("flight", lambda: done.append("flight"), undo=lambda result: done.append("no flight")).run()
        night(step)

    run = deploy("journey", body).start()
    work()
    run.cancel(undo=True)
    work()
    assert done == ["flight", "no flight"]
    assert problems(run) == []


# -- What a hostile reader has found ------------------------------------------------------------------


@pytest.mark.parametrize("what", ["branch", "map", "member of a gather"])
def test_branch_in_flight_under_another_name(work, make, what):
    """It has no record of its own yet. Its steps would be executed a second time."""

    def part(item, step):
        make(step, "x")
        night(step)

    def body(step, name="old"):
        if what == "branch":
            step.branch(name, part).run(1)
        elif what == "map":
            step.map(name, part, ["a"])
        else:
            step.gather(step.branch(name, part).bind(1), step.branch("same", part).bind(2))

    run = deploy("shipping", body).start()
    work()
    assert problems(run) == []
    deploy("shipping", lambda step: body(step, "new"))
    path = "#a" if what == "map" else "#"
    assert problems(run) == [
        ("unreached", f"old{path}/x"),
        ("unreached", f"old{path}/night"),
        ("executes", f"new{path}/x"),
    ]
    deploy("shipping", lambda step: None)
    assert ("unreached", f"old{path}/x") in problems(run)


def test_body_sees_its_run_as_it_was(work):
    def body(step, run):
        name = "-".join([run.queue, run.tags["tenant"], str(run.attempts)])
        step.define(name, str).run(run.started_at)
        step.sleep("night", "1h")

    run = deploy("shipping", body, queue="mail").start(tags={"tenant": "acme"})
    work(queues=["mail"])
    assert problems(run) == []


def test_run_that_failed_and_is_being_undone_fits(work, make):
    def body(step):
        step.define(
            "flight",
            lambda: 1,
            undo=lambda result: 1 / 0,
            retry=RetryPolicy(max_attempts=3, initial_interval="1h", max_interval="1h"),
        ).run()
        step.define("hotel", lambda: 1 / 0, retry=1).run()

    run = deploy("shipping", body).start()
    work()
    run.cancel(undo=True)
    work()
    run.refresh_from_db()
    assert run.status == "canceling"
    assert problems(run) == []


def test_step_that_is_defined_and_never_run_at_the_end(work, make):
    run = deploy("shipping", lambda step: make(step, "pack")).start()
    work()

    def body(step):
        make(step, "pack")
        step.define("forgotten", print)

    deploy("shipping", body)
    (problem,) = verdict_on(run).problems
    assert problem.text.startswith("raises django_steps.errors.StepNotRun: Defined and never run: 'forgotten'")


def test_timer_that_led_to_what_is_recorded_leads_there_at_once(work):
    async def body(step):
        try:
            async with asyncio.timeout(0.05):
                await step.wait_for_event("paid")
        except TimeoutError:
            await step.define("remind", note).run()
        await step.sleep("night", "1h")

    async def patient(step):
        try:
            async with asyncio.timeout(100_000):
                await step.wait_for_event("paid")
        except TimeoutError:
            await step.define("remind", note).run()
        await step.sleep("night", "1h")

    run = deploy("shipping", body).start()
    work()
    assert (verdict_on(run).next, problems(run)) == ({"night": "sleep"}, [])
    deploy("shipping", patient)
    assert (verdict_on(run).next, problems(run)) == ({"night": "sleep"}, [])


@pytest.mark.parametrize(
    ("sql", "is_harmless"),
    [
        ("SELECT 1", True),
        ("  (SELECT 1) UNION (SELECT 2)", True),
        ("/* route='x' */ SELECT 1", True),
        ("-- delete\nSELECT 1", True),
        ("WITH x AS (SELECT 'update') SELECT * FROM x", True),
        ("SELECT * FROM a FOR UPDATE", True),
        ('SELECT "insert" FROM a', True),
        ("WITH x AS (DELETE FROM a RETURNING 1) SELECT 1", False),
        ("EXPLAIN ANALYZE DELETE FROM a", False),
        ("SELECT nextval('a')", False),
        ("SELECT 1 INTO b", False),
        ("SELECT 1; DROP TABLE a", False),
        ("CREATE TABLE a (b int)", False),
    ],
)
def test_what_counts_as_a_write(sql, is_harmless):
    assert writes._is_harmless(sql) is is_harmless


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("what", ["another kind", "never run"])
def test_mistake_in_a_branch_is_named_and_the_others_are_looked_at(work, what, kind):
    def make(is_changed: bool) -> Any:
        def part(item, step):
            if is_changed and item == "a" and what == "another kind":
                step.sleep("x", "1h")
            else:
                step.define("x", lambda: None).run()
            if is_changed and item == "a" and what == "never run":
                step.define("forgotten", print)
            else:
                night(step)

        async def async_part(item, step):
            if is_changed and item == "a" and what == "another kind":
                await step.sleep("x", "1h")
            else:
                await step.define("x", lambda: None).run()
            if is_changed and item == "a" and what == "never run":
                step.define("forgotten", print)
            else:
                await step.sleep("night", "1h")

        async def async_body(step):
            await step.map("m", async_part, ["a", "b"])

        return async_body if kind == "async" else lambda step: step.map("m", part, ["a", "b"])

    run = deploy("shipping", make(False)).start()
    work()
    assert problems(run) == []
    deploy("shipping", make(True))
    verdict = verdict_on(run)
    mistakes = [problem.text for problem in verdict.problems if problem.kind == "mistake"]
    (text,) = mistakes
    assert ("as a step, and the code now asks for a sleep" in text) or (
        "Defined and never run: 'm#a/forgotten'" in text
    )
    assert verdict.next["m#b/night"] == "sleep"


def test_log_lines_of_a_body_that_is_replayed_are_silent(work, caplog):
    def body(step, logger):
        step.define("pack", lambda: None).run()
        night(step)
        logger.warning("in the morning")
        step.define("send", lambda: None).run()

    run = deploy("shipping", body).start()
    work()
    StepRecord.objects.filter(run=run, kind="sleep").update(wakes_at_us=1)
    with caplog.at_level(logging.WARNING, logger="django_steps"):
        assert verdict_on(run).next == {"send": "step"}
    assert not caplog.records


def test_loop_of_timers_without_end_ends_the_replay(work):
    async def old(step):
        await step.define("a", note).run()
        await step.sleep("night", "1h")

    async def new(step):
        await step.define("a", note).run()
        while True:
            await asyncio.sleep(1)

    run = deploy("shipping", old).start()
    work()
    deploy("shipping", new)
    assert problems(run) == [("unreached", "night")]
