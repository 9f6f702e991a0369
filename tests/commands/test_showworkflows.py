"""`showworkflows`: the list, one run in detail, JSON; also of rows that can't be read."""

from __future__ import annotations

import json
from datetime import datetime
from uuid import UUID

import pytest
from django.core.management.base import CommandError
from django.db import connection

from django_steps import RetryPolicy, workflow
from django_steps.ledger.tables import RUN, STEP
from django_steps.management.finding import find
from django_steps.models import WorkflowRun
from tests.app.workflows import sleeper, three_steps


def test_an_empty_database_is_told_what_to_type(run_command, db):
    assert "There are no runs yet. Start one with:" in run_command("showworkflows").out
    assert run_command("showworkflows", "--status", "failed").out == "No runs match.\n"
    assert json.loads(run_command("showworkflows", "--json").out) == []


def test_the_list_shows_the_newest_first(run_command, db):
    runs = [three_steps.start({}), sleeper.start({}), three_steps.start({}, delay="1h")]
    lines = run_command("showworkflows").out.splitlines()

    assert lines[0].split() == ["RUN", "WORKFLOW", "STATUS", "CREATED", "DURATION"]
    assert [line.split()[0] for line in lines[1:]] == [str(run.pk) for run in reversed(runs)]
    assert "until " in lines[1]


def test_the_list_aligns_its_columns(run_command, db):
    for queue in ("a", "b"):
        three_steps.start({}, queue=queue)
        sleeper.start({}, queue=queue)
    lines = run_command("showworkflows").out.splitlines()
    assert {line.index("pending") for line in lines[1:]} == {lines[0].index("STATUS")}


def test_the_list_is_filtered_by_status_and_workflow(run_command, db):
    three_steps.start({}).cancel()
    wanted = three_steps.start({})
    sleeper.start({})
    printed = run_command("showworkflows", "--workflow", "three_steps", "--status", "pending", "--json").out
    assert [run["id"] for run in json.loads(printed)] == [str(wanted.pk)]


def test_a_list_that_was_cut_says_how_to_see_more(run_command, db):
    three_steps.start_many([{}] * 3)
    printed = run_command("showworkflows", "--limit", "2").out

    assert len(printed.splitlines()) == 5  # a header, two runs, an empty line, the note
    assert "The newest 2 are shown; --limit 10 shows more" in printed
    assert "shows more" not in run_command("showworkflows", "--limit", "3").out


def test_a_failed_run_shows_why_in_the_list(run_command, work, shaky):
    shaky.start({"fails": True})
    work()
    assert "second: ValueError: it fails" in run_command("showworkflows").out


def test_one_run_shows_its_steps_its_error_and_what_failed_before(run_command, work, shaky):
    run = shaky.start({"fails": True, "token": "top-secret"}, key="order-7")
    work()
    run.retry()
    work()
    printed = run_command("showworkflows", str(run.pk)).out

    assert printed.startswith(f"shaky  {run.pk}\n")
    assert "order-7" in printed
    assert "failed" in printed
    steps = printed[printed.index("Steps") :].splitlines()
    assert [line.split()[:4] for line in steps[2:4]] == [
        ["first", "step", "succeeded", "1"],
        ["second", "step", "failed", "1"],
    ]
    assert "second  step  failed     1 (+1 earlier)  " in steps[3]
    assert "second: ValueError: it fails" in printed
    assert "Traceback (most recent call last):" in printed
    assert "Earlier attempts" in printed
    assert "second, attempt 1, before a retry, " in printed
    assert printed.splitlines()[-3].endswith(": ValueError: it fails")
    assert f"retryworkflows {run.pk}" in printed


@pytest.mark.parametrize("key", ["order-7", "0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f"])
def test_one_run_is_found_by_its_key(run_command, db, key):
    run = three_steps.start({}, key=key)
    three_steps.start({}, key="order-8")
    assert json.loads(run_command("showworkflows", key, "--json").out)["id"] == str(run.pk)


@pytest.mark.parametrize("length", [8, 13, 14, 18, 30])
def test_one_run_is_found_by_the_beginning_of_its_id(run_command, db, length):
    run = three_steps.start({})
    sleeper.start({})
    other = UUID(int=run.pk.int ^ (1 << 127))  # begins otherwise
    WorkflowRun.objects.exclude(pk=run.pk).update(id=other)
    for beginning in (str(run.pk)[:length], str(run.pk)[:length].upper(), run.pk.hex[:length]):
        assert json.loads(run_command("showworkflows", beginning, "--json").out)["id"] == str(run.pk)


def test_a_beginning_of_several_ids_lists_them(run_command, db):
    runs = three_steps.start_many([{}] * 6)
    beginning = str(runs[0].pk)[: 13 if len({str(run.pk)[:13] for run in runs}) == 1 else 8]
    with pytest.raises(CommandError) as refused:
        run_command("showworkflows", beginning)
    newest = ", ".join(f"{run.pk} (three_steps)" for run in sorted(runs, key=lambda run: run.pk, reverse=True)[:5])
    assert str(refused.value) == f"The ids of several runs begin with {beginning!r}: {newest}, …"


