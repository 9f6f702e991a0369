"""The dispatcher and the receiver, with messages that this process carries: what is sent when, and what comes of it."""

from __future__ import annotations

import threading
import time

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection, connections

from django_steps import RetryPolicy, workflow
from django_steps.definitions import registry as workflows
from django_steps.models import Worker as WorkerRow
from django_steps.models import WorkflowPause, WorkflowRun
from django_steps.worker import loop
from django_steps.worker.executors import dispatch
from django_steps.worker.messenger import Message, Messenger, messenger_of
from django_steps.worker.receiver import Receiver
from tests.app import effects
from tests.app.workflows import customer, three_steps, tiny
from tests.staging import Background, claim, eventually, status_of

pytestmark = pytest.mark.django_db(transaction=True)


class Post(Messenger):
    """Keeps messages until the test delivers them."""

    name = "the post"

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.attempts = 0
        self.is_away = False

    def send(self, message: Message) -> None:
        self.attempts += 1
        self.probe()
        self.sent.append(Message.read(**message.arguments()))

    def probe(self) -> None:
        if self.is_away:
            raise ConnectionError("nobody is there")

    def tokens(self) -> set[int]:
        return {message.handover.token for message in self.sent}


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    post = Post()
    monkeypatch.setattr(loop, "messenger_of", lambda executor: post)
    return post


@pytest.fixture
def dispatching(running, post):
    """Dispatchers that run beside the test: `dispatching(lease=0.3)`."""
    return lambda **options: running(executor="celery", **options)


@pytest.fixture
def receiver():
    """A receiver in this process."""
    made = Receiver("celery")
    yield made
    made.close()


def deliver(receiver: Receiver, *messages: Message) -> list[bool]:
    """Whether each of these was adopted; waits for their passes."""
    begun = [receiver.begin(message) for message in messages]
    for execution in begun:
        if execution is not None:
            execution.wait()
    return [execution is not None for execution in begun]


def test_run_is_sent_and_executed_by_whoever_gets_the_message(dispatching, post, receiver):
    dispatching()
    run = three_steps.start({})
    eventually(lambda: post.sent)
    assert status_of(run) == "running"
    assert effects.count("first") == 0
    assert deliver(receiver, *post.sent) == [True]
    assert status_of(run) == "succeeded"
    assert effects.names(run) == ["first", "second", "third"]


def test_async_run_is_executed_on_an_event_loop_of_the_receiving_process(dispatching, post):
    seen = []

    async def look():
        seen.append(threading.current_thread().name)

    @workflow
    async def looks(input, step):
        await step.define("look", look).run()

    receiver = Receiver("celery")
    try:
        dispatching()
        run = looks.start({})
        eventually(lambda: post.sent)
        assert deliver(receiver, *post.sent) == [True]
        assert status_of(run) == "succeeded"
        assert seen == ["django-steps-loop"]
    finally:
        receiver.close()


def test_log_lines_are_kept_by_the_receiving_process(dispatching, post):
    @workflow
    def logs_elsewhere(input, step, logger):
        step.define("one", lambda: logger.info("in a step")).run()

    receiver = Receiver("celery")
    dispatching()
    run = logs_elsewhere.start({})
    eventually(lambda: post.sent)
    assert deliver(receiver, *post.sent) == [True]
    eventually(lambda: run.logs.exists())
    assert [(line.step, line.text) for line in run.logs.all()] == [("one", "in a step")]
    receiver.close()


def test_side_by_side_steps_are_executed_on_several_threads_of_the_receiving_process(dispatching, post):
    together = threading.Barrier(2, timeout=10)

    @workflow
    def meets(input, step):
        step.gather(*(step.define(name, together.wait).bind() for name in "ab"))

    receiver = Receiver("celery")
    try:
        dispatching()
        run = meets.start({})
        eventually(lambda: post.sent)
        assert deliver(receiver, *post.sent) == [True]
        assert status_of(run) == "succeeded"
    finally:
        receiver.close()


