"""The admin and the command line say the same of the same run."""

from __future__ import annotations

import contextlib
import enum
import html
import json
import re
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any, NamedTuple

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.utils import timezone

from django_steps import RetryPolicy, Workflow, failures, workflow
from django_steps.core import clock
from django_steps.ledger.recovery import KEPT
from django_steps.models import StepRecord, WorkflowRun
from testproject.shop.models import Customer
from tests.admin.conftest import START, add_step, error_of, make_run, root, url
from tests.app.workflows import sleeper
from tests.commands.conftest import run_command

__all__ = ["root", "run_command"]  # fixtures


class Color(enum.Enum):
    RED = "r"


class Shown(NamedTuple):
    """What the pages and the commands say of one run, without markup."""

    list: str
    page: str
    table: str
    detail: str
    json: dict[str, Any]

    @property
    def texts(self) -> tuple[str, ...]:
        return self[:4]


@pytest.fixture
def show(root: Client, run_command: Callable[..., Any]) -> Callable[[WorkflowRun], Shown]:
    def read(address: str) -> str:
        main = root.get(address).content.decode().partition('id="content-main"')[2]
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", main)).split())

    def show(run: WorkflowRun) -> Shown:
        return Shown(
            read(url("changelist")),
            read(url("change", run.pk)),
            " ".join(run_command("showworkflows").out.split()),
            " ".join(run_command("showworkflows", str(run.pk)).out.split()),
            json.loads(run_command("showworkflows", str(run.pk), "--json").out),
        )

    return show


@pytest.fixture
def order() -> Workflow:
    @workflow(mask=("token",))
    def order(input): ...

    return order


