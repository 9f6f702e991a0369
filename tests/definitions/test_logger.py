"""The `logger` of a body: a standard adapter that says everything once."""

from __future__ import annotations

import logging

from django_steps import workflow


def messages(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("django_steps.workflow.")]


def test_each_line_is_written_once_however_often_the_body_is_replayed(work, pass_time, caplog):
    caplog.set_level(logging.INFO)

    def fail():
        raise OSError

    @workflow
    def talking(step, logger):
        logger.info("beginning")
        step.define("one", lambda: logger.info("in one")).run()
        logger.info("after one")
        try:
            step.define("optional", fail).run()
        except OSError:
            logger.warning("optional failed")
        step.sleep("pause", "1h")
        logger.info("after the sleep")
        step.define("two", lambda: logger.info("in two")).run()
        step.sleep("pause", "1h")
        logger.info("end")

    run = talking.start()
    for _ in range(3):
        work()
        pass_time("61m")
    run.result(timeout=0)
    assert messages(caplog) == [
        "beginning",
        "in one",
        "after one",
        "optional failed",
        "after the sleep",
        "in two",
        "end",
    ]


def test_fields_of_the_run_are_merged_into_the_callers_extra(work, caplog):
    caplog.set_level(logging.INFO)

    @workflow(name="talking loudly")
    def talking(step, logger):
        logger.info("in the body", extra={"batch": 3})
        step.define("charge", lambda: logger.info("in %s", "a step", extra={"batch": 4})).run()

    run = talking.start()
    work()
    run.result(timeout=0)
    first, second = (record for record in caplog.records if record.name == "django_steps.workflow.talking loudly")
    assert (first.run_id, first.workflow, first.step, first.batch) == (str(run.pk), "talking loudly", None, 3)
    assert (second.run_id, second.workflow, second.step, second.batch) == (str(run.pk), "talking loudly", "charge", 4)
    assert second.getMessage() == "in a step"


def test_logger_is_a_standard_adapter(work, caplog):
    seen = []

    @workflow
    def talking(logger):
        seen.append(isinstance(logger, logging.LoggerAdapter))
        logger.setLevel(logging.ERROR)
        logger.warning("not this")
        logger.setLevel(logging.NOTSET)
        try:
            raise ValueError("why")
        except ValueError:
            logger.exception("failed")
        seen.append(logger.isEnabledFor(logging.ERROR))

    talking.start()
    work()
    assert seen == [True, True]
    assert messages(caplog) == ["failed"]
    assert "ValueError: why" in caplog.text


def test_lines_after_a_step_that_failed_before_are_written_when_it_executes_again(work, caplog):
    caplog.set_level(logging.INFO)
    broken = [True]

    def flaky():
        if broken[0]:
            raise OSError

    @workflow
    def talking(step, logger):
        step.define("one", lambda: 1).run()
        logger.info("after one")
        step.define("flaky", flaky).run()
        logger.info("after flaky")

    run = talking.start()
    work()
    broken[0] = False
    run.retry()
    work()
    run.result(timeout=0)
    assert messages(caplog) == ["after one", "after flaky"]


def test_recorded_step_that_the_code_has_left_out_does_not_silence_the_rest(work, pass_time, caplog):
    caplog.set_level(logging.INFO)
    has_old_step = [True]

    @workflow
    def deployed(step, logger):
        if has_old_step[0]:
            step.define("old", lambda: 1).run()
        step.sleep("deploy", "1h")
        step.define("new", lambda: 2).run()
        logger.info("after new")

    run = deployed.start()
    work()
    has_old_step[0] = False
    pass_time("2h")
    work()
    run.result(timeout=0)
    assert messages(caplog) == ["after new"]
