"""What a run has recorded as a tree: of real runs, as the admin and `showworkflows` show it."""

from __future__ import annotations

import json

import pytest

from django_steps import workflow
from django_steps.failures.attempt_log import append_attempt
from django_steps.models import StepRecord
from django_steps.presentation.tree import Counts, chain_to, never_began, tree
from tests.commands.conftest import run_command

__all__ = ["run_command"]  # fixtures
pytestmark = pytest.mark.django_db(transaction=True)


def tree_of(run):
    run.refresh_from_db()
    return tree(run, run.steps.order_by("position"))


def drawn(node):
    """The tree as nested tuples: label, kind, status and what is in it."""
    return [
        (member.label, member.kind, member.status, *([drawn(member)] if member.is_container else []))
        for member in node.members
    ]


def fail(number):
    raise ValueError(number)


def double(number):
    return 2 * number


def handle(number, step):
    step.define("charge", fail if number == 2 else double).run(number)
    step.define("ship", double).run(number)


@workflow(name="tree_of_orders")
def orders(step):
    step.define("first", double).run(1)
    step.map("order", handle, [1, 2], return_exceptions=True, concurrency=1)
    step.branch("invoice", lambda step: step.map("page", double, [7])).run()
    step.gather(step.define("a", double).bind(1), step.branch("b", lambda step: step.sleep("nap", "1ms")).bind())


def test_records_are_in_the_branches_and_groups_that_they_were_made_in(work):
    run = orders.start()
    work(concurrency=1)
    assert drawn(tree_of(run)) == [
        ("first", "step", "succeeded"),
        (
            "order",
            "map",
            "succeeded",
            [
                ("order#1", "branch", "succeeded", [("charge", "step", "succeeded"), ("ship", "step", "succeeded")]),
                ("order#2", "branch", "failed", [("charge", "step", "failed")]),
            ],
        ),
        (
            "invoice#",
            "branch",
            "succeeded",
            [("page", "map", "succeeded", [("page#7", "step", "succeeded")])],
        ),
        (
            "a, b#",
            "gather",
            "succeeded",
            [("a", "step", "succeeded"), ("b#", "branch", "succeeded", [("nap", "sleep", "succeeded")])],
        ),
    ]


def test_members_that_failed_come_first_in_a_group_then_unfinished_ones_and_never_in_a_branch(work):
    def wait(number, step):
        step.define("charge", fail if number == 3 else double).run(number)
        if number == 2:
            step.sleep("nap", "1h")

    @workflow
    def waiting(step):
        step.map("order", wait, [1, 2, 3], return_exceptions=True)

    run = waiting.start()
    work(concurrency=1)
    (group,) = tree_of(run).members
    assert [(node.label, node.status) for node in group.in_order()] == [
        ("order#3", "failed"),
        ("order#2", "waiting"),
        ("order#1", "succeeded"),
    ]
    assert (group.status, str(Counts(group))) == ("waiting", "1 succeeded, 1 failed, 1 waiting of 3 that began")
    run.cancel()
    (group,) = tree_of(run).members
    assert [node.status for node in group.in_order()] == ["failed", "unfinished", "succeeded"]
    assert group.status == "unfinished"
    (found, branch) = chain_to(tree_of(run), "order#2")
    assert (found.path, [node.label for node in branch.in_order()]) == ("order", ["charge", "nap"])
    assert chain_to(tree_of(run), "order#7") == []


def test_items_of_a_finished_map_that_never_began_are_counted(work):
    @workflow
    def quorum(step):
        step.map("m", double, [1, 2, 3, 4], min_successes=1, concurrency=1)

    run = quorum.start()
    work(concurrency=1)
    (group,) = tree_of(run).members
    assert str(Counts(group, never_began(group, group.record.output_text))) == "1 succeeded, 3 never began of 4"
    assert never_began(group, "damaged") == never_began(group, "[]") == never_began(group, None) == 0


def test_gather_that_may_go_on_is_running_and_one_that_has_been_left_behind_is_not(work):
    @workflow
    def gathered(step):
        step.gather(step.define("a", double).bind(1), step.define("b", double).bind(2))
        step.define("c", double).run(1)

    run = gathered.start()
    work()
    run.refresh_from_db()
    records = list(run.steps.order_by("position"))
    run.status = "running"
    assert drawn(tree(run, records[:2]))[0][2] == "running"
    assert drawn(tree(run, records))[0][2] == "succeeded"
    assert drawn(tree(run, records))[0][0] == "a, b"


