"""`retryworkflows`, `cancelworkflows` and `pruneworkflows`: what they change, what they skip, what a rehearsal says."""

from __future__ import annotations

import json
from io import StringIO
from types import SimpleNamespace

import pytest
from django.core.management.base import CommandError
from django.db import connection

from django_steps import signals
from django_steps.ledger import leases, transitions
from django_steps.ledger.tables import RUN
from django_steps.management import bulk
from django_steps.models import StepRecord, WorkflowRun
from tests.app.workflows import sleeper, three_steps
from tests.staging import claim

Status = WorkflowRun.Status


def statuses() -> dict[str, str]:
    return {run.key or str(run.pk): str(run.status) for run in WorkflowRun.objects.order_by("pk")}


@pytest.fixture
def failed(work, shaky):
    """Three failed runs."""
    runs = [shaky.start({"fails": True, "n": n}) for n in range(3)]
    work()
    return runs


# -- Retry ----------------------------------------------------------------------------------------


def test_retry_lets_the_named_runs_go_on(run_command, failed):
    printed = run_command("retryworkflows", str(failed[0].pk), str(failed[1].pk)).out

    assert printed == "2 runs are retried.\n"
    assert list(statuses().values()) == ["pending", "pending", "failed"]


def test_retry_of_all_that_failed_takes_the_workflow_and_the_time_into_account(run_command, failed, pass_time):
    three_steps.start({}).cancel()

    assert "0 runs are retried." in run_command("retryworkflows", "--all-failed", "--workflow", "three_steps").out
    pass_time("2h")
    assert "0 runs are retried." in run_command("retryworkflows", "--all-failed", "--since", "1h").out
    assert "3 runs are retried." in run_command("retryworkflows", "--all-failed", "--since", "3h").out
    assert list(statuses().values()) == ["pending", "pending", "pending", "canceled"]


def test_a_rehearsed_retry_says_what_would_happen_and_changes_nothing(run_command, failed):
    before = list(WorkflowRun.objects.values()), list(StepRecord.objects.values())
    printed = run_command("retryworkflows", "--all-failed", "--dry-run").out

    assert "3 runs would be retried." in printed
    assert f"{failed[0].pk}  shaky     failed  second: ValueError: it fails" in printed
    assert (list(WorkflowRun.objects.values()), list(StepRecord.objects.values())) == before


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]], ids=["for real", "rehearsed"])
def test_a_refused_retry_is_skipped_with_its_reason(run_command, failed, compensated, arguments):
    printed = run_command("retryworkflows", "--all-failed", *arguments).out

    would = "would be " if arguments else ""
    assert printed.startswith("3 runs would be retried." if arguments else "3 runs are retried.")
    assert f"1 {would}skipped:" in printed
    assert f"{compensated.pk}  The failure of step 'ship' was handled: 'refund' ran after it." in printed


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]], ids=["for real", "rehearsed"])
def test_a_refused_retry_of_one_named_run_is_an_error(run_command, db, arguments):
    run = three_steps.start({})
    with pytest.raises(CommandError, match=f"Run {run.pk} can't be retried: it is pending"):
        run_command("retryworkflows", str(run.pk), *arguments)


def test_some_refused_among_named_runs_are_reported_and_an_error(run_command, failed):
    three_steps.start({}, key="fresh")
    with pytest.raises(CommandError, match=r"1 of 2 runs were skipped\."):
        run_command("retryworkflows", str(failed[0].pk), str(WorkflowRun.objects.get(key="fresh").pk))
    failed[0].refresh_from_db()
    assert failed[0].status == "pending"


def test_nothing_is_retried_when_one_of_the_ids_is_unknown(run_command, failed):
    with pytest.raises(CommandError, match="There is no run 00000000-"):
        run_command("retryworkflows", str(failed[0].pk), "00000000-0000-0000-0000-000000000000")
    assert set(statuses().values()) == {"failed"}


