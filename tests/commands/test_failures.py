"""Failures by kind: `showworkflows --failures`, and `--error` and `--step` of the commands that choose runs."""

from __future__ import annotations

import json

import pytest
from django.core.management.base import CommandError

from django_steps import workflow
from django_steps.models import WorkflowRun
from tests.app.workflows import tiny

pytestmark = pytest.mark.django_db(transaction=True)

HERE = "tests.commands.test_failures"


class Declined(Exception):
    pass


class Lost(Exception):
    pass


@workflow
def failures_order(input, step):
    def order(number, step):
        step.define("charge", lambda: _fail(input["error"])).run()

    step.map("order", order, input["orders"])


@workflow
def failures_import(input):
    _fail("Lost")


def _fail(error: str | None) -> None:
    if error:
        raise {"Declined": Declined, "Lost": Lost}[error]("no")


@pytest.fixture
def night(work):
    """What failed: four runs in a step of a map, one of them by another error, and one in the body."""
    inputs = [{"error": "Declined", "orders": [number]} for number in (17, 18, 18)]
    runs = failures_order.start_many([*inputs, {"error": "Lost", "orders": [17]}])
    runs.append(failures_import.start({}))
    work()
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"failed"}
    return runs


def retried(runs) -> list[int]:
    """Which of the runs are pending again."""
    pending = set(WorkflowRun.objects.pending().values_list("pk", flat=True))
    return [number for number, run in enumerate(runs) if run.pk in pending]


def test_failures_are_counted_by_kind(run_command, night):
    lines = run_command("showworkflows", "--failures").out.splitlines()
    assert [line.split()[:4] for line in lines[:2]] == [
        ["RUNS", "WORKFLOW", "ERROR", "STEP"],
        ["3", "failures_order", "Declined", "order/charge"],
    ]
    assert sorted(line.split()[:4] for line in lines[2:4]) == [
        ["1", "failures_import", "Lost", "-"],
        ["1", "failures_order", "Lost", "order/charge"],
    ]
    assert lines[5].endswith(f" retryworkflows --workflow failures_order --error {HERE}.Declined --step order/charge")


def test_failures_as_json_name_the_whole_path_of_the_error(run_command, night):
    found = json.loads(run_command("showworkflows", "--failures", "--json", "--workflow", "failures_import").out)
    night[4].refresh_from_db()
    assert found == [
        {
            "workflow": "failures_import",
            "error_type": f"{HERE}.Lost",
            "failed_step": "",
            "runs": 1,
            "last_failed_at": night[4].finished_at.isoformat(),
        }
    ]


def test_only_what_failed_lately_is_counted_and_proposed(run_command, night, pass_time, work):
    pass_time("2h")
    night[3].retry()
    work()
    out = run_command("showworkflows", "--failures", "--since", "1h").out
    assert [line.split()[0] for line in out.splitlines() if line] == ["RUNS", "1", "Retry"]
    assert out.endswith(f"--error {HERE}.Lost --step order/charge --since 1h\n")


def test_kinds_beyond_the_limit_are_counted(run_command, night):
    assert "… and 2 more" in run_command("showworkflows", "--failures", "--limit", "1").out


def test_nothing_that_failed_is_said(run_command, work):
    tiny.start({})
    work()
    assert run_command("showworkflows", "--failures").out == "No run has failed.\n"


@pytest.mark.parametrize(
    ("chosen", "numbers"),
    [
        (["--error", "Declined"], [0, 1, 2]),
        (["--error", f"{HERE}.Declined"], [0, 1, 2]),
        (["--error", "declined"], []),
        (["--error", "test_failures.Declined"], []),
        (["--error", "Lost"], [3, 4]),
        (["--step", "order/charge"], [0, 1, 2, 3]),
        (["--step", "order#17/charge"], [0, 3]),
        (["--step", "order#1/charge"], []),
        (["--step", "charge"], []),
        (["--step", ""], [4]),
        (["--error", "Lost", "--step", "order/charge"], [3]),
        (["--error", "Lost", "--workflow", "failures_import"], [4]),
        (["--error", "Declined", "--step", "order#18/charge", "--since", "1h"], [1, 2]),
    ],
    ids=str,
)
def test_runs_of_one_kind_are_retried(run_command, night, chosen, numbers):
    shown = run_command("showworkflows", "--json", *(chosen[:-2] if "--since" in chosen else chosen)).out
    assert {run["id"] for run in json.loads(shown)} == {str(night[number].pk) for number in numbers}
    out = run_command("retryworkflows", *chosen).out
    assert out == f"{len(numbers)} run{' is' if len(numbers) == 1 else 's are'} retried.\n"
    assert retried(night) == numbers


def test_kind_can_be_rehearsed(run_command, night):
    out = run_command("retryworkflows", "--error", "Declined", "--dry-run").out
    assert out.startswith("3 runs would be retried.")
    assert retried(night) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["retryworkflows", "--all-failed", "--error", "Lost"], "Give --all-failed, or --error and --step, not both."),
        (["retryworkflows", "01a21a4d-04ec-724e-b032-e85c78e9c1a9", "--step", "x"], "Give RUN_IDs, or --all-failed"),
        (["retryworkflows", "--since", "1h"], "Say which runs"),
        (["showworkflows", "--failures", "--status", "failed"], "--failures takes --workflow"),
        (["showworkflows", "--failures", "--error", "Lost"], "--failures takes --workflow"),
        (["showworkflows", "--failures", "--workflow", "failures_odrer"], "Unknown workflow 'failures_odrer'"),
        (["showworkflows", "--since", "1h"], "--since takes --failures"),
        (["showworkflows", "--check", "--error", "Lost"], "--check looks at everything"),
        (["showworkflows", "01a21a4d", "--step", "x"], "Give a RUN, or options"),
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(run_command, arguments, text):
    with pytest.raises(CommandError, match=text):
        run_command(*arguments)