@pytest.mark.parametrize("text", ["0", "0198c2a", "xyzxyzxyz", "--------", "ffffffff", "0" * 33, ""])
def test_what_is_no_beginning_of_an_id_finds_no_run(run_command, db, text):
    three_steps.start({})
    with pytest.raises(CommandError, match="There is no run with the id or key"):
        find(text)


def test_a_key_comes_before_the_beginning_of_an_id(run_command, db):
    other = three_steps.start({})
    run = three_steps.start({}, key=str(other.pk)[:8])
    assert find(run.key).pk == run.pk


def test_a_key_of_several_workflows_asks_for_the_id(run_command, db):
    runs = [three_steps.start({}, key="order-7"), sleeper.start({}, key="order-7")]
    with pytest.raises(CommandError) as raised:
        run_command("showworkflows", "order-7")
    first, second = runs
    assert str(raised.value) == (
        f"Several runs have the key 'order-7'. Give the id: {first.pk} (three_steps), {second.pk} (sleeper)"
    )


def test_one_run_whose_failure_was_handled_is_not_told_a_retry_that_is_refused(run_command, compensated):
    last = run_command("showworkflows", str(compensated.pk)).out.splitlines()[-1]
    assert last.startswith("Its failure was handled. Retry it from a step:   ")

    typed = last[last.index("retryworkflows") :].split()
    assert typed == ["retryworkflows", str(compensated.pk), "--from-step", "ship"]
    assert run_command(*typed).out == "1 run is retried.\n"


@pytest.fixture
def retried(work, pass_time):
    """A run that was retried twice: its step had three attempts each time, then one, and waits for its second."""

    @workflow
    def flaky(input, step):
        pause = "1h" if WorkflowRun.objects.get().generation > 1 else 0
        policy = RetryPolicy(max_attempts=3, initial_interval=pause, jitter=False)
        step.define("call", lambda: _no_answer(), retry=policy).run()

    run = flaky.start({})
    for _ in range(2):
        work()
        run.retry()
    work()
    return run


def _no_answer():
    raise ConnectionError("no answer")


def test_one_run_shows_what_it_says_of_itself_but_for_what_is_masked(run_command, work):
    @workflow(mask=["token"])
    def telling(run):
        run.update_details(stage="packed", boxes=[1, 2], token="s3cret", deep={"token": "s3cret"})

    run = telling.start()
    assert "Details" not in run_command("showworkflows", str(run.pk)).out
    assert json.loads(run_command("showworkflows", str(run.pk), "--json").out)["details"] == {}
    work()

    lines = run_command("showworkflows", str(run.pk)).out.splitlines()
    found = lines[lines.index("Details") + 1 :][:4]
    assert [line.split(maxsplit=1) for line in found] == [
        ["stage", "packed"],
        ["boxes", "[1, 2]"],
        ["token", "********"],
        ["deep", '{"token": "********"}'],
    ]
    printed = run_command("showworkflows", str(run.pk), "--json").out
    assert json.loads(printed)["details"] == {
        "stage": "packed", "boxes": [1, 2], "token": "********", "deep": {"token": "********"}
    }  # fmt: skip
    assert "s3cret" not in printed


def test_attempts_before_a_retry_of_the_run_are_told_apart(run_command, retried):
    printed = run_command("showworkflows", str(retried.pk)).out

    assert "call  step  retrying  1 (+6 earlier)  " in printed
    earlier = printed[printed.index("Earlier attempts") :].splitlines()[1:]
    before = [f"  call, attempt {number}, before a retry" for number in (1, 2, 3, 1, 2, 3)]
    assert [line.rpartition(", ")[0] for line in earlier] == [*before, "  call, attempt 1"]
    assert all(line.endswith(": ConnectionError: no answer") for line in earlier)


def test_json_tells_the_attempts_before_a_retry_apart(run_command, retried):
    (step,) = json.loads(run_command("showworkflows", str(retried.pk), "--json").out)["steps"]

    assert step["attempts"] == 1
    told = [(entry["attempt"], entry["before_retry"]) for entry in step["earlier_attempts"]]
    assert told == [(1, True), (2, True), (3, True), (1, True), (2, True), (3, True), (1, False)]


def test_attempts_under_one_policy_are_one_count(run_command, work):
    @workflow
    def stubborn(input, step):
        step.define("call", lambda: _no_answer(), retry=RetryPolicy(max_attempts=3, initial_interval=0)).run()

    run = stubborn.start({})
    work()
    printed = run_command("showworkflows", str(run.pk)).out
    assert "call  step  failed  3         " in printed
    assert "before a retry" not in printed


def test_a_sleep_has_no_attempts(run_command, work):
    run = sleeper.start({"duration": "1h"})
    work()
    line = next(line for line in run_command("showworkflows", str(run.pk)).out.splitlines() if "nap " in line)
    assert line.split()[:3] == ["nap", "sleep", "waiting"]
    assert ":" in line.split()[3]  # when it began