@pytest.mark.parametrize("value", [{"color": Color.RED}, {"tags": {"a"}, "none": None}, timedelta(hours=1), "é\ud800"])
def test_values_are_shown_alike(show, order, value):
    run = make_run(workflow="order", input=value, output_text=json.dumps({"token": "s3cret"}))
    add_step(run, "pick", result=value)
    shown = show(run)
    text = json.dumps(shown.json["input"], ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    assert text.strip('{}[]"') in shown.page
    assert text in shown.detail
    assert shown.json["input"] == shown.json["steps"][0]["output"]
    assert shown.json["output"] == {"token": "********"}
    assert not any("s3cret" in part for part in shown.texts)


def test_enum_is_its_name(show, order):
    shown = show(make_run(workflow="order", input={"color": Color.RED}))
    assert shown.json["input"] == {"color": "Color.RED"}
    assert '"color": "Color.RED"' in shown.page
    assert '{"color": "Color.RED"}' in shown.detail


def test_row_that_was_deleted_is_still_named(show, order):
    customer = Customer.objects.create(name="Ada", email="ada@example.com", device_token="phone")
    run = make_run(workflow="order", input={"customer": customer})
    pk = customer.pk
    customer.delete()
    shown = show(run)
    assert shown.json["input"] == {"customer": {"model": "shop.Customer", "pk": pk}}
    assert f'{{"customer": {{"model": "shop.Customer", "pk": {pk}}}}}' in shown.detail
    assert '"model": "shop.Customer"' in shown.page


def test_class_that_is_gone_is_still_read(show, order):
    run = make_run(workflow="order", input_text='{"$":"dataclass","of":"gone:Gone","v":{"a":1,"token":"x"}}')
    shown = show(run)
    assert shown.json["input"] == {"a": 1, "token": "********"}
    assert '"token": "********"' in shown.page


def test_text_that_is_no_record_is_said_to_be_unreadable(show, order):
    shown = show(make_run(workflow="order", input_text="{token: s3cret"))
    assert shown.json["input"] == {"unreadable": "This value can't be read."}
    assert all("This value can't be read." in text for text in (shown.page, shown.detail))


def test_everything_is_hidden_where_the_workflow_is_unknown(show):
    shown = show(make_run(workflow="gone", input={"order_id": 12345, "token": "s3cret"}))
    assert shown.json["input"] == {"order_id": "********", "token": "********"}
    assert not any("s3cret" in text or "12345" in text for text in shown.texts)


@pytest.mark.parametrize("column", [0, 1])
def test_recoveries_are_those_of_the_log(show, column):
    entries = [{"at": clock.to_microseconds(START), "worker": f"web-{number}:7", "step": ""} for number in range(3)]
    shown = show(make_run("running", recoveries=column, recovery_log_text=json.dumps(entries)))
    assert "3 recoveries" in shown.list
    assert "Recoveries 3 " in shown.page
    assert "recoveries 3 " in shown.detail
    assert shown.json["recoveries"] == len(shown.json["recovery_log"]) == 3


def test_full_log_of_recoveries_is_said_to_be_cut(show):
    entries = [{"at": clock.to_microseconds(START), "worker": "web-1:7", "step": "charge"}] * KEPT
    shown = show(make_run("running", recovery_log_text=json.dumps(entries), current_step="charge"))
    assert f"{KEPT} or more recoveries" in shown.list
    assert f"recoveries {KEPT} or more" in shown.detail
    line = "recovered from web-1:7, which died in step “charge”"
    assert line in shown.page
    assert line in shown.detail


@pytest.mark.parametrize(
    ("after", "where"),
    [("charge", "after step “charge”"), ("", "before any step was recorded")],
    ids=["after", "before"],
)
def test_a_recovery_at_an_unknown_step_says_what_is_known(show, after, where):
    entry = {"at": clock.to_microseconds(START), "worker": "web-1:7", "step": "", "after": after}
    shown = show(make_run("running", recovery_log_text=json.dumps([entry]), current_step="ship"))
    line = f"recovered from web-1:7, which died {where}"
    assert line in shown.page
    assert line in shown.detail


def test_log_of_recoveries_that_cannot_be_read_leaves_the_column(show):
    shown = show(make_run("running", recoveries=2, recovery_log_text="["))
    assert "2 recoveries" in shown.list
    assert "recoveries 2 " in shown.detail
    assert shown.json["recoveries"] == 2


@pytest.mark.parametrize(("seconds", "is_overdue"), [(50, False), (70, True)])
def test_run_is_overdue_after_the_same_time(root, live_worker, seconds, is_overdue):
    live_worker()
    make_run("pending", created_at=timezone.now() - timedelta(seconds=seconds))
    checked = json.loads(run_check())
    page = root.get(url("overview")).content.decode()
    assert (not checked["ok"]) is is_overdue
    assert ("A run has been waiting for a worker for 1m 10s." in page) is is_overdue


def run_check() -> str:
    """What the health check prints, whether it finds a problem or not."""
    out = StringIO()
    with contextlib.suppress(CommandError):
        call_command("showworkflows", "--check", "--json", stdout=out, skip_checks=True)
    return out.getvalue()


def test_status_and_duration_of_steps_are_alike(show, work, pass_time):
    run = sleeper.start({"duration": "30d"})
    work()
    pass_time("2h")
    run.cancel()
    shown = show(run)
    assert re.search(r"nap sleep canceled \S+( \S+)? 2h 00m", shown.detail)
    assert re.search(r"nap .*canceled .* 2h 00m", shown.page)


def test_attempts_are_counted_alike(show, work):
    @workflow
    def flaky(input, step):
        step.define("call", lambda: _no_answer(), retry=RetryPolicy(max_attempts=3, initial_interval=0)).run()

    run = flaky.start({})
    work()
    run.retry()
    work()
    shown = show(run)
    for text in (shown.page, shown.detail):
        assert "3 (+3 earlier)" in text
        assert text.lower().count("attempt 2, before a retry") == 1
        assert "ConnectionError: no answer" in text


def _no_answer():
    raise ConnectionError("no answer")


def test_log_of_attempts_that_cannot_be_read_is_said_so(show):
    run = make_run("failed", error_text=error_of(ValueError("x"), "charge"))
    add_step(run, "charge", "failed", error_text=failures.record(ValueError("x")))
    StepRecord.objects.update(attempt_log="]")
    shown = show(run)
    assert "Earlier attempts: unreadable record" in shown.page
    assert "charge, earlier attempts: unreadable record" in shown.detail


def test_what_a_run_does_now_is_said_alike(show):
    columns = {"current_step": "charge", "progress_done": 37, "progress_total": 100}
    shown = show(make_run("running", **columns))
    assert all("now: charge" in text and "37 of 100" in text for text in shown.texts)
    WorkflowRun.objects.all().delete()
    due = START + timedelta(days=3000)
    shown = show(make_run("sleeping", available_at_us=clock.to_microseconds(due)))
    assert all(f"waits until {due:%Y-%m-%d %H:%M:%S}" in text for text in shown.texts)


def test_why_a_run_failed_is_said_alike(show):
    shown = show(make_run("failed", error_text=error_of(ValueError("card\ndeclined"), "charge")))
    assert "ValueError: card declined" in shown.list
    assert "charge: ValueError: card declined" in shown.table
    assert "charge: ValueError: card declined" in shown.detail


def test_unknown_run_is_called_so(show):
    shown = show(make_run("pending", phase=WorkflowRun.Phase.UNKNOWN))
    assert all("no worker knows this workflow" in text for text in (shown.list, shown.table, shown.detail))
    assert "No worker knows this workflow" in shown.page


def test_result_of_a_run_that_was_waited_for_is_shown_as_elsewhere(run_command, order, db):
    make_run(workflow="order", key="k", output_text='{"color":{"$":"Enum","of":"a:Color","v":"RED"},"token":"x"}')
    printed = run_command("startworkflow", "order", "--key", "k", "--wait").out
    assert json.loads(printed) == {"color": "Color.RED", "token": "********"}
