"""`showworkflows` of runs with waits, events, a parent and children; and `--tree`."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.core.management.base import CommandError

from tests.admin.conftest import (
    START,
    add_event,
    add_step,
    add_wait,
    error_of,
    make_child,
    make_run,
    waiting_run,
)
from tests.admin.test_children import many_children

pytestmark = pytest.mark.django_db


@pytest.fixture
def show(run_command):
    """What is printed, with single spaces: `show(run)`, `show(run, "--tree")`."""
    return lambda *arguments: " ".join(run_command("showworkflows", *map(_text, arguments)).out.split())


@pytest.fixture
def read(run_command):
    """What `--json` prints."""
    return lambda *arguments: json.loads(run_command("showworkflows", *map(_text, arguments), "--json").out)


def _text(argument):
    return argument if isinstance(argument, str) else str(argument.pk)


# -- What it waits for -------------------------------------------------------------------------------


def test_the_list_says_what_runs_wait_for(show):
    waiting_run("approval", until=timedelta(hours=1))
    parent = waiting_run()
    make_child(parent, "running", current_step="print")
    printed = show()
    assert f"now: print, child of {parent.pk}" in printed
    assert "waits for event “approval” until 2026-03-01 04:00:00" in printed
    assert "waits for 1 child run" in printed


def test_a_waiting_run_says_it_in_detail(show, read):
    run = waiting_run("approval", until=timedelta(minutes=1))
    add_wait(run, "approval", until=timedelta(hours=2))
    printed = show(run)
    assert "status waiting, waits for event “approval” until 2026-03-01 05:00:00" in printed
    shown = read(run)
    assert shown["waiting_for"] == ["approval"]
    assert shown["steps"][0]["wakes_at"].startswith("2026-03-01T05:00:00")


def test_waits_that_have_ended_say_what_they_took(show, read):
    run = make_run()
    add_wait(run, "approval", "succeeded", context={"event": {"name": "approval", "by": "eve"}})
    add_wait(run, "reply", "succeeded", context={"timed_out": True})
    printed = show(run)
    assert "event “approval” from eve" in printed and "timed out: the default was returned" in printed
    assert [step["timed_out"] for step in read(run)["steps"]] == [False, True]


# -- Events ------------------------------------------------------------------------------------------


def test_events_of_a_run_are_listed(show, read):
    run = make_run(key="order-7")
    add_event(run, "late", {"ok": True}, by="eve", event_id="evt_1")
    add_event(run, "approval", consumed_by="approval", consumed_at=START)
    add_event(None, "early", workflow=run.workflow, key="order-7")
    printed = show(run)
    assert "events 3 events, 2 not taken" in printed
    assert '{"ok": true}' in printed or "********" in printed
    assert "EVENT PAYLOAD SENT BY ID TAKEN" in printed
    assert "eve evt_1 not taken" in printed and "by key not taken" in printed
    assert "taken by step “approval” at 2026-03-01 03:00:00" in printed
    early, late, taken = read(run)["events"]
    assert (late["name"], late["id"], late["by"], late["taken_at"]) == ("late", "evt_1", "eve", None)
    assert (taken["taken_by"], taken["taken_at"][:19]) == ("approval", "2026-03-01T03:00:00")
    assert early["name"] == "early"


def test_of_many_events_twenty_are_listed(show):
    run = make_run()
    for _ in range(25):
        add_event(run, "tick")
    assert show(run).count("tick ") == 20
    assert "… and 5 more" in show(run)


def test_payloads_are_masked(show, read, shaky):
    run = make_run(workflow="shaky")
    add_event(run, "paid", {"token": "top-secret", "sum": 3})
    assert "top-secret" not in show(run) and '"sum": 3' in show(run)
    assert read(run)["events"][0]["payload"] == {"token": "********", "sum": 3}


def test_large_payloads_are_counted(show):
    run = make_run()
    add_event(run, "upload", "x" * 5000)
    assert "upload 5002 characters" in show(run) and "xxx" not in show(run)


# -- Parent and children -----------------------------------------------------------------------------


def test_parent_and_children_name_each_other(show, read):
    parent = waiting_run()
    failed = make_child(
        parent, "failed", step="page", item="page#1", error_text=error_of(ValueError("no answer"), "fetch")
    )
    running = make_child(parent, "running", current_step="print")
    replaced = make_child(parent, "canceled", step="page", item=None)
    add_step(
        parent,
        "receipt",
        "waiting",
        kind="invoke",
        context_text=json.dumps({"child": running.pk.hex}),
        finished_at=None,
    )
    printed = show(parent)
    assert "child runs 1 failed, 1 running of 2" in printed
    assert printed.count(str(running.pk)) == 2  # beside the step, and among the children
    assert f"{failed.pk} page#1 make_receipt failed" in printed and "fetch: ValueError: no answer" in printed
    assert "now: print" in printed and "replaced by another run" in printed
    assert printed.index(str(failed.pk)) < printed.index(str(replaced.pk))
    assert f"parent {parent.pk}, step “page#1”" in show(failed)
    assert (read(failed)["parent"], read(failed)["parent_step"]) == (str(parent.pk), "page#1")
    assert read(parent)["children"] == {"failed": 1, "running": 1}
    assert read(parent)["steps"][0]["child"] == str(running.pk)


def test_runs_that_continue_each_other_are_named(show, read):
    second = make_run("running")
    first = make_run(continued_as=second)
    assert f"continued as {second.pk}" in show(first)
    assert f"continues {first.pk}" in show(second)
    assert (read(first)["continued_as"], read(second)["continues"]) == (str(second.pk), str(first.pk))


def test_map_of_children_says_how_many_there_are(show):
    parent = waiting_run()
    add_step(parent, "page", "waiting", kind="map", context_text='{"children": 3}', finished_at=None)
    many_children(parent, 3, failed={1})
    printed = show(parent)
    assert "page map waiting" in printed and "child runs 2 succeeded, 1 failed of 3" in printed


# -- The tree ----------------------------------------------------------------------------------------


def family():
    """A parent with two children, one of which has a child, too."""
    parent = waiting_run(workflow="nightly")
    importing = make_child(parent, "waiting", step="import", workflow="import_all", waits_for="\nfile\n")
    failed = make_child(
        importing, "failed", step="page", item="page#2", error_text=error_of(ValueError("odd"), "fetch")
    )
    done = make_child(parent, step="report")
    return parent, importing, failed, done


def test_the_tree_shows_runs_below_their_parents(run_command):
    parent, importing, failed, done = family()
    lines = run_command("showworkflows", str(parent.pk), "--tree").out.splitlines()
    assert [line.split()[0] for line in lines] == ["WORKFLOW", "nightly", "import:", "page#2:", "report:"]
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 0, 2, 4, 2]
    for line, run in zip(lines[1:], (parent, importing, failed, done), strict=True):
        assert str(run.pk) in line and run.status in line
    assert "1 succeeded, 1 waiting of 2" in lines[1]
    assert "1 failed; waits for event “file”" in lines[2]
    assert "fetch: ValueError: odd" in lines[3]
    assert "59.00 s" in lines[4]


def test_the_tree_begins_at_any_run(run_command):
    _parent, importing, failed, _done = family()
    lines = run_command("showworkflows", "--tree", str(importing.pk)).out.splitlines()
    assert [line.split()[0] for line in lines] == ["WORKFLOW", "import_all", "page#2:"]
    assert len(run_command("showworkflows", "--tree", str(failed.pk)).out.splitlines()) == 2


def test_the_tree_as_json(read):
    parent, importing, failed, _done = family()
    shown = read(parent, "--tree")
    assert (shown["id"], shown["child_counts"], shown["left_out"]) == (
        str(parent.pk),
        {"waiting": 1, "succeeded": 1},
        0,
    )
    (first, second) = shown["children"]
    assert (first["id"], first["step"], first["workflow"]) == (str(importing.pk), "import", "import_all")
    assert [child["id"] for child in first["children"]] == [str(failed.pk)]
    assert (second["status"], second["duration"]) == ("succeeded", 59)


@pytest.mark.any_database
def test_the_tree_folds_ten_thousand_children(run_command, read, django_assert_max_num_queries):
    parent = waiting_run()
    many_children(parent, 10_000, failed={9_000, 9_500}, running={77})
    with django_assert_max_num_queries(8):
        lines = run_command("showworkflows", "--tree", str(parent.pk)).out.splitlines()
    assert len(lines) == 23
    assert [line.split()[0] for line in lines[2:6]] == ["page#9000:", "page#9500:", "page#77:", "page#0:"]
    assert lines[-1].strip() == "… and 9980 more"
    assert "9,997 succeeded, 2 failed, 1 running of 10,000" in lines[1]
    assert (len(read(parent, "--tree")["children"]), read(parent, "--tree")["left_out"]) == (20, 9980)


def test_the_tree_has_a_bounded_number_of_runs(monkeypatch, run_command):
    from django_steps.management import family

    monkeypatch.setattr(family, "MOST", 5)
    parent = make_run()
    for number in range(4):
        child = make_child(parent, "failed" if number == 3 else "succeeded", item=str(number))
        make_child(child), make_child(child, item="b")
    lines = run_command("showworkflows", "--tree", str(parent.pk)).out.splitlines()
    assert len([line for line in lines if "make_receipt" in line]) == 5
    assert sum("… and" in line for line in lines) == 4


def test_what_was_replaced_is_marked_in_the_tree(show, read):
    parent = make_run()
    make_child(parent, "failed", item=None)
    assert "replaced by another run" in show(parent, "--tree")
    assert read(parent, "--tree")["children"][0]["is_replaced"]


def chain(count):
    """Runs that have continued as one another, the last of which is running."""
    runs = [make_run("running", workflow="counter")]
    for _ in range(count - 1):
        runs.insert(0, make_run(workflow="counter", continued_as=runs[0]))
    return runs


def test_the_tree_shows_what_a_run_has_continued_as(run_command, read):
    first, second, third = runs = chain(3)
    page = make_child(second, step="page")
    lines = run_command("showworkflows", str(first.pk), "--tree").out.splitlines()
    names = ["counter", "continued as: counter", "  page: make_receipt", "continued as: counter"]
    for line, name, run in zip(lines[1:], names, [first, second, page, third], strict=True):
        assert line.startswith(name) and str(run.pk) in line and run.status in line
    shown = read(first, "--tree")
    assert [run["id"] for run in shown["successors"]] == [str(run.pk) for run in runs[1:]]
    assert (shown["continued_as"], shown["successors_left_out"]) == (str(second.pk), 0)
    assert [run["id"] for run in shown["successors"][0]["children"]] == [str(page.pk)]
    assert [run["continued_as"] for run in shown["successors"]] == [str(third.pk), None]
    assert (read(third, "--tree")["successors"], read(page, "--tree")["successors"]) == ([], [])


@pytest.mark.any_database
def test_the_tree_folds_a_long_chain(run_command, read, django_assert_max_num_queries):
    runs = chain(1_200)
    with django_assert_max_num_queries(12):
        lines = run_command("showworkflows", str(runs[0].pk), "--tree").out.splitlines()
    shown = [runs[0], *runs[1:3], *runs[-3:]]
    assert lines[4].strip() == "… and 1194 more"
    assert all(str(run.pk) in line for run, line in zip(shown, [*lines[1:4], *lines[5:]], strict=True))
    printed = read(runs[0], "--tree")
    assert [run["id"] for run in printed["successors"]] == [str(run.pk) for run in shown[1:]]
    assert printed["successors_left_out"] == 1_194


def test_a_child_that_has_continued_says_so(show):
    parent = make_run()
    second = make_child(parent, "running")
    make_child(parent, item=None, continued_as=second)
    for arguments in ([parent, "--tree"], [parent]):
        assert "continued as another run" in show(*arguments) and "replaced" not in show(*arguments)


@pytest.mark.parametrize("arguments", [["--tree"], ["--tree", "--check"], ["--tree", "RUN", "--status", "failed"]])
def test_the_tree_takes_a_run_alone(run_command, arguments):
    run = make_run()
    with pytest.raises(CommandError, match="--tree takes a RUN"):
        run_command("showworkflows", *[str(run.pk) if word == "RUN" else word for word in arguments])