def test_a_sleep_that_was_canceled_shows_how_long_it_was_slept(run_command, work, pass_time):
    run = sleeper.start({"duration": "30d"})
    work()
    pass_time("2h")
    run.cancel()
    line = next(line for line in run_command("showworkflows", str(run.pk)).out.splitlines() if "nap " in line)
    assert line.split()[:3] == ["nap", "sleep", "canceled"]
    assert "  2h 00m  " in line


def test_one_sleeping_run_shows_when_it_wakes(run_command, work):
    run = sleeper.start({"duration": "1h"})
    work()
    printed = run_command("showworkflows", str(run.pk)).out
    assert "sleeping, waits until " in printed
    assert "nap     sleep" in printed


def define_poll():
    @workflow(name="parcel", mask=["token"])
    def parcel(input, step):
        found = {"state": "packed", "token": "s3cret"}
        step.poll("shipped", lambda: found, every="1h", until=lambda found: False).run()

    return parcel


def test_one_polling_run_shows_its_checks_its_last_value_and_its_next_check(run_command, work, pass_time):
    run = define_poll().start({})
    work()
    pass_time("61m")
    work()
    printed = run_command("showworkflows", str(run.pk)).out
    assert "shipped  poll  waiting  2 checks  " in printed
    assert 'Polls\n  shipped  2 checks, last value {"state": "packed", "token": "********"}, next check at ' in printed
    run.cancel()
    printed = run_command("showworkflows", str(run.pk)).out
    assert "shipped  poll  canceled  2 checks  " in printed
    assert "next check" not in printed


def test_json_of_a_poll_has_its_checks_and_its_last_value(run_command, work):
    run = define_poll().start({})
    work()
    (step,) = json.loads(run_command("showworkflows", str(run.pk), "--json").out)["steps"]
    assert (step["kind"], step["status"], step["checks"]) == ("poll", "waiting", 1)
    assert step["output"] == {"state": "packed", "token": "********"} and step["wakes_at"]
    assert step["finished_at"] is None


def test_json_of_one_run_holds_its_steps(run_command, work, shaky):
    run = shaky.start({"fails": False})
    work()
    shown = json.loads(run_command("showworkflows", str(run.pk), "--json").out)

    assert shown["status"] == "succeeded"
    assert shown["output"] == {"token": "********", "sum": 3}
    assert [(step["name"], step["status"]) for step in shown["steps"]] == [
        ("first", "succeeded"),
        ("second", "succeeded"),
    ]
    assert datetime.fromisoformat(shown["finished_at"]) == WorkflowRun.objects.get().finished_at


def test_json_of_a_sleep_says_waiting_until_its_time_is_over(run_command, work, pass_time):
    run = sleeper.start({"duration": "1h"})

    def shown():
        steps = json.loads(run_command("showworkflows", str(run.pk), "--json").out)["steps"]
        return next(step for step in steps if step["name"] == "nap")

    work()
    assert (shown()["status"], shown()["finished_at"]) == ("waiting", None)
    pass_time("2h")
    work()
    assert (shown()["status"], shown()["finished_at"]) == ("succeeded", shown()["wakes_at"])


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["plain", "json"])
def test_masked_keys_are_never_shown(run_command, work, shaky, arguments):
    run = shaky.start({"fails": False, "user": {"token": "top-secret"}})
    work()
    detail = run_command("showworkflows", str(run.pk), *arguments).out

    assert "********" in detail
    assert "top-secret" not in detail
    assert "top-secret" not in run_command("showworkflows", *arguments).out


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["plain", "json"])
def test_masked_keys_are_not_shown_where_the_workflow_is_unknown(run_command, work, shaky, arguments):
    run = shaky.start({"fails": False, "token": "top-secret", "order_id": 7})
    work()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {RUN} SET workflow = 'gone'")
    detail = run_command("showworkflows", str(run.pk), *arguments).out

    assert "order_id" in detail
    assert "top-secret" not in detail


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["plain", "json"])
def test_rows_that_cannot_be_read_are_shown_all_the_same(run_command, work, shaky, arguments):
    run = shaky.start({"fails": True})
    work()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {RUN} SET input = 'no json', output = '{{', error = 'broken', recovery_log = 'broken'")
        cursor.execute(f"UPDATE {STEP} SET output = 'broken', error = 'broken', attempt_log = 'broken'")

    assert "unreadable record" in run_command("showworkflows", *arguments).out
    detail = run_command("showworkflows", str(run.pk), *arguments).out
    assert "unreadable" in detail
    assert "second" in detail


def test_control_characters_never_reach_the_terminal(run_command, work):
    @workflow
    def rude(input, step):
        raise ValueError("\x1b[2Jgone\nand more")

    run = rude.start({"text": "\x1b[2J"})
    work()
    for printed in (run_command("showworkflows").out, run_command("showworkflows", str(run.pk)).out):
        assert "\x1b" not in printed


def test_the_list_takes_two_queries(run_command, db, django_assert_num_queries):
    three_steps.start_many([{}] * 5)
    with django_assert_num_queries(2):
        run_command("showworkflows")
