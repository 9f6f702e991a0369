"""Tags that bodies, steps and operators give a run that exists, and who inherits them."""

from __future__ import annotations

import asyncio

import pytest
from django.db import connection, transaction

from django_steps import AsyncStep, InvalidState, StartOutsideStep, current_step, workflow
from django_steps.ledger import pruning
from django_steps.models import WorkflowRun, WorkflowTag
from django_steps.models.deleting import Pruner
from tests.app.models import Person
from tests.looking import error_of
from tests.staging import status_of

pytestmark = pytest.mark.django_db(transaction=True)


def stored(run) -> dict[str, str]:
    """What the database has: the row of the run and the table say the same."""
    tags = WorkflowRun.objects.get(pk=run.pk).tags
    rows = dict(WorkflowTag.objects.filter(run=run).exclude(name="about").values_list("name", "value"))
    assert rows == tags
    return tags


def look() -> dict[str, str]:
    """What a step finds in the database of its own run."""
    return dict(WorkflowTag.objects.filter(run=current_step().run_id).values_list("name", "value"))


# -- From outside -------------------------------------------------------------------------------------


@pytest.fixture
def plain():
    @workflow(name="tags_outside")
    def plain(input, step):
        step.sleep("pause", "1h")

    return plain


def test_tags_are_added_changed_and_taken_away(plain):
    run = plain.start(tags={"tenant": "acme", "plan": "free"})
    run.set_tags(plan="pro", tenant=None, stage="new", unknown=None)
    assert run.tags == stored(run) == {"plan": "pro", "stage": "new"}
    run.set_tags(plan="pro")
    run.set_tags()
    assert stored(run) == {"plan": "pro", "stage": "new"}
    assert list(WorkflowRun.objects.tagged(plan="pro")) == [run]
    assert not WorkflowRun.objects.tagged(plan="free").exists()


def test_last_tag_can_be_taken_away(plain):
    run = plain.start(tags={"tenant": "acme"})
    run.set_tags(tenant=None)
    assert stored(run) == {}
    assert WorkflowRun.objects.values_list("tags_text", flat=True).get() == ""


def test_what_a_run_is_about_stays(plain):
    person = Person.objects.create(name="Ann")
    run = plain.start(about=person)
    run.set_tags(stage="new")
    assert run.about == person
    with pytest.raises(ValueError, match=r"start\(about=…\)"):
        run.set_tags(about="x")


def test_change_is_of_the_transaction_of_the_caller(plain):
    run = plain.start(tags={"tenant": "acme"})
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        run.set_tags(tenant="other")
        raise ZeroDivisionError
    assert stored(run) == {"tenant": "acme"}


def test_run_in_any_status_is_given_tags(plain, work, pass_time):
    run = plain.start()
    work()
    assert status_of(run) == "sleeping"
    run.set_tags(stage="asleep")
    pass_time("2h")
    work()
    assert status_of(run) == "succeeded"
    run.set_tags(done="yes")
    assert stored(run) == {"stage": "asleep", "done": "yes"}


def test_too_many_are_refused_and_nothing_is_changed(plain):
    run = plain.start(tags={f"t{number}": "x" for number in range(20)})
    with pytest.raises(ValueError, match="at most 20 tags, these are 21"):
        run.set_tags(t0="y", more="x")
    with pytest.raises(TypeError, match="is a text, got 7"):
        run.set_tags(t0=7)
    assert stored(run)["t0"] == "x"
    run.set_tags(t0=None, more="x")
    assert len(stored(run)) == 20


def test_run_that_is_gone_is_named(plain):
    run = plain.start()
    WorkflowRun.objects.all().delete()
    with pytest.raises(InvalidState, match=f"Run {run.pk} is gone"):
        run.set_tags(tenant="acme")
    assert not WorkflowTag.objects.exists()


def test_body_of_another_run_may_not(plain, work):
    other = plain.start(delay="1d")

    @workflow(name="tags_meddling")
    def meddling(step):
        step.define("in_a_step", other.set_tags).run(stage="step")
        other.set_tags(stage="body")

    run = meddling.start()
    work()
    assert error_of(run)["type"].endswith(StartOutsideStep.__name__)
    assert stored(other) == {"stage": "step"}


