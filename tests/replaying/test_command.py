"""`manage.py replayworkflows`, and the histories that it takes as files."""

from __future__ import annotations

import asyncio
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from django_steps import RetryPolicy, current_step
from django_steps.definitions import masked_keys
from django_steps.models import WorkflowRun
from tests.changing import deploy

pytestmark = pytest.mark.django_db(transaction=True)


def nothing(*arguments: Any) -> Any:
    return arguments[0] if arguments else None


def old(step: Any, input: Any = None) -> Any:
    for name in ("pack", "label"):
        step.define(name, nothing).run(input)
    step.sleep("night", "1h")
    return step.define("send", nothing).run("sent")


def new(step: Any, input: Any = None) -> Any:
    step.define("wrap", nothing).run(input)
    step.sleep("night", "1h")


@pytest.fixture
def asleep(work) -> Any:
    run = deploy("parcels", old).start({"order": 7}, key="order-7")
    work()
    return run


def replay(*arguments: str) -> tuple[int, str]:
    """The exit code, and what was printed."""
    out = io.StringIO()
    try:
        call_command("replayworkflows", *arguments, stdout=out, no_color=True)
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue()
    return 0, out.getvalue()


def shown(run: Any) -> str:
    out = io.StringIO()
    call_command("showworkflows", str(run.pk), "--json", stdout=out)
    return out.getvalue()


def test_runs_that_fit(asleep):
    assert replay() == (0, "parcels: 1 run fits\n")


def test_misfits_of_one_kind_are_said_once(asleep, work):
    runs = [asleep, *(deploy("parcels", old).start({"order": number}) for number in range(4))]
    work()
    deploy("parcels", new)
    code, printed = replay()
    newest = [str(run.pk) for run in reversed(runs)]
    assert code == 1
    assert printed.splitlines() == [
        "parcels: 0 runs fit, 5 do not",
        f"  {newest[0]}, {newest[1]}, {newest[2]} and 2 more",
        "    does not come to 'pack' any more, a recorded step",
        "    does not come to 'label' any more, a recorded step",
        "    does not come to 'night' any more, a recorded sleep",
        "    would execute 'wrap', a new step, before it comes to them",
    ]


def test_same_misfit_of_different_items_is_one_kind(work):
    def one(name: str) -> Any:
        def item(number, step):
            step.define(name, nothing).run()
            step.sleep("night", "1h")

        return lambda step, input: step.map("item", item, [input])

    sorting = deploy("parcels", one("pack"))
    for number in range(3):
        sorting.start(number)
    work()
    deploy("parcels", one("wrap"))
    code, printed = replay()
    assert code == 1
    assert printed.count("does not come to 'item/pack' any more") == 1


def test_chosen_by_status_workflow_id_beginning_and_key(asleep, work, pass_time):
    deploy("letters", lambda step: step.sleep("night", "1d")).start()
    ended = deploy("parcels", old).start()
    work()
    pass_time("2h")
    WorkflowRun.objects.filter(pk=asleep.pk).update(available_at_us=2**62)
    work()
    assert WorkflowRun.objects.get(pk=ended.pk).status == "succeeded"
    assert replay()[1] == "letters: 1 run fits\nparcels: 1 run fits\n"
    assert replay("--workflow", "parcels")[1] == "parcels: 1 run fits\n"
    assert replay("--status", "succeeded")[1] == "parcels: 1 run fits\n"
    assert replay("--status", "failed") == (0, "There are no such runs.\n")
    assert replay("--limit", "1")[1].endswith("There may be more: see --limit.\n")
    for name in (str(asleep.pk), "order-7"):
        assert replay(name)[1] == "parcels: 1 run fits\n"
    with pytest.raises(CommandError, match="not both"):
        replay("order-7", "--workflow", "parcels")
    with pytest.raises(CommandError, match="There is no run with the id or key"):
        replay("order-8")
    with pytest.raises(CommandError, match="Unknown workflow"):
        replay("--workflow", "parcel")


def test_json(asleep):
    deploy("parcels", new)
    code, printed = replay("--json")
    (said,) = json.loads(printed)
    assert code == 1
    assert (said["run"], said["workflow"], said["version"], said["status"]) == (
        str(asleep.pk),
        "parcels",
        "",
        "sleeping",
    )
    assert said["fits"] is False
    assert said["next"] == [{"step": "wrap", "kind": "step"}]
    assert said["problems"][0] == {
        "kind": "unreached",
        "step": "pack",
        "text": "does not come to 'pack' any more, a recorded step",
    }