def test_more_runs_than_the_concurrency_are_executed_at_once_if_the_engine_wants_that(dispatching, post, settings):
    settings.DJANGO_STEPS = {"CONCURRENCY": 1}
    together = threading.Barrier(3, timeout=10)

    @workflow
    def meets(input, step):
        step.define("meet", together.wait).run()

    receiver = Receiver("celery")
    try:
        dispatching()
        meets.start_many([{}] * 3)
        eventually(lambda: len(post.sent) == 3)
        assert deliver(receiver, *post.sent) == [True] * 3
        assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"succeeded"}
    finally:
        receiver.close()


def test_lost_message_is_sent_again_under_the_same_token(dispatching, post, receiver):
    dispatching(lease=0.4)
    run = tiny.start({})
    eventually(lambda: len(post.sent) >= 3)
    assert len(post.tokens()) == 1
    run.refresh_from_db()
    assert {run.claim_token} == post.tokens()  # for longer than the lease of its claim
    assert deliver(receiver, *post.sent)[:2] == [True, False]
    assert status_of(run) == "succeeded"
    assert effects.count("once") == 1


def test_resends_become_rarer(dispatching, post):
    dispatching(lease=0.2)
    tiny.start({})
    eventually(lambda: len(post.sent) == 3)  # after 0.2 and 0.4 seconds
    time.sleep(0.3)
    assert len(post.sent) == 3


def test_what_was_adopted_is_not_sent_again(dispatching, post, receiver):
    done = threading.Event()

    @workflow
    def waits(input, step):
        step.define("wait", done.wait).run(10)

    dispatching(lease=0.3)
    own = Receiver("celery")
    try:
        waits.start({})
        eventually(lambda: post.sent)
        execution = own.begin(post.sent[0])
        worker = WorkerRow.objects.get(claims=True)
        eventually(lambda: not WorkflowRun.objects.filter(worker=worker).exists())
        time.sleep(0.2)
        sent = len(post.sent)
        time.sleep(1.0)
        assert len(post.sent) == sent
        done.set()
        execution.wait()
    finally:
        own.close()


def test_late_message_of_a_run_that_has_ended_does_nothing(dispatching, post, receiver):
    dispatching()
    run = tiny.start({})
    eventually(lambda: post.sent)
    assert deliver(receiver, post.sent[0], post.sent[0]) == [True, False]
    assert deliver(receiver, post.sent[0]) == [False]
    assert effects.count("once", run) == 1


def test_canceled_run_that_nobody_has_adopted_is_ended_by_the_dispatcher(dispatching, post, receiver):
    worker = dispatching()
    run = tiny.start({})
    eventually(lambda: post.sent)
    run.cancel()
    eventually(lambda: status_of(run) == "canceled")
    eventually(lambda: not worker._place.held())
    assert deliver(receiver, *post.sent) == [False]
    assert effects.count("once") == 0


def test_paused_run_that_nobody_has_adopted_is_paused_by_the_dispatcher(dispatching, post, receiver):
    worker = dispatching()
    run = tiny.start({})
    eventually(lambda: post.sent)
    run.pause()
    eventually(lambda: status_of(run) == "paused")
    eventually(lambda: not worker._place.held())
    assert deliver(receiver, *post.sent) == [False]
    run.resume()
    eventually(lambda: len(post.sent) == 2)
    assert deliver(receiver, post.sent[1]) == [True]
    assert status_of(run) == "succeeded"


@pytest.mark.parametrize("what", ["queue", "workflow"])
def test_run_of_a_paused_queue_or_workflow_that_nobody_has_adopted_is_given_back(dispatching, post, receiver, what):
    worker = dispatching()
    run, let_through = tiny.start_many([{}] * 2)
    eventually(lambda: len(post.sent) == 2)
    WorkflowPause.objects.pause_queue("default") if what == "queue" else tiny.pause()
    let_through.refresh_from_db()
    let_through.resume()
    messages = {message.handover.run_id: message for message in post.sent}
    assert deliver(receiver, messages[run.pk], messages[let_through.pk]) == [False, True]
    # The dispatcher may not know of the pause yet, and send it once more.
    eventually(lambda: not any(deliver(receiver, *post.sent)) and not worker._place.held())
    assert (status_of(let_through), status_of(run)) == ("succeeded", "pending")
    assert (run.started_at, run.recoveries, effects.count("once", run)) == (None, 0, 0)
    sent = len(post.sent)
    WorkflowPause.objects.resume_queue("default") if what == "queue" else tiny.resume()
    eventually(lambda: len(post.sent) > sent)
    assert deliver(receiver, post.sent[-1]) == [True]
    assert status_of(run) == "succeeded"