# -- From the body ------------------------------------------------------------------------------------


def test_next_record_carries_what_the_body_says(work):
    seen = []

    @workflow(name="tags_saying", tags={"kind": "order", "stage": "new"})
    def saying(run, step):
        run.set_tags(stage="packing", kind=None)
        seen.append(run.tags)
        step.define("pack", look).run()
        return step.define("look", look).run()

    run = saying.start(tags={"tenant": "acme"})
    work()
    run.refresh_from_db()
    assert seen[0] == {"tenant": "acme", "stage": "packing"}
    assert run.output == stored(run) == {"tenant": "acme", "stage": "packing"}


def test_what_is_said_last_is_written_with_the_end(work):
    @workflow(name="tags_at_the_end")
    def at_the_end(input, run, step):
        run.set_tags(stage="done")
        if input == "fails":
            raise ValueError

    runs = [at_the_end.start(input) for input in ("fails", "ends")]
    work()
    assert [(status_of(run), stored(run)) for run in runs] == [
        ("failed", {"stage": "done"}),
        ("succeeded", {"stage": "done"}),
    ]


def test_it_is_written_when_the_run_is_suspended(work, pass_time):
    @workflow(name="tags_suspended")
    def suspended(run, step):
        run.set_tags(stage="asleep")
        step.sleep("pause", "1h")
        run.set_tags(stage="waiting")
        step.wait_for_event("go")

    run = suspended.start()
    work()
    assert (status_of(run), stored(run)) == ("sleeping", {"stage": "asleep"})
    pass_time("2h")
    work()
    assert (status_of(run), stored(run)) == ("waiting", {"stage": "waiting"})


def test_pass_that_replays_says_nothing_again(work, pass_time):
    @workflow(name="tags_replaying")
    def replaying(run, step):
        run.set_tags(stage="one")
        step.define("step", lambda: None).run()
        step.sleep("pause", "1h")
        run.set_tags(other="two")
        step.define("last", lambda: None).run()

    run = replaying.start()
    work()
    run.set_tags(stage="by hand")
    pass_time("2h")
    work()
    assert status_of(run) == "succeeded"
    assert stored(run) == {"stage": "by hand", "other": "two"}


def test_step_says_it_with_its_outcome(work):
    @workflow(name="tags_in_a_step")
    def in_a_step(run, step):
        step.define("say", run.set_tags).run(stage="said")
        return step.define("look", look).run()

    run = in_a_step.start()
    work()
    run.refresh_from_db()
    assert run.output == {"stage": "said"}


def test_branches_say_it_side_by_side(work):
    @workflow(name="tags_in_branches")
    def in_branches(run, step):
        def branch(item, step):
            run.set_tags(**{f"item{item}": "seen", "last": str(item)})
            step.define("step", lambda: None).run()

        step.map("items", branch, range(5))

    run = in_branches.start()
    work(concurrency=4)
    found = stored(run)
    assert found.pop("last") in "01234"
    assert found == {f"item{number}": "seen" for number in range(5)}


def test_async_body_says_it_by_a_plain_call(work):
    @workflow(name="tags_async", tags={"kind": "agent"})
    async def saying(run, step: AsyncStep):
        run.set_tags(stage="one")
        await asyncio.gather(step.define("a", look).run(), step.define("b", look).run())
        run.set_tags(stage="two", kind=None)
        return run.tags

    run = saying.start()
    work()
    run.refresh_from_db()
    assert run.output == stored(run) == {"stage": "two"}


def test_what_is_said_after_the_last_record_is_written_when_an_async_run_is_suspended(work):
    @workflow(name="tags_async_suspended")
    async def suspended(run, step: AsyncStep):
        sleeping = asyncio.create_task(step.sleep("pause", "1h"))
        await step.define("one", lambda: None).run()
        run.set_tags(stage="asleep")
        await sleeping

    run = suspended.start()
    work()
    assert (status_of(run), stored(run)) == ("sleeping", {"stage": "asleep"})


