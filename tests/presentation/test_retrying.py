"""A run whose step fails and is tried again says so everywhere: the step, the attempt, the last error."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.core.management import call_command

from django_steps import failures
from django_steps.core import clock
from django_steps.models import WorkflowRun
from django_steps.presentation import runs
from tests.admin.conftest import START, add_step, attempt_log, make_run, url
from tests.admin.conftest import root as root

SAID = "charge failed at attempt 3: OSError: no answer"


def microseconds(delta):
    return clock.to_microseconds(START + delta)


def retrying(status="sleeping", *, wakes=timedelta(minutes=5), **columns):
    run = make_run(status, available_at_us=microseconds(timedelta(minutes=5)), **columns)
    add_step(
        run,
        "charge",
        "retrying",
        attempts=3,
        finished_at=None,
        wakes_at_us=microseconds(wakes),
        attempt_log=attempt_log(ValueError("first"), ValueError("second"), OSError("no answer")),
    )
    return run


def terminal(*arguments):
    out = io.StringIO()
    call_command("showworkflows", *arguments, stdout=out)
    return " ".join(out.getvalue().split())


def shown(client, run):
    """What the list, the page of the run and the terminal show."""
    pages = [client.get(page).content.decode() for page in (url("changelist"), url("change", run.pk))]
    return [*pages, terminal(), terminal(str(run.pk))]


def test_list_page_and_terminal_say_step_attempt_and_last_error(root):
    run = retrying()
    for text in shown(root, run):
        assert f"{SAID}; next attempt at 2026-03-01 03:05:00" in text
        assert "waits until" not in text


def test_a_running_attempt_says_why_it_is_not_the_first(root):
    run = retrying("running", current_step="charge")
    for text in shown(root, run):
        assert f"now: charge; {SAID}" in text


def test_a_sleep_is_a_sleep_though_a_step_had_been_tried_again(root):
    """The body may have gone another way since, after a deploy."""
    run = retrying(wakes=timedelta(minutes=1))
    for text in shown(root, run):
        assert "waits until 2026-03-01 03:05:00" in text
        assert SAID not in text.split("steps-table-title")[0]


def test_a_run_that_is_tried_again_says_why(root):
    due = {"phase": WorkflowRun.Phase.TIMED, "available_at_us": microseconds(timedelta(minutes=5))}
    run = make_run("pending", attempts=2, error_text=failures.record(OSError("no answer")), **due)
    for text in shown(root, run):
        assert "attempt 1 of the run failed: OSError: no answer; next attempt at 2026-03-01 03:05:00" in text


def test_the_list_can_be_filtered_by_it(root):
    due = {"phase": WorkflowRun.Phase.TIMED, "available_at_us": microseconds(timedelta(minutes=5))}
    again = make_run("pending", attempts=2, **due)
    tried = {retrying(), retrying("running", current_step="charge"), again}
    make_run("sleeping")
    retrying(wakes=timedelta(minutes=1))
    retrying("failed")
    found = root.get(url("changelist"), {"status__exact": "retrying"})
    assert set(found.context["cl"].result_list) == tried
    assert "?status__exact=retrying" in found.content.decode()


@pytest.mark.parametrize("number", [1, 5])
def test_it_costs_the_list_one_query(root, number, django_assert_max_num_queries):
    for _ in range(number):
        retrying()
    with django_assert_max_num_queries(20):
        root.get(url("changelist"))


def test_of_many_items_that_are_tried_again_one_log_is_read(root, django_assert_num_queries):
    run = retrying()
    for number in range(30):
        add_step(
            run,
            f"item#{number}",
            "retrying",
            wakes_at_us=microseconds(timedelta(minutes=5)),
            attempt_log=attempt_log(ValueError(f"item {number}")),
        )
    with django_assert_num_queries(2) as queries:
        found = runs.retrying_steps([run])
        assert "item 29" in runs.failing(run, found[run.pk])
    assert [("attempt_log" in query["sql"]) for query in queries] == [False, True]


def test_a_damaged_log_is_said_to_be_unreadable(root):
    run = make_run("sleeping", available_at_us=microseconds(timedelta(minutes=5)))
    add_step(
        run, "charge", "retrying", attempts=3, wakes_at_us=microseconds(timedelta(minutes=5)), attempt_log="{damaged"
    )
    for text in shown(root, run):
        assert "charge failed at attempt 3: unreadable record" in text