def test_run_that_nobody_has_adopted_when_its_timeout_is_over_is_ended_by_the_dispatcher(dispatching, post, receiver):
    worker = dispatching()
    run = tiny.start({}, timeout="700ms")
    eventually(lambda: post.sent)
    eventually(lambda: status_of(run) == "failed")
    run.refresh_from_db()
    assert run.error["type"].endswith("RunTimedOut")
    assert not worker._place.held() and len(post.tokens()) == 1
    assert deliver(receiver, *post.sent) == [False]
    assert effects.count("once") == 0


def test_timeout_of_a_run_holds_in_the_receiving_process(dispatching, post):
    @workflow
    def slow(input, step):
        step.define("wait", time.sleep).run(1)
        step.define("late", effects.leave).run("late")

    dispatching()
    receiver = Receiver("celery")
    try:
        run = slow.start({}, timeout="800ms")
        eventually(lambda: post.sent)
        assert deliver(receiver, *post.sent) == [True]
        run.refresh_from_db()
        assert run.status == "failed" and run.error["type"].endswith("RunTimedOut")
        assert effects.count("late") == 0
    finally:
        receiver.close()


def test_end_of_a_run_in_the_receiving_process_lets_the_next_one_in_line_go_on(dispatching, post, receiver):
    dispatching()
    runs = customer.start_many([{"customer": 1}] * 2)
    eventually(lambda: post.sent)
    assert WorkflowRun.objects.exclude(line_key=None).count() == 1
    assert deliver(receiver, *post.sent) == [True]
    assert not WorkflowRun.objects.exclude(line_key=None).exists()  # at once, and by no maintenance
    eventually(lambda: len(post.sent) == 2)
    assert deliver(receiver, post.sent[1]) == [True]
    assert [status_of(run) for run in runs] == ["succeeded"] * 2


def test_receiver_that_a_step_is_stuck_in_takes_nothing_more_and_ends_its_process(dispatching, post, settings, caplog):
    settings.DJANGO_STEPS = {"STEP_GRACE": "200ms"}
    goes_on, has_ended, calls = threading.Event(), threading.Event(), []

    def hang():
        calls.append(1)
        if len(calls) == 1:
            goes_on.wait(60)

    @workflow
    def hangs(input, step):
        step.define("hang", hang, timeout="100ms", retry=RetryPolicy(initial_interval="10ms")).run()

    dispatching(lease=0.5)
    stuck, other = Receiver("celery", end=has_ended.set), Receiver("celery")
    try:
        run = hangs.start({})
        eventually(lambda: post.sent)
        assert deliver(stuck, post.sent[0]) == [True]
        assert has_ended.is_set() and status_of(run) != "failed"
        eventually(lambda: len(post.tokens()) == 2)  # released, claimed and sent
        assert deliver(stuck, post.sent[-1]) == [False]
        assert "takes no more runs: restart it" in caplog.text
        assert deliver(other, post.sent[-1]) == [True]
        assert status_of(run) == "succeeded" and len(calls) == 2
    finally:
        goes_on.set()
        stuck.close()
        other.close()


def test_number_of_claims_that_wait_is_bounded(dispatching, post, receiver):
    dispatching(concurrency=3)
    tiny.start_many([{}] * 10)
    eventually(lambda: len(post.sent) == 3)
    assert WorkflowRun.objects.filter(status="running").count() == 3
    delivered = 0
    while delivered < 10:
        eventually(lambda: len(post.sent) > delivered)  # noqa: B023
        delivered += len(deliver(receiver, *post.sent[delivered:]))
    eventually(lambda: not WorkflowRun.objects.active().exists())


