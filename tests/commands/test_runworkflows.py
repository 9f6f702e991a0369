"""`runworkflows` in this process: the greeting, the lines, the logs, and that it may be called from anywhere."""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.core.management.base import CommandError
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder

from django_steps import signals, workflow
from django_steps.definitions import registry
from django_steps.management import left_over
from django_steps.models import WorkflowRun
from django_steps.presentation import durations
from tests.app.workflows import sleeper, three_steps

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run_until_idle(run_command):
    return lambda *arguments: run_command("runworkflows", "--until-idle", "--poll-interval", "0.05", *arguments)


def test_it_greets_with_database_queues_and_workflows(run_until_idle):
    printed = run_until_idle(
        "--queue", "bulk", "--queue", "reports", "--concurrency", "3", "--async-concurrency", "7"
    ).out

    assert re.search(r"database +\S+.*'default': ", printed)
    assert re.search(r"queues +bulk, reports\n", printed)
    assert re.search(r"concurrency +3 runs at a time, and 7 of async workflows\n", printed)
    assert re.search(r"workflows +\d+: ", printed)
    assert "three_steps" in printed
    assert "Ctrl-C or SIGTERM ends it" in printed


def test_it_says_that_it_serves_all_queues_by_default(run_until_idle):
    assert re.search(r"queues +all\n", run_until_idle().out)


def test_versions_are_told_in_the_greeting(run_until_idle):
    registry._registry.clear()  # of many workflows it names the first

    @workflow(name="versioned", version="2024-01")
    def versioned(input): ...

    assert "versioned (2024-01)" in run_until_idle().out


def test_it_warns_when_there_are_no_workflows(run_until_idle):
    registry._registry.clear()
    printed = run_until_idle().out
    assert "No workflows were found, so nothing will be executed." in printed
    assert "shop/workflows.py" in printed


def test_each_finished_run_is_a_line(run_until_idle, shaky):
    good, bad = shaky.start({"fails": False}), shaky.start({"fails": True})
    lines = run_until_idle().out.splitlines()

    assert [line for line in lines if re.fullmatch(rf"[\d:]{{8}}  succeeded  shaky +{good.pk} +[\d.]+ m?s", line)]
    failed = rf"[\d:]{{8}}  failed     shaky +{bad.pk} +[\d.]+ m?s  second: ValueError: it fails"
    assert [line for line in lines if re.fullmatch(failed, line)]
    assert "Ended. Finished runs: " in lines[-1]
    assert "1 succeeded" in lines[-1] and "1 failed" in lines[-1]


def test_verbosely_each_step_is_a_line_too(run_until_idle, shaky):
    run = shaky.start({"fails": True})
    printed = run_until_idle("-v", "2").out
    assert re.search(rf"step +shaky +{run.pk}  first: succeeded\n", printed)
    assert re.search(rf"step +shaky +{run.pk}  second: failed\n", printed)


def test_steps_are_no_lines_by_default(run_until_idle, shaky):
    shaky.start({"fails": False})
    assert "first" not in run_until_idle().out


def test_quietly_it_prints_nothing(run_until_idle, shaky):
    shaky.start({"fails": True})
    three_steps.start({}, delay="1h")
    assert run_until_idle("-v", "0") == ("", "")


def test_lines_cost_no_query(run_until_idle, monkeypatch):
    """What a line says comes with the signal."""
    asked = []
    monkeypatch.setattr(WorkflowRun, "refresh_from_db", lambda *args, **kwargs: asked.append(kwargs))
    run = three_steps.start({})
    assert str(run.pk) in run_until_idle("-v", "2").out
    assert asked == []


def test_nothing_listens_to_signals_afterwards(run_until_idle):
    run_until_idle("-v", "2")
    every = [
        signals.run_succeeded,
        signals.run_failed,
        signals.run_canceled,
        signals.step_succeeded,
        signals.step_failed,
    ]
    assert not any(signal.has_listeners(WorkflowRun) for signal in every)


