"""Passes are spans of the trace in which their run was started, and attempts are their children."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest
from django.db import connection
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from django_steps import NonRetryableError, RetryAfter, RetryPolicy, workflow
from django_steps.contrib.opentelemetry import tracing
from django_steps.contrib.opentelemetry.carrier import Carried, carried
from django_steps.definitions import scheduling
from django_steps.ledger import schedules as ledger
from django_steps.ledger.handovers import Handover
from django_steps.models import WorkflowRun, WorkflowSchedule
from django_steps.testing import run_workflow
from django_steps.worker.host import WorkerHost
from django_steps.worker.messenger import Message
from django_steps.worker.receiver import Receiver
from tests.looking import error_of
from tests.staging import claim, status_of
from tests.tracing.spans import check_trees, tree
from tests.worker.test_step_timeouts import Hanging, until_stuck

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "4111 1111 1111 1111"


def current_ids() -> tuple[str, str]:
    """The current trace and span."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def start_in_span(tracer: Any, body: Any, input: Any = None) -> WorkflowRun:
    """Start a run as a view does that is traced."""
    with tracer.start_as_current_span("POST /orders"):
        run: WorkflowRun = body.start(input) if input is not None else body.start()
    return run


# -- Spans -------------------------------------------------------------------------------------------


def test_pass_is_a_consumer_span_of_the_starting_trace_and_each_attempt_a_child(spans, tracer, work):
    @workflow(version="2", queue="mail")
    def order(step):
        step.define("charge", lambda: 1).run()
        step.define("mail", lambda: 2).run()

    run = start_in_span(tracer, order)
    work()
    check_trees(spans.all())
    assert tree(spans.all()) == {"POST /orders": [["order", [["charge", []], ["mail", []]]]]}
    of_pass, of_step = spans.one("order"), spans.one("charge")
    assert (of_pass.kind, of_pass.status, of_pass.links) == ("CONSUMER", "UNSET", ())
    assert of_pass.attributes == {
        "messaging.system": "django_steps",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "mail",
        "messaging.message.id": str(run.pk),
        "django_steps.workflow.name": "order",
        "django_steps.workflow.version": "2",
        "django_steps.run.id": str(run.pk),
        "django_steps.run.attempt": 1,
        "django_steps.run.recoveries": 0,
        "django_steps.pass.outcome": "succeeded",
    }
    assert (of_step.kind, of_step.status) == ("INTERNAL", "UNSET")
    name = f"{__name__}.test_pass_is_a_consumer_span_of_the_starting_trace_and_each_attempt_a_child.<locals>.order.<locals>"
    assert of_step.attributes == {
        "django_steps.workflow.name": "order",
        "django_steps.run.id": str(run.pk),
        "django_steps.step.name": "charge",
        "django_steps.step.attempt": 1,
        "django_steps.step.outcome": "succeeded",
        "code.function.name": f"{name}.<lambda>",
    }


def test_step_of_an_item_is_named_by_its_path_without_keys(spans, work):
    @workflow
    def orders(step):
        step.map("order", ships, ["a", "b"])

    def ships(item, step):
        step.define("ship", lambda: item).run()

    orders.start()
    work()
    assert spans.names() == ["order/ship", "order/ship", "orders"]
    assert {span.attributes["django_steps.step.name"] for span in spans.named("order/ship")} == {
        "order#a/ship",
        "order#b/ship",
    }


def test_failed_attempt_has_the_exception_and_is_tried_again_in_the_same_pass(spans, work):
    calls = iter([OSError("refused"), None])

    def charge():
        if error := next(calls):
            raise error

    @workflow
    def charges(step):
        step.define("charge", charge, retry=RetryPolicy(initial_interval="1ms")).run()

    charges.start()
    work()
    first, second = spans.named("charge")
    (event,) = first.events
    assert (first.status, first.outcome, first.attributes["error.type"]) == ("ERROR", "retrying", "OSError")
    assert (event["name"], event["exception.type"]) == ("exception", "OSError")
    assert event["exception.message"] == "refused"
    assert "raise error" in event["exception.stacktrace"]
    assert (second.status, second.outcome, second.events) == ("UNSET", "succeeded", ())
    assert [span.attributes["django_steps.step.attempt"] for span in (first, second)] == [1, 2]
    assert spans.one("charges").status == "UNSET"


