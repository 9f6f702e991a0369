"""Lines of the log are kept with their run: whose they are, how many, what they don't say, and what they don't cost."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from unittest import mock

import pytest
from django.db import OperationalError, connection

from django_steps import workflow
from django_steps.engine import captured
from django_steps.ledger import logs
from django_steps.models import WorkflowLog, WorkflowRun
from django_steps.worker import Worker, log_writer
from tests.staging import Background, eventually, status_of

pytestmark = pytest.mark.django_db(transaction=True)

others = logging.getLogger("shop.charging")


@pytest.fixture(autouse=True)
def levels(pass_time):
    """As a project has them that has set none: the root is at WARNING."""
    before = logging.root.level, others.level
    logging.root.setLevel(logging.WARNING)
    yield
    logging.root.setLevel(before[0])
    others.setLevel(before[1])


def lines(run) -> list[tuple[str, str, str]]:
    return [(line.level_name, line.step, line.text) for line in run.logs.all()]


def test_lines_of_the_body_and_of_any_logger_in_a_step_are_kept_once(work, pass_time):
    @workflow
    def captured_talking(step, logger):
        logger.info("begins %s", "here")
        others.warning("of nobody")  # in a body, only its own logger's: others would say it on each pass
        step.define("charge", lambda: others.warning("card %d", 7)).run()
        step.sleep("pause", "1h")
        step.define("ship", lambda: logger.info("in a step")).run()
        logger.debug("too low")
        logger.error("ends")

    run = captured_talking.start()
    others.error("outside")
    work()
    pass_time("2h")
    work()
    assert lines(run) == [
        ("INFO", "", "begins here"),
        ("WARNING", "charge", "card 7"),
        ("INFO", "ship", "in a step"),
        ("ERROR", "", "ends"),
    ]
    first, second = run.logs.all()[:2]
    assert (first.logger, second.logger) == ("django_steps.workflow.captured_talking", "shop.charging")
    assert first.at <= second.at
    assert [line.number for line in run.logs.all()] == [1, 2, 3, 4]


@pytest.mark.parametrize("level, kept", [("WARNING", ["b"]), ("DEBUG", ["a", "b"]), (None, [])])
def test_the_setting_says_from_which_level_on(work, settings, level, kept):
    settings.DJANGO_STEPS = {"CAPTURE_LOGS": level}

    @workflow
    def captured_levels(logger):
        logger.debug("a")
        logger.warning("b")

    run = captured_levels.start()
    work()
    assert [text for _, _, text in lines(run)] == kept


def test_levels_that_the_project_has_set_stand(work):
    @workflow
    def captured_quiet(step, logger):
        logger.setLevel(logging.ERROR)
        try:
            logger.info("no")
            step.define("one", lambda: others.info("no: the root is at WARNING")).run()
            others.setLevel(logging.INFO)
            step.define("two", lambda: others.info("yes")).run()
        finally:
            logger.setLevel(logging.NOTSET)

    run = captured_quiet.start()
    work()
    assert lines(run) == [("INFO", "two", "yes")]


def test_loggers_that_pass_nothing_on_are_heard(work):
    alone = logging.getLogger("shop.alone")
    alone.propagate = False
    try:

        @workflow
        def captured_alone(step):
            step.define("one", lambda: alone.error("heard")).run()

        run = captured_alone.start()
        work()
        assert lines(run) == [("ERROR", "one", "heard")]
    finally:
        alone.propagate = True


def test_exceptions_come_with_their_traceback(work):
    def fails():
        try:
            raise ValueError("why")
        except ValueError:
            others.exception("failed")

    @workflow
    def captured_exception(step, logger):
        step.define("one", fails).run()
        try:
            raise KeyError("body")
        except KeyError as error:
            logger.info("also", exc_info=error)

    run = captured_exception.start()
    work()
    (_, _, first), (_, _, second) = lines(run)
    assert first.startswith("failed\nTraceback") and first.endswith("ValueError: why")
    assert second.startswith("also\nTraceback") and second.endswith("KeyError: 'body'")


def test_side_by_side_and_in_branches_each_line_has_its_step(work):
    def branch(item, step, logger):
        step.define("charge", lambda: others.error("in %s", item)).run()
        logger.info("of %s", item)

    @workflow
    def captured_branches(step):
        step.map("order", branch, ["a", "b"])
        step.map("item", lambda item: others.error("item %s", item), ["c"])

    run = captured_branches.start()
    work(concurrency=3)
    assert sorted(lines(run)) == [
        ("ERROR", "item#c", "item c"),
        ("ERROR", "order#a/charge", "in a"),
        ("ERROR", "order#b/charge", "in b"),
        ("INFO", "", "of a"),
        ("INFO", "", "of b"),
    ]


def test_async_bodies_and_steps(work):
    async def fetch(name):
        await asyncio.sleep(0.01)
        others.error("fetched %s", name)

    @workflow
    async def captured_async(step, logger):
        logger.info("begins")
        await asyncio.gather(step.define("a", fetch).run("a"), step.define("b", fetch).run("b"))
        await step.define("plain", lambda: others.error("on a thread")).run()

    run = captured_async.start()
    work()
    assert sorted(lines(run)) == [
        ("ERROR", "a", "fetched a"),
        ("ERROR", "b", "fetched b"),
        ("ERROR", "plain", "on a thread"),
        ("INFO", "", "begins"),
    ]


# -- Caps --------------------------------------------------------------------------------------------


def test_a_run_keeps_a_thousand_lines_over_all_its_passes(work, pass_time):
    @workflow
    def captured_chatty(step, logger):
        for number in range(700):
            logger.info("first %d", number)
        step.sleep("pause", "1h")
        for number in range(700):
            logger.info("second %d", number)

    run = captured_chatty.start()
    work()
    pass_time("2h")
    work()
    found = lines(run)
    assert len(found) == 1001
    assert found[999][2] == "second 299"
    assert found[1000] == (
        "WARNING",
        "",
        "Further lines are not kept: a run has at most 1,000 lines or 64 KiB.",
    )


def test_a_run_keeps_64_kib(work):
    @workflow
    def captured_long(logger):
        for _ in range(30):
            logger.info("ü" * 7000)
        logger.info("x" * 100_000)

    run = captured_long.start()
    work()
    texts = [text for _, _, text in lines(run)]
    assert texts[:4] == ["ü" * 7000] * 4
    assert texts[4].startswith("Further lines are not kept")
    assert len(texts) == 5


def test_a_long_line_is_cut_and_what_databases_refuse_is_replaced(work):
    @workflow
    def captured_odd(logger):
        logger.info("x" * 100_000)
        logger.info("a\0b\ud800c 😀")

    run = captured_odd.start()
    work()
    (_, _, first), (_, _, second) = lines(run)
    assert len(first) == 8000 and first.endswith("x…")
    assert second == "a�b?c 😀"


# -- Masks -------------------------------------------------------------------------------------------


def test_no_masked_value_is_in_a_line(work, pass_time):
    def login():
        others.error("got s3cret-1, before it is recorded")
        return {"token": "s3cret-1", "deep": [{"pin": 4711, "name": "Ann"}]}

    @workflow(mask=("token", "pin", "password"))
    def captured_masked(input, step, logger):
        logger.info("with %s", input)
        logger.info('as JSON: {"password": "pass \\"word\\""}')
        found = step.define("login", login).run()
        logger.info("got %s", found)
        step.sleep("pause", "1h")
        step.define("use", lambda: others.error("uses %(token)s", found)).run()

    run = captured_masked.start({"password": 'pass "word"', "name": "Bob"})
    work()
    pass_time("2h")
    work()
    texts = [text for _, _, text in lines(run)]
    assert len(texts) == 5
    said = "\n".join(texts)
    for secret in ("s3cret-1", "4711", "word"):
        assert secret not in said.replace("password", ""), said
    assert "got ********, before it is recorded" in said
    assert "Ann" in said and "Bob" in said


def test_lines_of_a_step_that_fails_are_kept_where_the_workflow_masks(work):
    def fails():
        others.error("about to fail")
        raise ValueError("why")

    @workflow(mask=("token",))
    def captured_failing(input, step):
        step.define("one", fails).run()

    run = captured_failing.start({"token": "x-1"})
    work()
    assert status_of(run) == "failed"
    assert ("ERROR", "one", "about to fail") in lines(run)


def test_lines_of_a_step_whose_record_is_refused_are_kept_where_the_workflow_masks(work):
    def loses():
        others.error("done with x-1, for nothing")
        WorkflowRun.objects.update(claim_token=1)

    @workflow(mask=("token",))
    def captured_lost(input, step):
        step.define("one", loses).run()

    run = captured_lost.start({"token": "x-1"})
    work()
    assert lines(run) == [("ERROR", "one", "done with ********, for nothing")]


# -- What they don't cost ----------------------------------------------------------------------------


def test_where_nothing_is_logged_there_is_no_thread_and_no_statement(work):
    seen = []

    @workflow
    def captured_silent(step):
        step.define("one", lambda: seen.extend(thread.name for thread in threading.enumerate())).run()

    captured_silent.start()
    with mock.patch.object(logs, "write", side_effect=AssertionError("nothing to write")):
        work()
    assert seen
    assert "django-steps-logs" not in seen
    assert captured._handler not in logging.root.handlers  # it goes with the worker


def test_lines_are_there_within_a_second_while_the_step_goes_on():
    goes_on = threading.Event()

    def lasts():
        others.error("works")
        goes_on.wait(20)

    @workflow
    def captured_lasting(step):
        step.define("one", lasts).run()

    run = captured_lasting.start()
    worker = Worker(until_idle=True, poll_interval=0.05)
    thread = Background(worker.run)
    try:
        eventually(lambda: worker.in_progress())
        began = time.monotonic()
        eventually(lambda: run.logs.exists())
        assert time.monotonic() - began < 2
    finally:
        goes_on.set()
        thread.result()


def test_an_outage_loses_no_line_and_fails_no_step(work, monkeypatch):
    monkeypatch.setattr(log_writer, "_INTERVAL", 0.02)
    write, tries = logs.write, []

    def fails_first(*args):
        tries.append(args)
        if len(tries) < 3:
            raise OperationalError("gone")
        write(*args)

    @workflow
    def captured_outage(step):
        step.define("one", lambda: others.error("one")).run()
        step.define("two", lambda: time.sleep(0.3)).run()

    run = captured_outage.start()
    with mock.patch.object(logs, "write", fails_first):
        work()
    assert status_of(run) == "succeeded"
    assert lines(run) == [("ERROR", "one", "one")]


def test_a_table_that_is_missing_costs_the_lines_and_no_step(work, caplog):
    @workflow
    def captured_unmigrated(step):
        step.define("one", lambda: others.error("one")).run()

    run = captured_unmigrated.start()
    with mock.patch.object(logs, "LOG", "no_such_table"):
        work()
    assert status_of(run) == "succeeded"
    assert "Captured log lines could not be written" in caplog.text


def test_a_line_whose_arguments_do_not_fit_harms_nothing(work, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)

    @workflow
    def captured_misfit(step):
        step.define("one", lambda: others.error("%d", "x")).run()

    run = captured_misfit.start()
    work()
    assert status_of(run) == "succeeded"
    assert lines(run) == []


def test_too_many_lines_at_once_are_dropped(monkeypatch, caplog):
    monkeypatch.setattr(log_writer, "_MOST", 3)
    monkeypatch.setattr(log_writer, "_INTERVAL", 5)

    @workflow
    def captured_flood(logger):
        for number in range(10):
            logger.info("%d", number)

    run = captured_flood.start()
    Worker(until_idle=True, poll_interval=0.05).run()
    assert [text for _, _, text in lines(run)] == ["0", "1", "2"]
    assert "7 log lines were not captured" in caplog.text


# -- With the run ------------------------------------------------------------------------------------


def test_lines_go_with_their_run(work, settings):
    from django_steps.ledger import database, pruning

    @workflow
    def captured_old(logger):
        logger.info("one")

    first, second = captured_old.start(), captured_old.start()
    work()
    assert WorkflowLog.objects.count() == 2
    WorkflowRun.objects.filter(pk=first.pk).delete()
    assert [line.run_id for line in WorkflowLog.objects.all()] == [second.pk]
    pruning.prune(connection, database.read_clock(connection) + 3600_000_000)
    assert not WorkflowLog.objects.exists()


def test_lines_of_a_run_that_is_gone_are_not_written(work):
    @workflow
    def captured_gone(logger):
        logger.info("one")

    run = captured_gone.start()
    line = logs.NewLine(run.pk, 0, "", 20, "x", "late")
    WorkflowRun.objects.update(phase=2, status="succeeded")
    WorkflowRun.objects.all().delete()
    logs.write(connection, [line])
    assert not WorkflowLog.objects.exists()


def test_the_adapter_names_the_line_of_the_caller(work, caplog):
    caplog.set_level(logging.INFO)

    @workflow
    def captured_caller(logger):
        logger.info("here")

    captured_caller.start()
    work()
    (record,) = [record for record in caplog.records if record.getMessage() == "here"]
    assert (record.filename, record.funcName) == ("test_captured_logs.py", "captured_caller")


def test_warnings_are_printed_where_the_project_has_no_handlers(work, monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])

    @workflow
    def captured_unhandled(step):
        step.define("one", lambda: others.warning("printed and kept")).run()

    run = captured_unhandled.start()
    work()
    assert capsys.readouterr().err == "printed and kept\n"
    assert lines(run) == [("WARNING", "one", "printed and kept")]


def test_where_the_project_has_handlers_nothing_is_printed_besides(work, monkeypatch, capsys):
    seen = []
    handler = logging.Handler()
    handler.emit = seen.append
    monkeypatch.setattr(logging.root, "handlers", [handler])

    @workflow
    def captured_handled(step):
        step.define("one", lambda: others.warning("handled")).run()

    captured_handled.start()
    work()
    assert [record.getMessage() for record in seen] == ["handled"]
    assert capsys.readouterr().err == ""