def test_what_is_left_for_later_is_told_at_the_end(run_until_idle):
    sleeper.start_many([{"duration": "2h"}, {"duration": "6d"}])
    delayed = three_steps.start({}, delay="1h")
    lines = run_until_idle().out.splitlines()

    assert lines[-2] == "Ended. Finished runs: none."
    due = durations.full_moment(delayed.wakes_at)
    assert lines[-1] == f"Left for later: 2 sleeping, 1 delayed; the next is due at {due}."


def test_many_that_are_left_for_later_are_not_counted_to_the_last(run_until_idle, monkeypatch):
    monkeypatch.setattr(left_over, "_COUNTED", 2)
    three_steps.start_many([{}] * 3, delay="1h")
    assert "Left for later: more than 2 runs; the next is due at " in run_until_idle().out


def test_runs_that_no_worker_knows_are_told_at_the_end(run_until_idle, live_worker):
    live_worker(workflows=[["known_elsewhere", ""]])
    for name in ("forgotten", "known_elsewhere"):
        workflow(name=name)(_body).start({})
        del registry._registry[name, ""]
    lines = run_until_idle().out.splitlines()

    assert lines[-2].startswith("Ended.")
    assert lines[-1] == ("1 run of workflow 'forgotten' waits, which no live worker knows: was it renamed or removed?")


def _body(input): ...


def test_of_other_queues_nothing_is_told(run_until_idle):
    three_steps.start({}, queue="bulk", delay="1h")
    assert run_until_idle("--queue", "reports").out.splitlines()[-1].startswith("Ended.")
    assert run_until_idle("--queue", "bulk").out.splitlines()[-1].startswith("Left for later: 1 delayed; ")


@contextmanager
def no_logging() -> Iterator[None]:
    """As in a project whose LOGGING says nothing of `django_steps`: no handlers on the way to the root."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        yield
    finally:
        root.handlers = handlers


@workflow(name="talkative")
def talkative(input, logger):
    logger.info("It says %s", input)


def test_logs_go_to_stderr_where_no_logging_is_configured(run_until_idle, capsys):
    registry.register(talkative)
    talkative.start("hello")
    with no_logging():
        run_until_idle()
    assert "django_steps.workflow.talkative: It says hello\n" in capsys.readouterr().err
    assert not logging.getLogger("django_steps").handlers
    assert logging.getLogger("django_steps").level == logging.NOTSET


def test_logging_that_is_configured_is_left_alone(run_until_idle, capsys):
    registry.register(talkative)
    logger, handler = logging.getLogger("django_steps"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        talkative.start("hello")
        with no_logging():
            run_until_idle()
    finally:
        logger.removeHandler(handler)
    assert capsys.readouterr().err == ""


def test_signal_handlers_are_as_before_afterwards(run_until_idle):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    run_until_idle()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_it_may_be_called_from_a_thread(run_until_idle):
    run = three_steps.start({})

    def work():
        run_until_idle()
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert run.result(timeout=1) == "done"


def test_max_runs_ends_it(run_command):
    three_steps.start_many([{}] * 3)
    run_command("runworkflows", "--max-runs", "2")
    assert WorkflowRun.objects.filter(status="succeeded").count() == 2


@pytest.mark.parametrize("option", [["--processes", "2"], ["--reload"]])
def test_a_supervisor_needs_a_command_line(run_command, option):
    with pytest.raises(CommandError, match="use them on a command line"):
        run_command("runworkflows", *option)


def test_a_database_without_tables_is_told_in_one_line(run_command):
    recorder = MigrationRecorder(connection)
    recorder.record_unapplied("django_steps", "0001_initial")
    try:
        with pytest.raises(CommandError, match=r"lacks tables of django_steps\. Create them with: .* migrate"):
            run_command("runworkflows")
    finally:
        recorder.record_applied("django_steps", "0001_initial")