def test_failed_run_is_an_error_of_its_last_pass(spans, work):
    @workflow
    def breaks_itself(step):
        raise LookupError("lost")

    breaks_itself.start()
    work()
    of_pass = spans.one("breaks_itself")
    assert (of_pass.status, of_pass.outcome) == ("ERROR", "failed")
    assert of_pass.events[0]["exception.message"] == "lost"


def test_run_that_is_attempted_again_is_an_error_of_each_pass(spans, work):
    calls = iter([LookupError("lost"), None])

    @workflow(retry=RetryPolicy(initial_interval="1ms"))
    def again(step):
        if error := next(calls):
            raise error

    again.start()
    work()
    first, second = spans.named("again")
    assert (first.status, first.outcome) == ("ERROR", "retrying")
    assert (second.status, second.outcome) == ("UNSET", "succeeded")
    assert second.attributes["django_steps.run.attempt"] == 2
    assert (second.trace, second.parent) == (first.trace, first.id)


def test_suspension_is_no_error_and_nothing_is_emitted_for_what_is_replayed(spans, tracer, work, pass_time):
    @workflow
    def sleeps(step):
        step.define("before", lambda: 1).run()
        step.sleep("night", "30m")
        step.define("after", lambda: 1).run()

    start_in_span(tracer, sleeps)
    work()
    assert [(span.status, span.outcome, span.has_ended) for span in spans.passes()] == [("UNSET", "suspended", True)]
    pass_time("31m")
    work()
    check_trees(spans.all())
    assert spans.names() == ["POST /orders", "after", "before", "sleeps", "sleeps"]
    first, second = spans.passes()
    assert first.parent == second.parent == spans.one("POST /orders").id
    assert (first.links, second.links) == ((), (first.id,))


def test_step_that_asks_to_be_executed_later_has_not_failed(spans, work):
    calls = iter([RetryAfter("1ms"), None])

    def ask():
        if error := next(calls):
            raise error

    @workflow
    def asks(step):
        step.define("ask", ask).run()

    asks.start()
    work()
    assert [(span.status, span.outcome) for span in spans.named("ask")] == [
        ("UNSET", "postponed"),
        ("UNSET", "succeeded"),
    ]


def test_checks_of_a_poll_are_attempts(spans, work):
    answers = iter([None, None, "done"])

    @workflow
    def polls(step):
        step.poll("ready", lambda: next(answers), every="1ms").run()

    polls.start()
    work()
    assert [(span.status, span.outcome) for span in spans.named("ready")] == [
        ("UNSET", "waiting"),
        ("UNSET", "waiting"),
        ("UNSET", "succeeded"),
    ]


# -- Traces ------------------------------------------------------------------------------------------


def test_without_a_span_the_first_pass_begins_the_trace_of_the_run(spans, work, pass_time):
    @workflow
    def twice(step):
        step.sleep("nap", "10m")
        step.sleep("another", "10m")

    twice.start()
    for _ in range(3):
        work()
        pass_time("11m")
    first, second, third = spans.passes()
    assert (first.parent, second.parent, third.parent) == (None, first.id, first.id)
    assert (first.links, second.links, third.links) == ((), (), (second.id,))
    check_trees(spans.all())


def test_pass_more_than_an_hour_later_begins_a_trace_with_a_link_to_the_last_one(spans, tracer, work, pass_time):
    @workflow
    def long(step):
        step.sleep("first", "30m")
        step.sleep("second", "2h")
        step.sleep("third", "10m")

    start_in_span(tracer, long)
    for duration in ("31m", "2h", "11m", "0s"):
        work()
        pass_time(duration)
    one, two, three, four = spans.passes()
    assert one.trace == two.trace == spans.one("POST /orders").trace
    assert three.trace not in (one.trace, None)
    assert (three.parent, three.links) == (None, (two.id,))
    assert (four.trace, four.parent, four.links) == (three.trace, three.id, ())
    check_trees(spans.all())


def test_first_pass_that_comes_late_is_linked_to_the_start(spans, tracer, work, pass_time):
    @workflow
    def later(step):
        pass

    with tracer.start_as_current_span("POST /orders"):
        later.start(delay="3h")
    pass_time("3h")
    work()
    of_pass = spans.one("later")
    assert (of_pass.parent, of_pass.links) == (None, (spans.one("POST /orders").id,))


