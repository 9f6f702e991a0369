"""The page of a run."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils.timezone import now

from django_steps import PollTimedOut, values
from django_steps.core import clock
from django_steps.models import StepRecord, Worker, WorkflowRun

from .conftest import START, add_poll, add_step, attempt_log, error_of, failed_run, handled_run, make_run, url


@dataclasses.dataclass
class Account:
    owner: str
    token: str


@pytest.fixture
def known(define):
    """Make `three_steps` known without masks; `known("token")` masks."""

    def three_steps(input):
        pass

    def register(*mask):
        define(three_steps, name="shown", mask=mask)
        return "shown"

    return register


@pytest.fixture
def text(root):
    return lambda run, **parameters: root.get(url("change", run.pk), parameters).content.decode()


def test_failure_is_explained(text):
    run = failed_run(error=ValueError("card <b>declined</b>"))
    page = text(run)
    assert "Step “charge” failed" in page
    assert "card &lt;b&gt;declined&lt;/b&gt;" in page
    assert "Traceback (most recent call last)" in page


def test_every_attempt_has_its_error_and_traceback(text):
    run = failed_run()
    StepRecord.objects.filter(name="charge").update(
        attempts=3, attempt_log=attempt_log(OSError(5, "first try"), KeyError("second try"))
    )
    page = text(run)
    assert re.findall(r"<summary>(Attempt \d: \w+)", page) == [
        "Attempt 3: ValueError",
        "Attempt 2: KeyError",
        "Attempt 1: OSError",
    ]


def test_values_are_shown_as_readable_json(text, known):
    run = make_run(workflow=known(), input={"total": Decimal("9.90"), "when": START, "tags": ("a", "é"), 5: None})
    page = text(run)
    assert "&quot;total&quot;: &quot;9.90&quot;" in page
    assert "&quot;é&quot;" in page
    assert "&quot;5&quot;: null" in page


def test_masked_keys_are_masked_in_input_output_and_results(text, known):
    run = make_run(
        workflow=known("token"),
        input={"deep": [{"token": "s3cret"}]},
        output_text=json.dumps({"token": "s3cret", "ok": "visible"}),
    )
    add_step(run, "a", result=Account("Ada", "s3cret"))
    add_step(run, "b", result={("token", 1): 1, "token": {"inner": "s3cret"}})
    page = text(run)
    assert "s3cret" not in page
    assert page.count("&quot;token&quot;: &quot;********&quot;") >= 4
    assert "visible" in page
    assert "Ada" in page
    assert "Messages and tracebacks of errors are shown" in page


def test_what_the_run_says_of_itself_is_a_table(root, known):
    said = {
        "stage": "packed",
        "eta": START,
        "boxes": [1, 2],
        "<b>": "",
        "address": {"token": "s3cret"},
        "token": "s3cret",
    }
    run = make_run("running", workflow=known("token"), details_text=values.encode(said))
    response = root.get(url("change", run.pk))
    assert response.context["details"] == [
        ("stage", "packed"),
        ("eta", START.isoformat()),
        ("boxes", "[1, 2]"),
        ("<b>", ""),
        ("address", '{"token": "********"}'),
        ("token", "********"),
    ]
    page = response.content.decode()
    assert '<th scope="row">stage</th><td>packed</td>' in page
    assert "s3cret" not in page and "<b>" not in page and "All details" not in page


def test_run_that_says_nothing_has_no_table_of_details(text, known):
    assert "steps-details" not in text(make_run(workflow=known()))


def test_details_that_are_many_or_long_are_shown_below_as_a_whole(root, known):
    many = make_run(
        workflow=known("token"), details_text=values.encode({f"key {n}": n for n in range(500)} | {"token": 7})
    )
    long = make_run(workflow=known("token"), details_text=values.encode({"long": "x" * 5000, "token": "s3cret"}))
    for run in (many, long):
        response = root.get(url("change", run.pk))
        assert len(response.context["details"]) <= 30
        assert all(len(value) <= 300 for _, value in response.context["details"])
        assert [value.title for value in response.context["values"]] == ["Input", "All details"]
        assert "********" in response.context["values"][-1].text and "s3cret" not in response.content.decode()


def test_details_that_cannot_be_read_are_shown_as_they_are_unless_something_is_masked(root, known):
    for keys, shown in ((), "[damaged"), (("token",), "This value can&#x27;t be read."):
        run = make_run(workflow=known(*keys), details_text="[damaged")
        assert f'<th scope="row"></th><td>{shown}</td>' in root.get(url("change", run.pk)).content.decode()


def test_all_values_of_an_unknown_workflow_are_hidden(text):
    details = json.dumps({"place": "s3cret", "n": 12345})
    run = make_run(workflow="nobody_knows_it", input={"user": {"token": "s3cret"}, "n": 12345}, details_text=details)
    add_step(run, "a", result=["s3cret", Account("s3cret", "")])
    page = text(run)
    assert "s3cret" not in page
    assert "12345" not in page
    assert "&quot;user&quot;" in page
    assert "all values are hidden" in page


def test_value_of_an_unknown_version_is_hidden(text, known):
    assert "s3cret" not in text(make_run(workflow=known(), version="2", input="s3cret"))


def test_large_result_is_shown_on_demand(root, text, known):
    run = make_run(workflow=known())
    add_step(run, "small", result="tiny")
    step = add_step(run, "large", result="y" * 30_000)
    page = text(run)
    assert "yyy" not in page
    assert "29.3" in page
    assert f'href="?step={step.position}#step-{step.position}"' in page
    assert "y" * 30_000 in text(run, step=step.position)


def test_restarts_are_linked_both_ways(text):
    run = failed_run()
    new = make_run("running", restart_of=run)
    assert url("change", new.pk) in text(run)
    assert url("change", run.pk) in text(new)


def test_active_run_refreshes_itself_and_an_ended_one_does_not(text):
    for status in WorkflowRun.Status.values:
        assert ("data-steps-refresh" in text(make_run(status))) == (status not in WorkflowRun.FINISHED)


def test_progress_is_a_bar_while_the_run_is_not_done(text):
    columns = {"progress_done": 37, "progress_total": 100}
    assert 'value="37" max="100"' in text(make_run("running", **columns))
    assert 'value="37" max="100"' not in text(make_run("succeeded", **columns))


def test_page_is_titled_by_what_the_run_is_about(root, known):
    def title(run):
        return root.get(url("change", run.pk)).context["subtitle"]

    run = make_run(workflow=known("token"), key="order-7")
    assert title(run) == f"order-7 · …{str(run.pk)[-12:]}"
    run = make_run(workflow="shown", input={"order_id": 7, "token": "s3cret"})
    assert title(run).startswith("order_id: 7 · …")
    assert title(make_run(workflow="nobody_knows_it", input={"order_id": 7})).startswith("…")


def test_steps_and_sleeps_are_counted_apart(root, text):
    run = make_run()
    add_step(run, "a")
    add_step(run, "nap", kind="sleep", wakes_at_us=clock.to_microseconds(START + timedelta(seconds=3)))
    add_step(run, "b")
    page = text(run)
    assert "<dd>2 steps, 1 sleep</dd>" in page
    assert drawing(root, run).summary.startswith("2 steps, 1 sleep in ")
    assert "until 2026-03-01 03:00:03" in page


def test_poll_shows_its_checks_its_last_value_and_its_next_check(root, text, known):
    run = make_run("sleeping", workflow=known("token"))
    add_poll(run, "shipped", checks=12, value={"state": "packed", "token": "s3cret"})
    page = text(run)
    assert ">12 checks</td>" in page
    assert "last value:" in page and "&quot;state&quot;: &quot;packed&quot;" in page and "s3cret" not in page
    assert "next check at 2026-03-01 04:00:00" in page
    assert "<dd>1 step</dd>" in page
    (row,) = root.get(url("change", run.pk)).context["steps"]
    assert "steps-status-waiting" in row.status and row.took == "-"
    assert [bar.kind for bar in drawing(root, run).rows[0].bars] == ["wait"]


def test_poll_that_has_made_no_check_has_no_last_value(text):
    run = make_run("running")
    add_poll(run, "shipped", checks=0, value=None, output_text=None)
    assert ">0 checks</td>" in text(run) and "last value:" not in text(run)


def test_poll_that_has_found_it_shows_its_result(root, text, known):
    run = make_run("succeeded", workflow=known())
    add_poll(run, "shipped", checks=1, value="there", status="succeeded")
    page = text(run)
    assert ">1 check</td>" in page and "last value:" not in page and "&quot;there&quot;" in page
    assert [bar.kind for bar in drawing(root, run).rows[0].bars] == ["wait", "step"]


def test_poll_that_timed_out_shows_its_last_value_and_the_failure(root, text, known):
    timed_out = error_of(PollTimedOut("shipped", 3), "shipped")
    run = make_run("failed", error_text=timed_out, workflow=known())
    log = attempt_log(OSError("no line"))
    add_poll(run, "shipped", checks=3, value=["packed"], status="failed", error_text=timed_out, attempt_log=log)
    page = text(run)
    assert "last value:" in page and "packed" in page and "in 3 checks." in page
    assert "next check" not in page and "no line" in page
    assert {bar.kind for bar in drawing(root, run).rows[0].bars} == {"wait", "failed"}


def test_poll_is_canceled_with_its_run(root, text):
    run = make_run("canceled")
    add_poll(run, "shipped", checks=3, value=None)
    (row,) = root.get(url("change", run.pk)).context["steps"]
    assert "steps-status-canceled" in row.status and row.took == "1m 00s"


@pytest.mark.parametrize(
    ("status", "of_sleep", "took"),
    [
        ("succeeded", "succeeded", "2d 00h"),
        ("canceled", "canceled", "1m 00s"),
        ("failed", "canceled", "1m 00s"),
        ("sleeping", "waiting", "-"),
        ("canceling", "waiting", "-"),
    ],
)
def test_sleep_is_waiting_until_its_time_is_over_or_the_run_has_ended(root, status, of_sleep, took):
    wakes = {"succeeded": START + timedelta(days=2)}.get(status, now() + timedelta(days=30))
    run = make_run(status, **({"finished_at": wakes} if status == "succeeded" else {}))
    add_step(run, "nap", kind="sleep", started_at=START, wakes_at_us=clock.to_microseconds(wakes))
    (row,) = root.get(url("change", run.pk)).context["steps"]
    assert f"steps-status-{of_sleep}" in row.status
    assert row.took == took
    assert f"nap, {of_sleep}, " in drawing(root, run).rows[0].title


def test_short_value_is_shown_in_a_line_and_a_long_one_unfolded_on_demand(text, known):
    run = make_run(workflow=known())
    add_step(run, "short", result={"n": 1, "text": "a  b"})
    add_step(run, "long", result={"numbers": list(range(100))})
    page = text(run)
    assert "<code>{&quot;n&quot;: 1, &quot;text&quot;: &quot;a  b&quot;}</code>" in page
    assert page.count('<details id="steps-result-') == 1


def test_active_run_that_no_live_worker_would_take_says_why(text):
    run = make_run("sleeping", queue="bulk")
    assert "No worker is running." in text(run)
    assert "No worker is running." not in text(make_run("succeeded"))
    alive = {
        "pid": 1,
        "concurrency": 1,
        "lease_us": 30_000_000,
        "started_at": START,
        "last_seen_us": clock.to_microseconds(now()),
    }
    workflows = [["three_steps", ""]]
    Worker.objects.create(host="web-1", queues=["default"], workflows=workflows, **alive)
    assert "No live worker serves the queue &#x27;bulk&#x27;." in text(run)
    Worker.objects.create(host="web-2", queues=["bulk"], workflows=workflows, **alive)
    assert "No live worker" not in text(run)


def test_run_that_only_a_silent_worker_holds_says_that_no_worker_is_running(text):
    worker = Worker.objects.create(host="web-1", pid=4711, concurrency=1, lease_us=1, started_at=START, last_seen_us=0)
    assert "No worker is running." in text(make_run("running", worker=worker))


def test_worker_that_executes_the_run_is_named(text):
    worker = Worker.objects.create(host="web-1", pid=4711, concurrency=1, lease_us=1, started_at=START, last_seen_us=0)
    assert "web-1:4711" in text(make_run("running", worker=worker))
    assert "web-1:4711" not in text(make_run("succeeded", worker=worker))


def test_unknown_run_says_why_nothing_happens(text):
    assert "No worker knows this workflow" in text(make_run("pending", phase=WorkflowRun.Phase.UNKNOWN))


def test_every_step_can_be_retried_from(text):
    page = text(handled_run())
    assert page.count(">Retry from here<") == 3
    assert ">Retry…<" in page
    assert "Retry from here" not in text(make_run("succeeded"))


# -- Large and odd ------------------------------------------------------------------------------------------


def many_steps(run, count):
    StepRecord.objects.bulk_create(
        StepRecord(
            run=run,
            name=f"step_{number}",
            kind="step",
            position=number,
            status="failed" if number == count - 1 else "succeeded",
            output_text="null",
            attempt_log=attempt_log(ValueError("again")) if number % 10 == 0 else "",
            started_at=START + timedelta(seconds=number),
            finished_at=START + timedelta(seconds=number + 1),
            claim_token=1,
            write_id=number,
        )
        for number in range(count)
    )


@pytest.mark.any_database
def test_ten_thousand_steps_make_a_page_of_bounded_size(root):
    run = make_run("failed", finished_at=START + timedelta(hours=3))
    many_steps(run, 10_000)
    response = root.get(url("change", run.pk))
    page = response.content.decode()
    assert len(response.context["timeline"].rows) == 40
    assert page.count("<rect") < 1000
    assert len(page) < 400_000
    assert 'id="step-9999"' in page  # the page of the step that failed comes first
    assert "of 10000</span>" in page
    assert '">first</a>' in page and '">last</a>' not in page
    first_page = root.get(url("change", run.pk), {"steps": 1}).content.decode()
    assert 'id="step-0"' in first_page
    assert '">last</a>' in first_page and '">first</a>' not in first_page


def test_run_that_goes_on_shows_its_latest_steps_first(root):
    run = make_run("sleeping", worker=None)
    many_steps(run, 250)
    page = root.get(url("change", run.pk)).content.decode()
    assert 'id="step-249"' in page and 'id="step-0"' not in page


def test_number_of_queries_does_not_depend_on_the_number_of_steps(root, django_assert_max_num_queries):
    counts = []
    for steps in (2, 30):
        run = make_run("failed", error_text=error_of(ValueError("x"), f"step_{steps - 1}"))
        many_steps(run, steps)
        for _restart in range(steps):
            make_run(restart_of=run)
        with django_assert_max_num_queries(30) as queries:
            root.get(url("change", run.pk))
        counts.append(len(queries))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", ["quo\"te's", "a/b?c&d=e#2", "🙂 é", "x" * 255, "<script>alert(1)</script>"])
def test_odd_names_are_shown_escaped(text, name):
    run = failed_run(step=name, workflow=name, version=name, queue=name, key=name, error=ValueError(name))
    page = text(run)
    assert "<script>alert" not in page
    assert "Retry from step" in page


def test_row_that_cannot_be_decoded_is_still_a_page(text, known):
    run = make_run(
        "failed", workflow=known(), input_text="{", output_text='{"$": "gone", "v": [1]}', recovery_log_text="["
    )
    run_text = {"output_text": '{"$":"dataclass","of":"gone:Gone","v":{"a":1}}', "attempt_log": "]", "error_text": "!"}
    step = add_step(run, "a", "failed")
    StepRecord.objects.filter(pk=step.pk).update(**run_text)
    WorkflowRun.objects.filter(pk=run.pk).update(error_text='{"no": "record"}')
    page = text(run)
    assert "&quot;a&quot;: 1" in page
    assert "unreadable record" in page


@pytest.mark.parametrize(
    "value", ["\ud800", "\x00", "é\u2028", 10**40, float("nan"), float("inf"), [[[]]], {"$": 1}, b"\xff"]
)
def test_odd_values_are_shown(text, known, value):
    run = make_run(workflow=known(), input=value)
    add_step(run, "a", result=value)
    assert "Input" in text(run)


def test_deep_values_are_shown(text, known):
    deep = "[" * 900 + "]" * 900
    assert "Input" in text(make_run(workflow=known(), input_text=deep))


def test_runs_without_steps_in_every_status_are_a_page(text):
    for status in WorkflowRun.Status.values:
        assert "No step has been recorded yet." in text(make_run(status))


# -- The timeline --------------------------------------------------------------------------------------------


def drawing(client, run):
    return client.get(url("change", run.pk)).context["timeline"]


def test_timeline_gives_each_step_a_bar_in_proportion(root):
    run = make_run(started_at=START, finished_at=START + timedelta(seconds=10))
    add_step(run, "short", started_at=START, finished_at=START + timedelta(seconds=2))
    add_step(run, "long", started_at=START + timedelta(seconds=2), finished_at=START + timedelta(seconds=10))
    short, long = (row.bars[0] for row in drawing(root, run).rows)
    assert (short.kind, short.x, short.width) == ("step", 0, 20)
    assert (long.x, long.width) == (20, 80)


def test_timeline_draws_a_long_sleep_hatched_and_shorter_than_it_was(root):
    end = START + timedelta(days=30)
    run = make_run(started_at=START, finished_at=end + timedelta(seconds=1))
    add_step(run, "work", started_at=START, finished_at=START + timedelta(seconds=1))
    add_step(
        run,
        "nap",
        kind="sleep",
        started_at=START + timedelta(seconds=1),
        finished_at=end,
        wakes_at_us=clock.to_microseconds(end),
    )
    add_step(run, "more", started_at=end, finished_at=end + timedelta(seconds=1))
    timeline = drawing(root, run)
    assert timeline.is_compressed
    work, nap, more = (row.bars[0] for row in timeline.rows)
    assert nap.kind == "sleep"
    assert nap.width == pytest.approx(35, abs=0.1)
    assert work.width == pytest.approx(more.width, abs=0.1) == pytest.approx(32.5, abs=0.1)
    page = root.get(url("change", run.pk)).content.decode()
    assert 'class="steps-bar steps-bar-sleep" fill="url(#steps-hatch)"' in page


def test_timeline_marks_failed_attempts_and_the_waits_between_them(root):
    run = failed_run(started_at=START, finished_at=START + timedelta(seconds=9))
    StepRecord.objects.filter(name="charge").update(
        attempts=3,
        attempt_log=attempt_log(ValueError("one"), ValueError("two")),
        started_at=START + timedelta(seconds=6),
        finished_at=START + timedelta(seconds=7),
    )
    row = drawing(root, run).rows[1]
    assert sorted(bar.kind for bar in row.bars) == ["failed", "failed", "failed", "wait", "wait"]
    assert len(row.marks) == 3
    assert "3 failed attempts" in row.title


def test_timeline_marks_recoveries_in_words_too(root):
    taken = [{"at": clock.to_microseconds(START + timedelta(seconds=5)), "worker": "web-1:99", "step": "charge"}]
    run = make_run(started_at=START, finished_at=START + timedelta(seconds=10), recovery_log_text=json.dumps(taken))
    add_step(run, "charge", started_at=START, finished_at=START + timedelta(seconds=10))
    (recovery,) = drawing(root, run).recovery_log
    assert recovery.x == 50
    page = root.get(url("change", run.pk)).content.decode()
    assert "03:00:05: recovered from web-1:99, which died in step “charge”" in page


def test_timeline_shows_the_step_that_executes_now(root):
    run = make_run("running", current_step="charge")
    add_step(run, "reserve")
    row = drawing(root, run).rows[-1]
    assert (row.label, row.bars[0].kind) == ("charge", "now")


def test_timeline_of_a_clock_that_went_back_is_drawn(root):
    run = make_run(started_at=START, finished_at=START - timedelta(hours=1))
    add_step(run, "a", started_at=START, finished_at=START - timedelta(seconds=5))
    assert len(drawing(root, run).rows) == 1


def test_pages_have_no_inline_script_or_style(root):
    run = failed_run()
    for address in (url("changelist"), url("change", run.pk), url("retry", run.pk), url("overview"), url("start")):
        page = root.get(address).content.decode()
        main = page.partition('id="content-main"')[2].partition('id="changelist-filter"')[0]
        assert main
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", main)


def overdue_run(**columns: object) -> WorkflowRun:
    """A run with a step that is overdue."""
    worker = Worker.objects.create(
        host="here", pid=1, concurrency=1, lease_us=30_000_000, started_at=now(), last_seen_us=0
    )
    said = {
        "token": 7,
        "step": "charge",
        "attempt": 2,
        "since_us": 1_767_225_600_000_000,
        "stack": "line <7> of bank.py",
    }
    columns = {"overdue_text": json.dumps(said), "claim_token": 7, **columns}
    return make_run("running", worker=worker, current_step="charge", **columns)


def test_an_overdue_step_is_shown_with_its_stack(text):
    page = text(overdue_run())
    assert "Step “charge” is overdue since" in page and "line &lt;7&gt; of bank.py" in page


def test_an_overdue_step_of_an_earlier_claim_is_not_shown(text):
    assert "is overdue" not in text(overdue_run(claim_token=8))


def test_a_damaged_note_of_an_overdue_step_is_not_shown(text):
    assert "is overdue" not in text(overdue_run(overdue_text="broken"))


def test_the_timeout_of_a_run_is_shown_with_its_end(text):
    in_an_hour = clock.to_datetime(1_767_225_600_000_000)
    page = text(
        make_run("sleeping", timeout_us=7_200_000_000, expires_at_us=1_767_225_600_000_000, attempting_since_us=1)
    )
    assert "Timeout" in page and "2h, until" in page and in_an_hour.strftime("%Y") in page
    page = text(make_run("pending", start_within_us=600_000_000, timeout_us=7_200_000_000, expires_at_us=10**15))
    assert "Start within" in page and "10m, until" in page and "2h, until" not in page