def test_retry_from_a_step_forgets_it_and_all_after_it(run_command, failed):
    run = failed[0]
    assert "1 run is retried." in run_command("retryworkflows", str(run.pk), "--from-step", "first").out
    assert not run.steps.exists()


def test_retry_from_an_unknown_step_lists_the_recorded_ones(run_command, failed):
    with pytest.raises(CommandError, match="Recorded are: 'first', 'second'"):
        run_command("retryworkflows", str(failed[0].pk), "--from-step", "third")
    assert set(statuses().values()) == {"failed"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "Nothing was done: all 3 runs were skipped."),
        (["--dry-run"], "Nothing would be done: all 3 runs would be skipped."),
    ],
    ids=["for real", "rehearsed"],
)
def test_a_retry_that_is_refused_to_all_selected_runs_is_an_error(type_command, failed, arguments, error):
    typed = type_command("retryworkflows", "--all-failed", "--from-step", "nope", *arguments)

    assert (typed.code, typed.err) == (1, f"CommandError: {error}\n")
    assert f"  {failed[0].pk}  has recorded no step 'nope'. Recorded are: 'first', 'second'." in typed.out
    assert set(statuses().values()) == {"failed"}


def test_a_retry_that_is_refused_to_the_only_selected_run_says_why(type_command, compensated):
    typed = type_command("retryworkflows", "--all-failed")
    assert (typed.code, typed.out) == (1, "")
    assert typed.err.startswith("CommandError: The failure of step 'ship' was handled: 'refund' ran after it.")
    assert len(typed.err.splitlines()) == 1


def test_quietly_it_is_an_error_all_the_same(type_command, failed):
    typed = type_command("retryworkflows", "--all-failed", "--from-step", "nope", "-v", "0")
    assert typed == (1, "", "CommandError: Nothing was done: all 3 runs were skipped.\n")


@pytest.mark.parametrize(
    "command", [["retryworkflows", "--all-failed"], ["cancelworkflows", "--workflow", "three_steps"]]
)
def test_a_selection_without_runs_is_no_error(type_command, command):
    assert type_command(*command).code == 0


def test_a_run_whose_error_cannot_be_read_is_retried_all_the_same(run_command, failed):
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {RUN} SET error = 'broken'")
    assert "3 runs are retried." in run_command("retryworkflows", "--all-failed").out


def test_bulk_work_is_done_in_batches_and_each_run_once(run_command, db, monkeypatch):
    monkeypatch.setattr(bulk, "BATCH", 2)
    three_steps.start_many([{}] * 5)
    assert run_command("cancelworkflows", "--workflow", "three_steps").out == "5 runs are canceled.\n"
    ids = [str(run.pk) for run in WorkflowRun.objects.all()]
    assert run_command("retryworkflows", *ids).out == "5 runs are retried.\n"
    assert set(statuses().values()) == {"pending"}


# -- Cancel ---------------------------------------------------------------------------------------


SELECTING = [["retryworkflows", "--all-failed"], ["cancelworkflows"], ["showworkflows"]]


@pytest.mark.parametrize("command", SELECTING, ids=lambda command: command[0])
def test_a_workflow_that_neither_the_code_nor_a_run_has_is_pointed_out_with_the_known_ones(run_command, db, command):
    with pytest.raises(CommandError) as raised:
        run_command(*command, "--workflow", "three_stpes")
    assert str(raised.value).startswith("Unknown workflow 'three_stpes', and no run has that name. Known are: ")
    assert "three_steps" in str(raised.value)


@pytest.mark.parametrize("command", SELECTING, ids=lambda command: command[0])
def test_a_workflow_that_the_code_or_a_run_has_is_not_pointed_out(run_command, db, command):
    run = three_steps.start({})
    WorkflowRun.objects.filter(pk=run.pk).update(workflow="removed_from_the_code")
    for name in ("three_steps", "removed_from_the_code"):
        assert run_command(*command, "--workflow", name).err == ""