def test_released_run_goes_on_in_its_trace(spans, work, monkeypatch):
    monkeypatch.setattr(WorkerHost, "suspends_always", True)

    @workflow
    def released(step):
        step.define("one", lambda: 1).run()
        step.define("two", lambda: 2).run()

    released.start()
    work()
    first, *others = spans.passes()
    assert first.outcome == "released"
    assert {span.parent for span in others} == {first.id}
    check_trees(spans.all())
    assert spans.names() == ["one", *["released"] * len(spans.passes()), "two"]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "no json", '{"traceparent":"00-0-0-01","since_us":1}', '{"traceparent":7}']
)
def test_pass_of_a_run_with_a_damaged_trace_begins_one(spans, work, text):
    @workflow
    def damaged(step):
        pass

    run = damaged.start()
    WorkflowRun.objects.filter(pk=run.pk).update(trace=text)
    work()
    assert status_of(run) == "succeeded"
    assert (spans.one("damaged").parent, spans.one("damaged").links) == (None, ())


def test_state_of_vendors_is_kept_where_it_is_short(tracer):
    for value, expected in (("short", "short"), ("x" * 600, None)):
        state = TraceState([("vendor", value[:250]), ("b", value[250:500] or "b"), ("c", value[500:] or "c")])
        context = SpanContext(1, 2, True, TraceFlags(1), state)
        with trace.use_span(NonRecordingSpan(context)):
            read = Carried.read(carried())
        assert read is not None and (read.parent.trace_id, read.parent.span_id) == (1, 2)
        assert read.parent.trace_state.get("vendor") == expected


# -- Runs that start others --------------------------------------------------------------------------


def test_children_and_started_runs_belong_to_the_trace_of_the_pass_that_started_them(spans, tracer, work):
    @workflow
    def child(input, step):
        step.define("work", lambda: input).run()

    @workflow
    def on_its_own(step):
        pass

    @workflow
    def in_a_step(step):
        pass

    @workflow
    def parent(step):
        step.invoke("invoked", child).run(1)
        step.map("mapped", child, [1, 2])
        step.start("begun", on_its_own).run()
        step.define("starts", lambda: in_a_step.start() and None).run()

    start_in_span(tracer, parent)
    work()
    check_trees(spans.all())
    (root,) = spans.named("POST /orders")
    assert {span.trace for span in spans.all()} == {root.trace}
    parents = {span.id for span in spans.named("parent")}
    assert {span.parent for span in spans.named("parent")} == {root.id}
    assert {span.parent for name in ("child", "on_its_own") for span in spans.named(name)} <= parents
    assert spans.one("in_a_step").parent == spans.one("starts").id
    invoked = [span.attributes["django_steps.parent.step.name"] for span in spans.named("child")]
    assert sorted(invoked) == ["invoked", "mapped", "mapped"]


def test_child_does_not_make_a_trace_last_longer(spans, work, pass_time):
    @workflow
    def grandchild(step):
        step.sleep("nap", "40m")

    @workflow
    def waits_for_child(step):
        step.sleep("nap", "40m")
        step.invoke("child", grandchild).run()

    waits_for_child.start()
    work()
    pass_time("41m")
    work()
    pass_time("41m")
    work()
    first, last = spans.named("grandchild")
    assert first.trace == spans.named("waits_for_child")[0].trace
    assert (last.parent, last.links) == (None, (first.id,))
    check_trees(spans.all())


def test_successor_goes_on_in_the_trace(spans, work):
    @workflow
    def goes_on(input, step):
        return None if input else step.continue_as_new(1)

    goes_on.start(0)
    work()
    first, second = spans.passes()
    assert (first.parent, second.parent) == (None, first.id)


def test_run_of_a_schedule_begins_a_trace(spans, tracer, work, pass_time):
    @workflow
    def nightly(step):
        pass

    WorkflowSchedule.objects.create(name="nightly", workflow="nightly", every="1h")
    pass_time("1h")
    with tracer.start_as_current_span("somebody"):
        assert ledger.fire(connection, scheduling.targets()).runs == 1
    work()
    of_pass = spans.one("nightly")
    assert (of_pass.parent, of_pass.links) == (None, ())
    assert of_pass.attributes["django_steps.schedule.name"] == "nightly"


def test_many_runs_and_restarts_belong_to_the_trace_in_which_they_are_started(spans, tracer, work):
    @workflow
    def many(input, step):
        pass

    with tracer.start_as_current_span("one"):
        runs = many.start_many([1, 2])
    work()
    with tracer.start_as_current_span("two"):
        runs[0].restart()
    work()
    assert tree(spans.all()) == {"one": [["many", []], ["many", []]], "two": [["many", []]]}


# -- Where the span is the current one -----------------------------------------------------------------


