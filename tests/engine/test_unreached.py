"""Records that a changed body does not come to any more are said in the log once, and marked."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from django_steps.models import StepRecord
from django_steps.testing import drain
from django_steps.testing.errors import NotRepeatable
from tests.changing import deploy

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings that were logged."""
    caplog.set_level(logging.WARNING, logger="django_steps")

    class Said(list[str]):
        def __iter__(self) -> Any:
            return iter([record.getMessage() for record in caplog.records])

    return Said()


def nothing() -> None: ...


def make(step: Any, *names: str) -> None:
    for name in names:
        step.define(name, nothing).run()


def night(step: Any, name: str = "night") -> None:
    step.sleep(name, "1h")


def marked(run: Any) -> list[str]:
    return [one.name for one in StepRecord.objects.filter(run=run).order_by("position") if one.is_unreached]


def test_renamed_step_is_marked_and_said_once(work, pass_time, said):
    def old(step):
        make(step, "stock")
        night(step)

    def new(step):
        make(step, "take stock")
        night(step)
        night(step, "second night")

    run = deploy("shipping", old).start()
    work()
    assert (marked(run), list(said)) == ([], [])
    deploy("shipping", new)
    for _ in range(2):
        pass_time("2h")
        work()
    assert run.result(timeout=0) is None
    assert marked(run) == ["stock"]
    (line,) = said
    assert f"Run {run.pk} of 'shipping' has recorded 'stock', to which its body does not come any more" in line


def test_mark_goes_when_the_old_body_is_back(work, pass_time, said):
    def old(step):
        make(step, "pack", "label")
        night(step)
        night(step, "second night")
        night(step, "third night")

    def new(step):
        make(step, "pack")
        night(step)
        night(step, "second night")
        night(step, "third night")

    run = deploy("shipping", old).start()
    work()
    found = []
    for body in (new, old, new):
        deploy("shipping", body)
        pass_time("2h")
        work()
        found.append(marked(run))
    assert found == [["label"], [], ["label"]]
    assert len(list(said)) == 2


def test_run_whose_body_is_the_same_is_left_alone(work, pass_time, said, django_assert_max_num_queries):
    """Groups, branches, failures that are handled, sleeps of one name: whatever a body may do."""

    def branch(item, step):
        make(step, "pack")
        night(step)
        make(step, "label")
        return item

    def fails():
        raise LookupError("no")

    def failing(item, step):
        make(step, "before")
        night(step)
        step.define("fail", fails).run()

    def body(step):
        step.map("parcel", branch, ["a", "b"])
        step.gather(step.branch("x", branch).bind(1), step.define("y", nothing).bind())
        night(step)
        night(step)
        try:
            step.map("broken", failing, ["c", "d"])
        except* LookupError:
            night(step)
        step.map("some", failing_or_not, ["e", "f", "g"], min_successes=1)
        night(step)

    def failing_or_not(item, step):
        make(step, "first")
        if item != "e":
            night(step)
        return item

    run = deploy("shipping", body).start()
    for _ in range(10):
        work()
        pass_time("2h")
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert (marked(run), list(said)) == ([], [])


def test_step_left_out_of_a_branch_is_marked_when_the_branch_ends(work, pass_time):
    def old(item, step):
        make(step, "pack", "label")
        night(step)

    def new(item, step):
        make(step, "pack")
        night(step)

    run = deploy("shipping", lambda step: step.map("parcel", old, ["a"])).start()
    work()
    deploy("shipping", lambda step: step.map("parcel", new, ["a"]))
    pass_time("2h")
    work()
    assert marked(run) == ["parcel#a/label"]


def test_item_that_is_missing_while_its_map_goes_on_is_marked(work, pass_time):
    def parcel(item, step):
        night(step)

    run = deploy("shipping", lambda step: step.map("parcel", parcel, ["a", "b"])).start()
    work()
    deploy("shipping", lambda step: step.map("parcel", parcel, ["b"]))
    pass_time("2h")
    work()
    assert marked(run) == []  # of the item itself there is no record, and the map is over
    run.refresh_from_db()
    assert run.status == "succeeded"