def test_history_that_is_kept_as_a_file_is_replayed_without_its_run(asleep, tmp_path):
    path = tmp_path / "asleep.json"
    path.write_text(shown(asleep))
    WorkflowRun.objects.all().delete()
    assert replay(str(path)) == (0, "parcels: 1 run fits\n")
    deploy("parcels", new)
    code, printed = replay(str(path))
    assert (code, printed.splitlines()[1]) == (1, f"  {path}")


def test_file_says_what_the_body_asks_its_run(work, tmp_path):
    seen = []

    def body(step, run, input):
        step.define("pack", nothing).run()
        seen.append((run.key, run.priority, run.created_at, input))
        step.sleep("night", "1h")

    run = deploy("parcels", body).start({"order": 7}, key="order-7", priority=3)
    work()
    path = tmp_path / "asleep.json"
    path.write_text(shown(run))
    WorkflowRun.objects.all().delete()
    assert replay(str(path))[0] == 0
    assert seen[-1] == ("order-7", 3, run.created_at, {"order": 7})


def test_what_is_masked_is_a_placeholder_in_the_file(work, tmp_path):
    seen = []

    def body(step, input):
        seen.append((input, step.define("pay", lambda: {"token": "secret", "sum": 7}).run()))
        step.sleep("night", "1h")

    paying = deploy("parcels", body, mask=["token"])
    try:
        run = paying.start({"token": "secret", "order": (7, 8)})
        work()
        path = tmp_path / "asleep.json"
        path.write_text(shown(run))
        assert "secret" not in path.read_text()
        assert replay(str(path))[0] == 0
        assert seen[-1] == ({"token": "********", "order": (7, 8)}, {"token": "********", "sum": 7})
    finally:
        assert masked_keys("parcels")


def test_checkpoint_is_not_in_the_file_and_a_masked_argument_is_no_other_one(work, tmp_path):
    def save():
        current_step().checkpoint({"token": "secret"})
        raise ConnectionError

    def body(step, input):
        step.define("pay", lambda token: None).run(input["token"])
        step.define("save", save, retry=RetryPolicy(max_attempts=3, initial_interval="1h", max_interval="1h")).run()

    run = deploy("parcels", body, mask=["token"]).start({"token": "secret"})
    work()
    path = tmp_path / "retrying.json"
    path.write_text(shown(run))
    assert "secret" not in path.read_text()
    assert replay(str(path))[0] == 0


def test_run_that_can_not_be_replayed_keeps_no_other_from_it(asleep, work):
    async def old_letter(step):
        await step.sleep("night", "1d")

    async def waits_for_good(step):
        await asyncio.Event().wait()

    deploy("letters", old_letter).start()
    work()
    deploy("letters", waits_for_good)
    code, printed = replay()
    assert code == 1
    assert "parcels: 1 run fits" in printed
    assert "can't be replayed: django_steps.errors.StepsError: The body of 'letters' waits for something" in printed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read: No such file or directory"),
        ("{", "is no JSON"),
        ("[]", "holds no run with its history. Write it by: manage.py showworkflows RUN --json > run.json"),
        ('{"id": "x", "history": {}}', "holds no run with its history"),
    ],
)
def test_file_that_is_none(tmp_path, content, message):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CommandError, match=message):
        replay(str(path))


def test_body_that_does_not_come_to_its_next_step_is_left_alone(asleep, work):
    other = deploy("letters", lambda step: step.sleep("night", "1d")).start()
    work()

    def waits(step, input):
        time.sleep(600)

    deploy("parcels", waits)
    code, printed = replay("--timeout", "1s")
    assert code == 1
    assert "has not come to a step within 1 seconds: the body waits for something outside of its steps" in printed
    assert "letters: 1 run fits" in printed
    assert other.pk


def test_a_thousand_runs_in_seconds(work, django_assert_max_num_queries):
    parcels = deploy("parcels", old)
    parcels.start_many([{"order": number} for number in range(1000)])
    work(concurrency=1)
    started = time.process_time()
    with django_assert_max_num_queries(11):  # for the runs, and for the records of 200 at a time
        code, printed = replay()
    assert (code, printed.splitlines()[0]) == (0, "parcels: 1000 runs fit")
    assert time.process_time() - started < 20


def test_help_says_what_it_does(capsys):
    with pytest.raises(SystemExit):
        call_command("replayworkflows", "--help")
    assert "exit codes: 0 all fit, 1 some do not" in capsys.readouterr().out


def test_path_that_ends_otherwise_is_taken_if_it_exists(asleep, tmp_path):
    path: Path = tmp_path / "asleep.history"
    path.write_text(shown(asleep))
    assert replay(str(path))[0] == 0