def test_span_of_the_attempt_is_current_in_its_step_on_every_thread(spans, tracer, work):
    together = threading.Barrier(2, timeout=10)
    found: dict[Any, tuple[str, str]] = {}

    def look(item):
        together.wait()
        found[item] = current_ids()
        with tracer.start_as_current_span(f"inner {item}"):
            pass

    @workflow
    def looks(step):
        found["body"] = current_ids()
        step.map("look", look, [1, 2])
        found["body again"] = current_ids()

    start_in_span(tracer, looks)
    work(concurrency=2)
    check_trees(spans.all())
    of_pass = spans.one("looks")
    assert found["body"] == found["body again"] == (of_pass.trace, of_pass.id)
    by_step = {span.attributes["django_steps.step.name"]: span for span in spans.named("look")}
    for item in (1, 2):
        span = by_step[f"look#{item}"]
        assert found[item] == (span.trace, span.id)
        assert (span.parent, spans.one(f"inner {item}").parent) == (of_pass.id, span.id)


def test_async_body_and_its_steps_are_traced_as_plain_ones(spans, tracer, work):
    found: dict[str, tuple[str, str]] = {}

    async def waits(name):
        await asyncio.sleep(0.01)
        found[name] = current_ids()

    def plain():
        found["plain"] = current_ids()

    async def fails():
        raise OSError("refused")

    @workflow
    async def concurrent(step):
        found["body"] = current_ids()
        await asyncio.gather(
            step.define("a", waits).run("a"), step.define("b", waits).run("b"), step.define("plain", plain).run()
        )
        try:
            await step.define("fails", fails).run()
        except OSError:
            await step.sleep("night", "1h")
        await step.define("after", waits).run("after")

    start_in_span(tracer, concurrent)
    work()
    check_trees(spans.all())
    assert tree(spans.all()) == {"POST /orders": [["concurrent", [["a", []], ["b", []], ["fails", []], ["plain", []]]]]}
    of_pass = spans.one("concurrent")
    assert of_pass.outcome == "suspended"
    assert found.pop("body") == (of_pass.trace, of_pass.id)
    assert found == {name: (of_pass.trace, spans.one(name).id) for name in ("a", "b", "plain")}
    assert (spans.one("fails").status, spans.one("fails").events[0]["exception.message"]) == ("ERROR", "refused")


def test_next_step_and_the_next_run_see_nothing_of_a_span(spans, tracer, work):
    found = []

    @workflow
    def first(step):
        step.define("one", lambda: None).run()
        found.append(current_ids()[1])
        step.define("two", lambda: None).run()

    first.start()
    work(concurrency=1)
    assert found == [spans.one("first").id]
    assert current_ids() == ("0" * 32, "0" * 16)


def test_log_records_of_steps_and_bodies_have_the_ids_of_their_trace(spans, work, caplog):
    factory = logging.getLogRecordFactory()

    def with_ids(*args: Any, **kwargs: Any) -> logging.LogRecord:  # as opentelemetry-instrumentation-logging does it
        record = factory(*args, **kwargs)
        record.otelTraceID, record.otelSpanID = current_ids()
        return record

    @workflow
    def logs(step, logger):
        logger.info("in the body")
        step.define("log", lambda: logging.getLogger("shop").info("in the step")).run()
        raise LookupError("lost")

    logging.setLogRecordFactory(with_ids)
    caplog.set_level("INFO")
    try:
        logs.start()
        work()
    finally:
        logging.setLogRecordFactory(factory)
    of_pass, of_step = spans.one("logs"), spans.one("log")
    ids = {record.getMessage(): (record.otelTraceID, record.otelSpanID) for record in caplog.records}
    assert ids["in the body"] == (of_pass.trace, of_pass.id)
    assert ids["in the step"] == (of_pass.trace, of_step.id)
    (failed,) = (message for message in ids if message.startswith("Run "))
    assert ids[failed] == (of_pass.trace, of_pass.id)


def test_run_that_celery_or_django_tasks_executes_is_traced(spans, tracer):
    @workflow
    def elsewhere(step):
        step.define("one", lambda: None).run()

    run = start_in_span(tracer, elsewhere)
    claimed = claim(run)
    receiver = Receiver("celery")
    try:
        execution = receiver.begin(Message(Handover.of(claimed), claimed.queue))
        assert execution is not None
        execution.wait()
    finally:
        receiver.close()
    assert tree(spans.all()) == {"POST /orders": [["elsewhere", [["one", []]]]]}