def test_cancel_ends_the_named_runs(run_command, db):
    run, other = three_steps.start({}), three_steps.start({})
    assert run_command("cancelworkflows", str(run.pk)).out == "1 run is canceled.\n"
    assert [WorkflowRun.objects.get(pk=some.pk).status for some in (run, other)] == ["canceled", "pending"]


def test_reason_of_a_cancel_is_kept_and_shown(run_command, db):
    run = three_steps.start({})
    run_command("cancelworkflows", str(run.pk), "--reason", "wrong file")
    assert WorkflowRun.objects.get().cancel_reason == "wrong file"
    assert "canceled, wrong file" in run_command("showworkflows", str(run.pk)).out
    assert json.loads(run_command("showworkflows", str(run.pk), "--json").out)["cancel_reason"] == "wrong file"


def test_cancel_of_a_run_that_a_worker_executes_makes_it_canceling(run_command, transactional_db):
    run = three_steps.start({})
    claimed = claim(run)
    leases.enter_step(connection, run.pk, claimed.token, "first")
    for _ in range(2):
        run_command("cancelworkflows", str(run.pk), "--reason", "wrong file")
    assert WorkflowRun.objects.get().status == "canceling"
    detail = run_command("showworkflows", str(run.pk)).out
    assert "canceling, now: first" in detail and "wrong file" in detail and "a-host:4711" in detail
    assert str(run.pk) in run_command("showworkflows", "--status", "canceling").out
    with pytest.raises(CommandError, match="it is canceling, and worker a-host:4711 still executes step 'first'"):
        run_command("retryworkflows", str(run.pk))
    run_command("pruneworkflows", "--noinput", "--older-than", "0s")
    assert WorkflowRun.objects.exists()
    transitions.release(connection, run.pk, claimed.token)
    assert json.loads(run_command("showworkflows", str(run.pk), "--json").out)["status"] == "canceled"


def test_cancel_of_a_workflow_takes_only_runs_of_the_status(run_command, work):
    asleep = sleeper.start({"duration": "1h"})
    work()
    waiting = sleeper.start({"duration": "1h"})
    other = three_steps.start({})

    arguments = ["cancelworkflows", "--workflow", "sleeper", "--status", "sleeping"]
    assert "1 run would be canceled." in run_command(*arguments, "--dry-run").out
    assert WorkflowRun.objects.get(pk=asleep.pk).status == "sleeping"
    assert "1 run is canceled." in run_command(*arguments).out
    found = [WorkflowRun.objects.get(pk=run.pk).status for run in (asleep, waiting, other)]
    assert found == ["canceled", "pending", "pending"]


def test_cancel_of_a_finished_run_is_an_error_with_its_status(run_command, work):
    run = three_steps.start({})
    work()
    with pytest.raises(CommandError, match=f"Run {run.pk} can't be canceled: it has succeeded"):
        run_command("cancelworkflows", str(run.pk))


def test_a_cancel_that_comes_too_late_for_all_selected_runs_is_an_error(run_command, work, monkeypatch):
    """They end after they were selected and before it is their turn."""
    three_steps.start_many([{}] * 2)
    batches = bulk._batches

    def slow_batches(runs):
        for batch in batches(runs):
            work()
            yield batch

    monkeypatch.setattr(bulk, "_batches", slow_batches)
    with pytest.raises(CommandError, match=r"^Nothing was done: all 2 runs were skipped\.$"):
        run_command("cancelworkflows", "--workflow", "three_steps")
    assert set(statuses().values()) == {"succeeded"}


def test_canceling_twice_is_quiet(run_command, db):
    run = three_steps.start({})
    for _ in range(2):
        run_command("cancelworkflows", str(run.pk))
    assert WorkflowRun.objects.get().status == "canceled"