def test_body_that_raises_before_it_comes_to_its_records_leaves_them(work, pass_time, said):
    def old(step):
        make(step, "pack")
        night(step)

    def new(step):
        raise LookupError

    run = deploy("shipping", old).start()
    work()
    deploy("shipping", new)
    pass_time("2h")
    work()
    assert marked(run) == ["pack", "night"]
    deploy("shipping", old)
    run.retry()
    work()
    assert marked(run) == []


def test_pass_that_is_cut_short_says_nothing(work, pass_time, said):
    """Of a body that was stopped nobody knows to what it would have come."""

    def body(step):
        make(step, "pack")
        night(step)
        make(step, "label")

    run = deploy("shipping", body).start()
    work()
    run.cancel()
    run.retry()
    pass_time("2h")
    work()
    assert (marked(run), list(said)) == ([], [])


def test_async_body_leaves_out_a_step(work, pass_time):
    async def note(): ...

    async def old(step):
        await asyncio.gather(step.define("pack", note).run(), step.define("label", note).run())
        await step.sleep("night", "1h")

    async def new(step):
        await step.define("pack", note).run()
        await step.sleep("night", "1h")

    run = deploy("shipping", old).start()
    work()
    deploy("shipping", new)
    pass_time("2h")
    work()
    assert marked(run) == ["label"]


def test_kit_fails_the_test():
    def old(step):
        make(step, "stock")
        night(step)

    def new(step):
        make(step, "take stock")
        night(step)

    shipping = deploy("shipping", old)
    shipping.start()
    drain()
    deploy("shipping", new)
    with pytest.raises(NotRepeatable, match="has recorded 'stock', to which its body does not come any more"):
        drain(advance="2h")


def test_call_with_other_arguments_is_marked_until_it_has_the_same_again(work, pass_time):
    def calling(item: int) -> Any:
        def body(step):
            step.define("pack", str).run(item)
            for name in ("first", "second", "third"):
                night(step, name)

        return body

    run = deploy("shipping", calling(1)).start()
    work()
    found = []
    for item in (2, 1, 2):
        deploy("shipping", calling(item))
        pass_time("2h")
        work()
        found.append([one.name for one in StepRecord.objects.filter(run=run) if one.has_changed_arguments])
    assert found == [["pack"], [], ["pack"]]
    assert run.result(timeout=0) is None


@pytest.mark.parametrize("what", ["branch", "map", "key", "member of a gather"])
def test_branch_that_is_not_over_is_marked_by_what_is_in_it(work, pass_time, what):
    """It has no record of its own, and its steps would be executed again under the new name."""

    def part(item, step):
        make(step, "x")
        night(step)

    def body(step, name="old"):
        if what == "branch":
            step.branch(name, part).run(1)
        elif what == "map":
            step.map(name, part, ["a"])
        elif what == "key":
            step.map("parts", part, [name, "same"])
            night(step)
        else:
            step.gather(step.branch(name, part).bind(1), step.branch("same", part).bind(2))

    run = deploy("shipping", body).start()
    work()
    deploy("shipping", lambda step: body(step, "new"))
    pass_time("30m")
    run.pause()
    run.resume()
    work()
    inside = {"branch": "old#", "map": "old#a", "key": "parts#old", "member of a gather": "old#"}[what]
    assert set(marked(run)) == {f"{inside}/x", f"{inside}/night"}


def test_items_of_a_map_over_a_workflow_that_is_retried_are_no_leftovers(work, said):
    fails = [True]

    def one(input, step):
        if input == 2 and fails[0]:
            raise LookupError
        night(step)

    child = deploy("shipping_child", one)
    run = deploy("shipping", lambda step: step.map("kids", child, [1, 2, 3], key=str)).start()
    work()
    fails[0] = False
    run.refresh_from_db()
    if run.status == "failed":
        run.retry()
    work()
    assert (marked(run), [line for line in said if "does not come" in line]) == ([], [])


def test_pass_that_fails_before_it_comes_to_them_and_is_tried_again_says_nothing(work, pass_time, said):
    calls = []

    def body(step):
        calls.append(1)
        if len(calls) == 2:
            raise ConnectionError
        make(step, "pack")
        night(step)

    run = deploy("shipping", body, retry=3).start()
    work()
    pass_time("2h")
    work()
    run.refresh_from_db()
    assert len(calls) >= 2
    assert (marked(run), [line for line in said if "does not come" in line]) == ([], [])
