"""Tags in the testing kit: its runs are real ones."""

from __future__ import annotations

import pytest

from django_steps import workflow
from django_steps.models import WorkflowRun
from django_steps.testing import FakeStep, drain, run_workflow
from tests.app.models import Person


@workflow(name="tags_kit", tags={"kind": "kit"})
def tagging(input, run, step):
    run.set_tags(stage="begun")
    step.define("one", lambda: None).run()
    step.start("other", other, tags={"tenant": "acme"}).run()
    run.set_tags(stage="done")
    return run.tags


@workflow(name="tags_kit_other")
def other(step):
    return None


@pytest.mark.django_db
@pytest.mark.parametrize("straight_through", [False, True])
def test_run_of_the_kit_has_its_tags(straight_through):
    person = Person.objects.create(name="Ann")
    run = run_workflow(tagging, tags={"tenant": "acme"}, about=person, straight_through=straight_through)
    assert run.output == run.tags == {"kind": "kit", "tenant": "acme", "stage": "done"}
    assert WorkflowRun.objects.about(person).get() == run
    [started] = drain()
    assert started.tags == {"tenant": "acme"}


def test_fake_step_takes_tags():
    assert FakeStep().start("other", other, tags={"tenant": "acme"}).run() is not None
    with pytest.raises(TypeError, match="is a text, got 7"):
        FakeStep().start("another", other, tags={"order": 7})