def test_gather_with_canceled_members_is_over_unless_the_end_of_the_run_cut_something_short(work):
    @workflow
    def gathered(step):
        step.gather(*[step.define(name, double).bind(1) for name in "abcd"])
        step.sleep("nap", "1h")

    run = gathered.start()
    work()
    run.steps.filter(name__in="ab").update(status="canceled")
    (group, _nap) = tree_of(run).members
    assert (group.status, str(Counts(group))) == ("canceled", "2 succeeded, 2 canceled of 4")
    assert [node.status for node in group.in_order()] == ["canceled", "canceled", "succeeded", "succeeded"]
    run.steps.filter(name="c").update(status="failed")
    assert tree_of(run).members[0].status == "failed"
    run.steps.filter(name="c").update(kind="poll", status="waiting", finished_at=None, wakes_at_us=1 << 60)
    run.cancel()
    (group, _nap) = tree_of(run).members
    assert (group.status, str(Counts(group))) == ("unfinished", "1 succeeded, 3 canceled of 4")


def test_attempts_of_a_canceled_step_are_counted_up_to_the_one_that_it_was_canceled_in_or_after():
    log = append_attempt("", 1, 0, 1, None)
    executing = StepRecord(status="canceled", attempts=2, attempt_log=log)
    between = StepRecord(status="canceled", attempts=1, attempt_log=log, wakes_at_us=9)
    retried = StepRecord(status="canceled", attempts=1, attempt_log=log)
    records = [executing, between, retried]
    assert [[entry["before_retry"] for entry in record.earlier_attempts] for record in records] == [
        [False],
        [False],
        [True],
    ]


def test_record_with_a_damaged_context_is_in_its_branch(work):
    run = orders.start()
    work(concurrency=1)
    run.steps.filter(name="order#1/charge").update(context_text="]")
    assert [node.path for node in tree_of(run).members][:3] == ["first", "order#1", "order"]


# -- In a terminal -----------------------------------------------------------------------------------


def test_terminal_shows_the_tree_with_counts(work, run_command):
    run = orders.start()
    work(concurrency=1)
    printed = run_command("showworkflows", str(run.pk)).out
    lines = printed[printed.index("Steps") :].splitlines()[2:]
    assert [(len(line) - len(line.lstrip()), *line.split()[:2]) for line in lines[:6]] == [
        (2, "first", "step"),
        (2, "order", "map"),
        (4, "order#2", "branch"),
        (6, "charge", "step"),
        (4, "order#1", "branch"),
        (6, "charge", "step"),
    ]
    assert lines[1].endswith("1 succeeded, 1 failed of 2")


def test_terminal_shows_the_first_of_a_large_group_and_json_has_them_all(work, run_command):
    @workflow
    def large(step):
        step.map("m", lambda number: fail(number) if number == 77 else number, range(100), return_exceptions=True)

    run = large.start()
    work()
    printed = run_command("showworkflows", str(run.pk)).out
    items = [line.split()[0] for line in printed.splitlines() if line.startswith("    m#")]
    assert len(items) == 20 and items[0] == "m#77"
    assert "    … and 80 more" in printed
    assert "99 succeeded, 1 failed of 100" in printed
    shown = json.loads(run_command("showworkflows", str(run.pk), "--json").out)["steps"]
    assert {(step["name"], step["group"]) for step in shown} == {("m", None), *((f"m#{n}", "m") for n in range(100))}


def test_json_says_which_branch_a_step_was_in(work, run_command):
    run = orders.start()
    work(concurrency=1)
    shown = json.loads(run_command("showworkflows", str(run.pk), "--json").out)["steps"]
    where = {step["name"]: (step["branch"], step["group"]) for step in shown}
    assert where["order#1/ship"] == ("order#1", None)
    assert where["order#1"] == (None, "order")
    assert where["invoice#/page#7"] == ("invoice#", "invoice#/page")
    assert where["a"] == (None, "a#+")