def test_dispatcher_that_stops_gives_back_what_nobody_has_adopted(dispatching, post, receiver):
    worker = dispatching()
    runs = tiny.start_many([{}] * 3)
    eventually(lambda: len(post.sent) == 3)
    deliver(receiver, post.sent[0])
    worker.stop()
    eventually(lambda: WorkerRow.objects.filter(claims=True).exclude(stopped_at=None).exists())
    assert sorted(map(status_of, runs)) == ["pending", "pending", "succeeded"]
    assert not WorkflowRun.objects.filter(status="pending").exclude(started_at=None).exists()  # as if never claimed
    assert deliver(receiver, *post.sent[1:]) == [False, False]


def test_run_that_cannot_be_given_back_does_not_keep_the_others(dispatching, post, monkeypatch):
    worker = dispatching()
    runs = tiny.start_many([{}] * 3)
    eventually(lambda: len(post.sent) == 3)
    release, refused = dispatch.Sent.release, []

    def release_all_but_one(sent, connection):
        if not refused:
            refused.append(sent)
            raise OperationalError("not this one")
        release(sent, connection)

    monkeypatch.setattr(dispatch.Sent, "release", release_all_but_one)
    worker.stop()
    eventually(lambda: WorkerRow.objects.filter(claims=True).exclude(stopped_at=None).exists())
    assert sorted(map(status_of, runs)) == ["pending", "pending", "running"]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="the others notify nobody")
def test_dispatcher_whose_database_is_away_ends_without_an_error(post, monkeypatch):
    def refused(*given):
        raise OperationalError("away")

    executor = dispatch.Dispatch("default", 5, 30.0, post, lambda: None)
    sent = dispatch.Sent(claim(tiny.start({})), executor)
    executor._sent[sent.claim.run_id] = sent
    monkeypatch.setattr(dispatch.Sent, "release", refused)
    monkeypatch.setattr(type(connections["default"]), "connect", refused)
    executor.stop(None)
    assert list(executor.held()) == [sent.claim.run_id]  # its lease runs out


def test_without_the_broker_nothing_is_claimed_and_what_was_is_given_back(
    dispatching, post, receiver, monkeypatch, caplog
):
    monkeypatch.setattr(dispatch, "_FIRST_PAUSE", 0.2)
    post.is_away = True
    dispatching()
    runs = tiny.start_many([{}] * 5)
    eventually(lambda: post.attempts)
    eventually(lambda: {status_of(run) for run in runs} == {"pending"})
    attempts = post.attempts
    time.sleep(1.0)
    assert post.attempts == attempts  # probes only
    assert {status_of(run) for run in runs} == {"pending"}
    post.is_away = False
    eventually(lambda: len(post.sent) == 5)
    deliver(receiver, *post.sent)
    assert {status_of(run) for run in runs} == {"succeeded"}
    lines = [record.getMessage() for record in caplog.records if "the post" in record.getMessage()]
    assert len(lines) == 2
    assert lines[0].startswith("the post can't be reached, so no runs are claimed; trying again in")
    assert lines[1].startswith("the post can be reached again.")


def test_when_the_broker_is_back_all_that_waits_is_sent_again_at_once(dispatching, post, receiver, monkeypatch):
    monkeypatch.setattr(dispatch, "_FIRST_PAUSE", 0.2)
    dispatching()  # whose lease is half a minute
    early = tiny.start_many([{}] * 3)
    eventually(lambda: len(post.sent) == 3)
    post.sent.clear()  # they are lost
    post.is_away = True
    late = tiny.start({})
    eventually(lambda: post.attempts == 4)
    post.is_away = False
    eventually(lambda: {message.handover.run_id for message in post.sent} == {run.pk for run in [*early, late]}, 5)
    deliver(receiver, *post.sent)
    assert {status_of(run) for run in [*early, late]} == {"succeeded"}


def test_dispatcher_whose_messages_nobody_takes_looks_less_and_less_often(dispatching, post, monkeypatch):
    looks = []
    look = dispatch.Dispatch._look
    monkeypatch.setattr(dispatch.Dispatch, "_look", lambda self, connection: [looks.append(1), look(self, connection)])
    dispatching(concurrency=2)
    tiny.start_many([{}] * 3)
    eventually(lambda: len(post.sent) == 2)
    time.sleep(1.5)
    before = len(looks)
    time.sleep(1.0)
    assert len(looks) - before <= 4


