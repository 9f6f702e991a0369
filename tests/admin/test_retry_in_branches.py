"""A retry in branches and groups: what the page says is what is executed again."""

from __future__ import annotations

import re
from functools import partial

import pytest
from django.contrib.messages import get_messages

from django_steps import workflow

from .conftest import add_step, error_of, make_run, run_of_orders, url

pytestmark = pytest.mark.django_db(transaction=True)

executed: list[str] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def clean():
    executed.clear()
    broken.clear()


def do(name):
    executed.append(name)
    if name in broken:
        raise ValueError(name)


def handle(number, step):
    for name in ("charge", "ship"):
        step.define(name, partial(do, f"{name}{number}")).run()


def invoice(step):
    step.define("total", partial(do, "total")).run()
    step.sleep("nap", "1ms")


@workflow(name="retried_orders")
def orders(step):
    step.define("fetch", partial(do, "fetch")).run()
    step.map("order", handle, [1, 2, 3], concurrency=1)
    step.gather(step.define("user", partial(do, "user")).bind(), step.branch("invoice", invoice).bind())
    step.define("report", partial(do, "report")).run()
    raise ValueError("never good enough")


def ask(client, run, path):
    page = client.get(url("retry", run.pk), {"from_step": path}).content.decode()
    return re.findall(r"<p>(.*?)</p>", page.partition('id="content-main"')[2])


PATHS = [
    ("fetch", "Step “fetch” is reset", 10),
    ("order", "Map “order” begins again, and all that is in it is executed again (6 steps).", 9),
    ("order#2", "Branch “order#2” is called again, and all that is in it is executed again (2 steps).", 5),
    ("order#2/ship", "Step “order#2/ship” is reset and executed again.", 4),
    ("user", "Step “user” is reset and executed again.", 2),
    ("user#+", "All that was gathered (user, invoice#) is executed again (2 steps, 1 sleep).", 3),
    ("invoice#", "Branch “invoice#” is called again, and all that is in it is executed again (1 step, 1 sleep).", 2),
    ("report", "Step “report” is reset and executed again.", 1),
]


def test_page_says_what_a_retry_from_each_path_executes_again(root, work):
    run = orders.start()
    work(concurrency=1)
    for path, first_line, count in PATHS:
        lines = ask(root, run, path)
        assert lines[0].startswith(first_line), path
        kept = sum(int(number) for line in lines for number in re.findall(r"results? of (\d+) other step", line))
        total = run.steps.filter(kind="step").count()
        executed.clear()
        root.post(url("retry", run.pk), {"from_step": path})
        work(concurrency=1)
        assert len(executed) == count, path
        assert total - kept == count, path


def test_page_names_failures_beside_the_step_and_what_was_left(root, work):
    broken.update(["charge1", "charge2"])

    @workflow
    def failing(step):
        step.map("order", handle, [1, 2, 3, 4], concurrency=1, max_failures=1)

    run = failing.start()
    work(concurrency=1)
    lines = ask(root, run, "order#1/charge")
    assert lines[:3] == [
        "Step “order#1/charge” is reset and executed again.",
        "So is the 1 step beside it that failed.",
        "What was left unfinished beside it goes on, as far as it is needed.",
    ]
    broken.clear()
    executed.clear()
    root.post(url("retry", run.pk), {"from_step": "order#1/charge"})
    work(concurrency=1)
    assert sorted(name for name in executed if name.startswith("charge")) == [
        "charge1",
        "charge2",
        "charge3",
        "charge4",
    ]


def test_plain_retry_names_the_steps_and_not_the_outcomes_around_them(root, work):
    broken.add("charge2")
    run = orders.start()
    work(concurrency=1)
    page = root.get(url("retry", run.pk)).content.decode()
    assert "The run continues with step “order#2/charge”." in page
    assert "What was left unfinished beside it goes on, too." in page
    assert "The results of 3 other steps are kept" in page
    response = root.post(url("retry", run.pk))
    said = [str(message) for message in get_messages(response.wsgi_request)]
    assert said == ["Retried: the run continues with step “order#2/charge”."]