def test_mistake_is_raised_where_it_is_said(work):
    @workflow(name="tags_mistaken")
    def mistaken(run, step):
        with pytest.raises(TypeError, match="is a text, got 7"):
            run.set_tags(order=7)
        run.set_tags(**{f"t{number}": "x" for number in range(20)})
        with pytest.raises(ValueError, match="at most 20 tags, these are 21"):
            run.set_tags(more="x")

    run = mistaken.start()
    work()
    assert status_of(run) == "succeeded"
    assert len(stored(run)) == 20


# -- Who inherits them --------------------------------------------------------------------------------


@pytest.fixture
def child():
    @workflow(name="tags_child", tags={"kind": "child"})
    def child(input, run, step):
        return run.tags

    return child


def test_invoked_runs_inherit_tags_and_what_the_run_is_about(work, child):
    @workflow(name="tags_parent", tags={"kind": "parent", "team": "blue"})
    def parent(run, step):
        run.set_tags(stage="said")
        one = step.invoke("one", child).run(0)
        run.set_tags(stage="later")
        many = step.map("many", child, [1, 2, 3])
        step.start("other", child, tags={"of": "its own"}).run(9)
        return [one, *many]

    person = Person.objects.create(name="Ann")
    run = parent.start(tags={"tenant": "acme"}, about=person)
    work()
    run.refresh_from_db()
    inherited = {"kind": "child", "team": "blue", "tenant": "acme"}
    assert run.output == [inherited | {"stage": "said"}, *[inherited | {"stage": "later"}] * 3]
    assert WorkflowRun.objects.about(person).count() == 5
    assert WorkflowRun.objects.tagged(tenant="acme", kind="child").count() == 4
    [other] = WorkflowRun.objects.tagged(of="its own")
    assert stored(other) == {"kind": "child", "of": "its own"}
    assert other.about is None


def test_child_with_too_many_tags_fails_the_step(work, child):
    @workflow(name="tags_full_parent")
    def parent(step):
        step.invoke("one", child).run(0)

    run = parent.start(tags={f"t{number}": "x" for number in range(20)})
    work()
    assert "at most 20 tags, these are 21" in error_of(run)["message"]


def test_run_that_continues_hands_its_tags_over(work):
    @workflow(name="tags_continuing", tags={"kind": "entity"})
    def continuing(input, run, step):
        if input == 0:
            run.set_tags(stage="one", kind=None)
            return step.continue_as_new(1)
        return run.tags

    person = Person.objects.create(name="Ann")
    run = continuing.start(0, tags={"tenant": "acme"}, about=person)
    work()
    run.refresh_from_db()
    successor = run.continued_as
    assert successor.output == stored(successor) == {"tenant": "acme", "stage": "one"}
    assert set(WorkflowRun.objects.about(person)) == {run, successor}


# -- Deleting -----------------------------------------------------------------------------------------


@pytest.fixture
def ended(work):
    @workflow(name="tags_deleted")
    def deleted(input, step):
        return None

    deleted.start_many([1, 2, 3], tags={"tenant": "acme"})
    work()


def test_tags_go_with_their_run_when_it_is_pruned(ended):
    future = 2**52
    assert pruning.prune(connection, future, limit=2) == 2
    assert WorkflowTag.objects.count() == 1
    assert Pruner().batch(connection, future)
    assert not WorkflowTag.objects.exists()


def test_tags_go_with_their_run_when_it_is_deleted(ended):
    WorkflowRun.objects.first().delete()
    assert WorkflowTag.objects.count() == 2
    WorkflowRun.objects.all().delete()
    assert not WorkflowTag.objects.exists()


# -- What it costs ------------------------------------------------------------------------------------


def test_child_costs_nothing_more_where_there_are_no_tags(work, monkeypatch):
    """Of a run without tags no statement names the table."""
    said = []
    monkeypatch.setattr("django_steps.ledger.tags.TAG", "no_such_table")

    @workflow(name="tags_none_child")
    def child(input, step):
        step.define("step", lambda: None).run()

    @workflow(name="tags_none")
    def parent(run, step):
        run.update_details(stage="one")
        step.invoke("one", child).run(0)
        step.map("many", child, [1, 2])
        said.append(run.tags)

    run = parent.start()
    work()
    assert status_of(run) == "succeeded"
    assert said == [{}] * len(said)