def test_testing_kit_traces_what_it_executes(spans, tracer):
    @workflow
    def in_a_test(step):
        step.define("one", lambda: None).run()
        step.sleep("night", "12h")
        step.define("two", lambda: None).run()

    with tracer.start_as_current_span("test"):
        run_workflow(in_a_test)
    check_trees(spans.all())
    assert [name for name in spans.names() if name != "in_a_test"] == ["one", "test", "two"]


# -- Masks -------------------------------------------------------------------------------------------


def test_texts_of_failures_of_a_workflow_that_masks_keys_are_not_told(spans, work):
    def charge(card):
        raise NonRetryableError(f"{card} was refused")

    @workflow(mask=("card",))
    def pays(input, step):
        step.define("charge", charge).run(input["card"])

    @workflow
    def shops(input, step):
        step.invoke("pay", pays).run(input)

    run = shops.start({"card": SECRET})
    work()
    assert SECRET in str(error_of(run))
    assert SECRET not in str(spans.all())
    for name in ("charge", "pays", "shops"):
        (event,) = spans.named(name)[-1].events
        assert (event["exception.message"], spans.named(name)[-1].status) == ("********", "ERROR")
    assert spans.one("charge").attributes["error.type"] == "django_steps.errors.NonRetryableError"


# -- Much, and what breaks off ---------------------------------------------------------------------------


def test_long_pass_hands_spans_on_before_it_ends(spans, work):
    counts = []

    @workflow
    def large(step):
        for number in range(150):
            step.define(f"step {number}", lambda: None).run()
        counts.append(len(spans.all()))

    large.start()
    work()
    assert counts == [tracing._MOST_KEPT]
    assert len(spans.all()) == 151
    check_trees(spans.all())


def test_slow_pass_hands_spans_on_before_it_ends(spans, work, monkeypatch):
    monkeypatch.setattr(tracing, "_LONGEST_KEPT", 0)
    counts = []

    @workflow
    def slow(step):
        step.define("one", lambda: None).run()
        step.define("two", lambda: None).run()
        counts.append(len(spans.all()))

    slow.start()
    work()
    assert counts[0] >= 1 and len(spans.all()) == 3


def test_span_of_an_attempt_ends_when_the_attempt_does(spans, exporter, work):
    @workflow
    def timed(step):
        step.define("one", lambda: None).run()
        step.sleep("wait", "50ms")
        step.define("two", lambda: None).run()

    timed.start()
    work()
    one, two = (span for span in exporter.get_finished_spans() if span.name in ("one", "two"))
    assert one.end_time is not None and two.start_time is not None
    assert two.start_time - one.end_time > 40_000_000


def test_spans_of_a_step_that_is_given_up_end(spans, work, settings):
    settings.DJANGO_STEPS = {**settings.DJANGO_STEPS, "STEP_GRACE": "200ms"}
    hanging = Hanging()

    @workflow
    def hangs(step):
        step.define("stuck", hanging, timeout="100ms", retry=RetryPolicy(initial_interval="1ms")).run()

    run = hangs.start()
    until_stuck()
    try:
        check_trees(spans.all())
        assert [(span.status, span.outcome) for span in spans.named("stuck")] == [("ERROR", "retrying")]
        assert [span.outcome for span in spans.named("hangs")] == ["released"]
    finally:
        hanging.goes_on.set()
    assert hanging.has_ended.wait(10)
    work()
    assert status_of(run) == "succeeded"
    check_trees(spans.all())
    assert [span.outcome for span in spans.named("stuck")] == ["retrying", "succeeded"]


def test_pass_of_a_body_that_never_ends_is_an_error(spans, work):
    @workflow
    def endless(step):
        while True:
            try:
                step.sleep("rest", "1h")
            except:  # noqa: E722
                continue

    run = endless.start()
    work()
    assert error_of(run)["type"].endswith("EndlessBody")
    (of_pass,) = spans.all()
    assert (of_pass.name, of_pass.status, of_pass.outcome) == ("endless", "ERROR", "failed")


def test_async_step_that_the_body_cancels_ends(spans, work):
    async def hang():
        await asyncio.sleep(30)

    @workflow
    async def cancels(step):
        try:
            async with asyncio.timeout(0.05):
                await step.define("hang", hang).run()
        except TimeoutError:
            return "canceled"

    run = cancels.start()
    work()
    assert status_of(run) == "succeeded"
    check_trees(spans.all())
    assert (spans.one("hang").status, spans.one("hang").outcome) == ("UNSET", "broken off")
