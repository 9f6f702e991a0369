"""Steps that an async body has canceled: how the page of a run and `showworkflows` show them, and what a retry says of them."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from html import unescape

import pytest

from django_steps.models import WorkflowRun
from tests.commands.conftest import run_command

from .conftest import START, add_poll, add_step, attempt_log, error_of, failed_run, make_run, url

__all__ = ["run_command"]  # fixtures
pytestmark = pytest.mark.django_db(transaction=True)


def canceled_run(status="failed", **columns):
    """A branch with a canceled step, a canceled map, a canceled sleep and poll, and a plan B that came after all of them."""
    text = error_of(ValueError("no plan c"), "plan-b")
    run = make_run(status, **{"error_text": text if status == "failed" else None, **columns})
    inside, item = [("x", "")], [("order#2", "order")]
    add_step(run, "x/a", inside=inside)
    add_step(run, "x/b", "canceled", inside=inside, attempt_log=attempt_log(OSError("no answer")), attempts=2)
    add_step(run, "x", "canceled", kind="branch")
    add_step(run, "order#1", group="order")
    add_step(run, "order#2/charge", "canceled", inside=item)
    add_step(run, "order#2", "canceled", kind="branch", group="order")
    add_step(run, "order", "canceled", kind="map")
    later = START + timedelta(hours=9)
    add_step(
        run, "nap", kind="sleep", status="canceled", finished_at=START + timedelta(seconds=9), wakes_at_us=_us(later)
    )
    add_poll(run, "ask", checks=12, value=None, status="canceled", output_text=None)
    add_step(run, "plan-b", "failed" if status == "failed" else "succeeded", error_text=run.error_text)
    return run


def _us(moment):
    return int(moment.timestamp() * 1_000_000)


def timed_out_run(*canceled, **columns):
    """A run that a `TimeoutError` ended: it had canceled these steps."""
    run = make_run("failed", error_text=error_of(TimeoutError()), **columns)
    add_step(run, "first")
    for name in canceled:
        add_step(run, name, "canceled", after=0)
    return run


def words(html):
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


@pytest.mark.parametrize("status", ["failed", "succeeded", "running"])
def test_a_canceled_step_is_shown_as_canceled_whatever_becomes_of_its_run(root, status):
    context = root.get(url("change", canceled_run(status).pk)).context
    by_name = {row.name: row for row in context["steps"]}
    assert {name for name, row in by_name.items() if ">canceled<" in row.status} == {"x", "order", "nap", "ask"}
    assert [row.name for row in by_name["x"].fold.rows if ">canceled<" in row.status] == ["b"]
    assert by_name["order"].fold.counts == "1 succeeded, 1 canceled of 2 that began"
    assert by_name["x"].fold.rows[1].attempts == "2" and by_name["x"].fold.rows[1].failures[0].label == "Attempt 1"
    assert by_name["ask"].attempts == "12 checks" and not by_name["ask"].is_last_value


def test_the_page_draws_it_quietly_and_says_what_the_bars_are(root):
    page = root.get(url("change", canceled_run().pk)).content.decode()
    assert page.count("steps-status-canceled") == 7
    assert "steps-bar-canceled" in page and "steps-row-canceled" in page
    drawing = words(page.partition("steps-timeline")[2].partition("</section>")[0])
    assert "1 failed attempt" in drawing  # that of `x/b`: being canceled is none
    assert re.search(r"failed attempt canceled( |$)", drawing)
    quiet = root.get(url("change", failed_run().pk)).content.decode()
    assert "steps-bar-canceled" not in quiet


def test_a_canceled_sleep_is_drawn_to_its_cancel(root):
    timeline = root.get(url("change", canceled_run("running", started_at=START).pk)).context["timeline"]
    (row,) = [row for row in timeline.rows if row.label == "nap"]
    assert row.note == "2.00 s" and [bar.kind for bar in row.bars] == ["sleep"]


def test_showworkflows_shows_the_same(run_command):
    run = canceled_run()
    lines = [line.split() for line in run_command("showworkflows", str(run.pk)).out.splitlines()]
    shown = {line[0]: line[1:3] for line in lines if line[2:3] in (["canceled"], ["succeeded"], ["failed"])}
    assert shown == {
        "x": ["branch", "canceled"],
        "a": ["step", "succeeded"],
        "b": ["step", "canceled"],
        "order": ["map", "canceled"],
        "order#2": ["branch", "canceled"],
        "charge": ["step", "canceled"],
        "order#1": ["step", "succeeded"],
        "nap": ["sleep", "canceled"],
        "ask": ["poll", "canceled"],
        "plan-b": ["step", "failed"],
    }
    counts = next(line for line in lines if line[:1] == ["order"])
    assert counts[-8:] == ["1", "succeeded,", "1", "canceled", "of", "2", "that", "began"]
    assert next(line for line in lines if line[:1] == ["nap"])[-2:] == [
        "2.00",
        "s",
    ]  # and nothing of when it would wake
    (found,) = [
        s for s in json.loads(run_command("showworkflows", str(run.pk), "--json").out)["steps"] if s["name"] == "nap"
    ]
    assert (found["status"], found["finished_at"], found["error"]) == ("canceled", "2026-03-01T03:00:09+00:00", None)


# -- What a retry says -------------------------------------------------------------------------------


def ask(client, run, path=None):
    page = client.get(url("retry", run.pk), {"from_step": path} if path else {}).content.decode()
    return [words(line) for line in re.findall(r"<p>(.*?)</p>", page.partition('id="content-main"')[2])]


def test_a_retry_says_that_it_executes_again_what_a_timeout_broke_off(root):
    run = timed_out_run("a", "b")
    kept = "The result of 1 other step is kept: it is not executed again."
    assert ask(root, run) == ["The run continues with the steps “a”, “b”.", kept]
    response = root.post(url("retry", run.pk), follow=True)
    assert "Retried: the run continues with the steps “a”, “b”." in unescape(response.content.decode())
    assert list(run.steps.values_list("name", flat=True)) == ["first"]


def test_a_retry_says_what_was_canceled_beside_the_failure_and_what_stays_canceled(root):
    run = canceled_run()
    add_step(run, "c", "canceled", after=8)
    assert ask(root, run) == [
        "The run continues with step “plan-b”.",
        "What the body had canceled is executed again, too (1 step).",
        "The results of 2 other steps are kept: they are not executed again.",
        "What the body had canceled before it went on stays canceled (3 steps, 1 sleep).",
    ]


def test_a_retry_from_a_canceled_step_says_what_it_does(root):
    run = timed_out_run("a", "b")
    assert ask(root, run, "a") == [
        "Step “a” is reset and executed again.",
        "What the body had canceled is executed again, too (1 step).",
        "The result of 1 other step is kept: it is not executed again.",
    ]
    root.post(url("retry", run.pk), {"from_step": "a"})
    assert list(run.steps.values_list("name", flat=True)) == ["first"]


@pytest.mark.parametrize("path", ["x", "x/b", "order", "order#2", "order#2/charge", "nap", "ask", "plan-b"])
def test_every_row_can_be_retried_from(root, path):
    run = canceled_run()
    assert ask(root, run, path)
    root.post(url("retry", run.pk), {"from_step": path})
    run.refresh_from_db()
    assert run.status == "pending" and not run.steps.filter(name=path).exists()


def test_the_bulk_page_says_with_what_such_runs_continue(root):
    stays = timed_out_run("plan-a")
    add_step(stays, "plan-b")
    runs = [timed_out_run("a", "b"), timed_out_run("a"), stays]
    data = {"action": "retry", "_selected_action": [str(run.pk) for run in runs], "index": "0"}
    page = words(root.post(url("changelist"), data).content.decode())
    assert "2 runs of three_steps continue with step “a”." in page
    assert "1 run of three_steps has its body called again, and no recorded step is executed again." in page


def test_a_canceled_step_is_no_failure_in_the_list_and_the_counts(root):
    run = timed_out_run("a")
    page = root.get(url("changelist"))
    assert "TimeoutError" in page.content.decode()
    assert WorkflowRun.objects.failed().get() == run
    assert root.get(url("change", run.pk)).status_code == 200