@pytest.mark.parametrize(("arguments", "heard"), [([], 2), (["--dry-run"], 0)], ids=["for real", "rehearsed"])
def test_canceling_many_sends_a_signal_for_each(run_command, transactional_db, arguments, heard):
    runs = []

    def hear(run, **kwargs):
        runs.append(run)

    three_steps.start_many([{}] * 2)
    signals.run_canceled.connect(hear, sender=WorkflowRun)
    try:
        run_command("cancelworkflows", "--workflow", "three_steps", *arguments)
    finally:
        signals.run_canceled.disconnect(hear, sender=WorkflowRun)
    assert len(runs) == heard


# -- Prune ----------------------------------------------------------------------------------------


@pytest.fixture
def old_runs(work, shaky, pass_time):
    """Two runs that succeeded, one that failed and one that sleeps, all older than an hour; and a fresh canceled one."""
    for key, fails in (("s1", False), ("s2", False), ("f1", True)):
        shaky.start({"fails": fails}, key=key)
    sleeper.start({"duration": "30d"}, key="asleep")
    work()
    pass_time("2h")
    three_steps.start({}, key="fresh").cancel()


def test_prune_deletes_what_ended_long_ago_with_its_steps(run_command, old_runs):
    printed = run_command("pruneworkflows", "--noinput", "--older-than", "1h").out

    assert printed.startswith("3 runs that ended before ")
    assert "are deleted (2 succeeded, 1 failed)" in printed
    assert statuses() == {"asleep": "sleeping", "fresh": "canceled"}
    assert set(StepRecord.objects.values_list("run__workflow", flat=True)) == {"sleeper"}


def test_prune_is_quiet_if_told_so(run_command, old_runs):
    assert run_command("pruneworkflows", "--noinput", "--older-than", "1h", "-v", "0") == ("", "")
    assert statuses() == {"asleep": "sleeping", "fresh": "canceled"}


def test_prune_takes_only_the_given_statuses(run_command, old_runs):
    run_command("pruneworkflows", "--noinput", "--older-than", "1h", "--status", "failed", "--status", "canceled")
    assert statuses() == {"s1": "succeeded", "s2": "succeeded", "asleep": "sleeping", "fresh": "canceled"}


def test_a_rehearsed_prune_counts_and_deletes_nothing(run_command, old_runs):
    printed = run_command("pruneworkflows", "--older-than", "1h", "--dry-run").out
    assert printed.startswith("3 runs that ended before ")
    assert "would be deleted (2 succeeded, 1 failed)" in printed
    assert len(statuses()) == 5


def test_prune_says_when_there_is_nothing_to_delete(run_command, old_runs):
    assert "There are no such runs" in run_command("pruneworkflows", "--older-than", "1d").out
    assert len(statuses()) == 5


@pytest.fixture
def terminal(monkeypatch):
    """Somebody at a terminal, who types this: `terminal("yes")`."""

    def answer_with(text):
        def answer(_prompt):
            if text is None:
                raise EOFError
            return text

        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr("builtins.input", answer)

    return answer_with


@pytest.mark.parametrize("text", ["", "no", "y", None])
def test_prune_keeps_everything_unless_somebody_says_yes(run_command, old_runs, terminal, text):
    terminal(text)
    with pytest.raises(CommandError, match="Nothing was deleted"):
        run_command("pruneworkflows", "--older-than", "1h")
    assert len(statuses()) == 5


def test_prune_deletes_when_somebody_says_yes(run_command, old_runs, terminal):
    terminal("yes")
    printed = run_command("pruneworkflows", "--older-than", "1h").out
    assert "would be deleted (2 succeeded, 1 failed)" in printed and "are deleted (2 succeeded, 1 failed)" in printed
    assert len(statuses()) == 2


def test_prune_without_a_terminal_needs_noinput(run_command, old_runs, monkeypatch):
    monkeypatch.setattr("sys.stdin", StringIO("yes\n"))
    with pytest.raises(CommandError, match="Say --dry-run, or --noinput"):
        run_command("pruneworkflows", "--older-than", "1h")
    assert len(statuses()) == 5