def test_claim_of_a_workflow_that_the_receiving_process_does_not_know_is_left_to_others(dispatching, post, caplog):
    @workflow
    def newer(input, step):
        pass

    dispatching()
    del workflows._registry[("newer", "")]
    old = Receiver("celery")
    workflows._registry[("newer", "")] = newer
    current = Receiver("celery")
    try:
        run = newer.start({})
        eventually(lambda: post.sent)
        assert deliver(old, *post.sent) == [False]
        assert "of workflow 'newer', which this process does not know" in caplog.text
        assert deliver(current, *post.sent) == [True]
        assert status_of(run) == "succeeded"
    finally:
        old.close()
        current.close()


def test_receiver_that_is_about_to_end_releases_runs_between_two_steps(dispatching, post):
    is_ending = threading.Event()

    @workflow
    def goes_on(input, step):
        step.define("one", is_ending.set).run()
        step.define("two", time.sleep).run(1.5)
        step.define("three", effects.leave).run("three")

    dispatching()
    ending = Receiver("celery", is_ending.is_set)
    try:
        run = goes_on.start({})
        eventually(lambda: post.sent)
        assert deliver(ending, *post.sent) == [True]
        assert effects.count("three") == 0
        eventually(lambda: len(post.sent) == 2)  # released, claimed and sent
        assert deliver(ending, post.sent[1]) == [False]  # and again
        eventually(lambda: len(post.sent) == 3)
    finally:
        ending.close()
    other = Receiver("celery")
    try:
        assert deliver(other, post.sent[2]) == [True]
        assert status_of(run) == "succeeded"
        assert list(run.steps.values_list("name", flat=True)) == ["one", "two", "three"]
    finally:
        other.close()


def test_row_of_a_receiver_is_there_while_it_is_and_claims_nothing(post):
    receiver = Receiver("celery")
    row = WorkerRow.objects.get()
    assert (row.executor, row.claims) == ("celery", False)
    receiver.close()
    assert not WorkerRow.objects.exists()


def test_suspended_run_is_sent_again_when_it_is_due(dispatching, post, settings):
    settings.DJANGO_STEPS = {"INLINE_WAIT": "0s"}
    again = threading.Event()

    @workflow
    def naps(input, step):
        step.sleep("nap", "1500ms")
        step.define("wake", again.set).run()

    dispatching(poll_interval=1)  # with wake-ups that work it looks every ten seconds only
    own = Receiver("celery")
    try:
        run = naps.start({})
        eventually(lambda: post.sent)
        time.sleep(0.5)  # the dispatcher has nothing to do, and waits
        assert deliver(own, post.sent[0]) == [True]
        assert status_of(run) == "sleeping"
        eventually(lambda: len(post.sent) == 2, timeout=5)
        assert post.sent[1].handover.has_history
        assert deliver(own, post.sent[1]) == [True]
        assert again.is_set()
    finally:
        own.close()


def test_until_idle_waits_for_what_others_execute(post, work):
    @workflow
    def takes_long(input, step):
        step.define("sleep", time.sleep).run(1.5)  # for longer than it takes to notice that it is adopted

    own = Receiver("celery")

    def carry() -> None:
        eventually(lambda: post.sent)
        deliver(own, post.sent[0])

    carrier = Background(carry)
    run = takes_long.start({})
    work(executor="celery")
    assert status_of(run) == "succeeded"
    carrier.result()
    own.close()


def test_executor_without_its_app_is_refused():
    with pytest.raises(ImproperlyConfigured, match=r"needs 'django_steps.contrib.celery' in INSTALLED_APPS"):
        messenger_of("celery")


@workflow
def failing_elsewhere(step):
    step.define("call", lambda: {}["key"]).run()


def test_receiver_logs_the_failure_of_a_run(dispatching, post, receiver, caplog):
    dispatching()
    run = failing_elsewhere.start()
    eventually(lambda: post.sent)
    assert deliver(receiver, post.sent[0]) == [True]
    assert status_of(run) == "failed"
    (record,) = [record for record in caplog.records if getattr(record, "is_end_of_run", False)]
    assert (record.levelname, record.run_id, record.exc_info[0]) == ("ERROR", str(run.pk), KeyError)