def test_branch_that_raised_itself_is_named(root, work):
    @workflow
    def raising(step):
        step.branch("invoice", lambda step: 1 / 0).run()

    run = raising.start()
    work()
    assert "The run continues with step “invoice#”." in root.get(url("retry", run.pk)).content.decode()
    assert ask(root, run, "invoice#")[0].endswith("executed again (nothing is recorded in it).")


@pytest.mark.parametrize("path", ["order", "order#5"])
def test_what_is_unfinished_and_has_no_record_can_be_retried_from(root, path):
    run = run_of_orders(orders=9)
    (line, *_rest) = ask(root, run, path)
    assert path in line
    root.post(url("retry", run.pk), {"from_step": path})
    run.refresh_from_db()
    assert run.status == "pending"
    assert not run.steps.filter(name__startswith="order#5").exists()


@pytest.mark.parametrize("path", ["order#77", "order#5/nothing", "order#", "user#+"])
def test_path_at_which_nothing_is_recorded_is_refused(root, path):
    run = run_of_orders(orders=9)
    for response in (
        root.get(url("retry", run.pk), {"from_step": path}),
        root.post(url("retry", run.pk), {"from_step": path}),
    ):
        assert response.url == url("change", run.pk)
        (said, *_) = map(str, get_messages(response.wsgi_request))
        assert said == f"The run has recorded no step “{path}”."
    run.refresh_from_db()
    assert run.status == "failed"


def test_many_failures_are_named_in_a_line(root):
    names = [f"check#{number}" for number in range(3000)]
    run = make_run("failed", error_text=error_of(ValueError("x"), *names, "check"))
    for name in names[:40]:
        add_step(run, name, "failed", group="check")
    page = root.get(url("retry", run.pk)).content.decode()
    assert "“check#9” and 30 more" in page and "check#10”" not in page


def test_question_for_a_selection_names_the_same_step_of_all_items_once(root):
    runs = []
    for number in range(3):
        path = f"order#{number}"
        run = make_run("failed", error_text=error_of(ValueError("x"), f"{path}/charge", path, "order"))
        add_step(run, f"{path}/charge", "failed", inside=[(path, "order")])
        runs.append(run)
    data = {"action": "retry", "_selected_action": [str(run.pk) for run in runs]}
    assert (
        "3 runs of three_steps continue with step “order/charge”."
        in root.post(url("changelist"), data).content.decode()
    )
    response = root.post(url("changelist"), {**data, "runs": ",".join(str(run.pk) for run in runs)})
    assert [str(message) for message in get_messages(response.wsgi_request)] == ["3 retried (from step “order/charge”)"]
    assert "order#1/charge" in root.get(url("history", runs[1].pk)).content.decode()


def test_what_siblings_did_meanwhile_is_no_reason_to_skip_a_run_of_a_selection(root, work):
    def branch(number, step):
        step.define("a", partial(do, f"a{number}")).run()
        step.define("b", partial(do, f"b{number}")).run()

    broken.add("a1")

    @workflow
    def alone(step):
        results = step.map("order", branch, [1, 2], return_exceptions=True)
        raise results[0]

    run = alone.start()
    work(concurrency=1)
    run.refresh_from_db()
    assert run.status == "failed"
    data = {"action": "retry", "_selected_action": [str(run.pk)]}
    page = root.post(url("changelist"), data).content.decode()
    assert "1 run will be retried." in page
    assert "continues with step “order/a”." in page


def test_failures_of_very_many_items_are_found_though_the_end_of_the_error_has_not_their_names(root):
    names = [f"check#{number}" for number in range(3000)]
    text = error_of(ValueError("x"), *names, "check")
    run = make_run("failed", error_text=text, failed_step="check")
    add_step(run, "check#0", "failed", group="check")
    page = root.post(url("changelist"), {"action": "retry", "_selected_action": [str(run.pk)]}).content.decode()
    assert "1 run of three_steps continues with step “check”." in page
