"""What child runs cost in statements and commits, counted on the wire; and that a run without any pays nothing."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from django_steps import workflow
from django_steps.ledger import cascades
from django_steps.ledger.tables import RUN, STEP
from django_steps.models import WorkflowRun
from django_steps.worker.tellings import Tellings
from tests.ledger.test_budget import claim, execute, notifications
from tests.plans import analyze, rows_looked_at
from tests.wire import Wire, counted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def warmed_up() -> None:
    """Connections, savepoints and prepared statements are there."""

    @workflow(name="warming")
    def warming(step):
        step.sleep("nap", "1h")

    warming.start()
    (claimed,) = claim()
    execute(claimed)
    WorkflowRun.objects.all().delete()


@pytest.fixture
def leaf() -> Any:
    @workflow
    def leaf(input, step):
        return input

    return leaf


def end() -> Wire:
    """Let the next child go through its only pass."""
    (claimed,) = claim(1)
    return execute(claimed)[1]


class About(Wire):
    """What is sent, with some notifications or none: those that come together are one."""

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Wire)
        more = other.transactions - self.transactions
        return 0 <= more <= 3 * notifications() and other.statements - self.statements == more


# A record that is brought up to date: the lock and the look at the run, where the database doesn't take both with it.
REPLACING = {"sqlite": 3, "mysql": 2, "postgresql": 1}


def test_invoking_is_one_transaction_and_a_look_and_its_end_a_read_and_a_record(leaf):
    @workflow
    def parent(step):
        return step.invoke("child", leaf).run(1)

    run = parent.start()
    (claimed,) = claim()
    _, wire = execute(claimed)
    assert About(statements=4, transactions=2) == wire
    assert About(statements=3, transactions=3) == end()  # the end, a look, and waking the parent
    (claimed,) = claim()
    _, wire = execute(claimed)
    assert wire == Wire(statements=1 + REPLACING[connection.vendor] + 1, transactions=3)
    assert run.result(timeout=0) == 1


@pytest.mark.parametrize("number", [3, 1200])
def test_map_is_a_transaction_for_each_chunk_and_one_for_all_results(leaf, number):
    @workflow
    def parent(step):
        return len(step.map("each", leaf, range(number)))

    run = parent.start()
    (claimed,) = claim()
    _, wire = execute(claimed)
    chunks = -(-number // 500)
    if connection.vendor == "sqlite" and number > 100:  # which takes fewer rows at a time
        assert wire.transactions == chunks + 3
    else:
        assert About(2 * chunks + 3, chunks + 3) == wire
    assert end() == Wire(statements=2, transactions=2)  # the end, and a look
    ids = list(run.children.exclude(status="succeeded").values_list("pk", flat=True))
    children_of = WorkflowRun.objects.filter(parent=run).exclude(status="succeeded")
    children_of.update(status="succeeded", phase=WorkflowRun.Phase.ENDED, open_parent_id=None, output_text="1")
    with counted(connection) as wire:
        cascades.ended(connection, ids[:500])
    assert About(3, 3) == wire  # whose they are, a look, and waking the parent
    (claimed,) = claim()
    _, wire = execute(claimed)
    assert wire.transactions <= 6 and wire.statements <= 12
    assert run.result(timeout=0) == number


def test_ending_a_map_costs_as_much_for_each_child_whatever_the_database_expects(leaf):
    @workflow
    def parent(input, step):
        return len(step.map("each", leaf, range(input)))

    def cost(number: int) -> int:
        run = parent.start(number)
        (claimed,) = claim()
        execute(claimed)
        ended = {"status": "succeeded", "phase": WorkflowRun.Phase.ENDED, "open_parent_id": None, "output_text": "1"}
        ids = list(run.children.values_list("pk", flat=True)[:1])
        WorkflowRun.objects.filter(parent=run).update(**ended, finished_at=timezone.now())
        cascades.ended(connection, ids)
        (claimed,) = claim()
        analyze(RUN, STEP)  # so the database knows of the children, and takes the records for few
        with rows_looked_at() as looked_at:
            execute(claimed)
        assert run.result(timeout=0) == number
        return looked_at[0]

    assert cost(800) < 8 * cost(200)


def test_ends_that_come_together_are_one_look():
    tellings, looks = Tellings(), []
    parent, is_looking, goes_on = uuid4(), threading.Event(), threading.Event()

    def look(ends):
        is_looking.set()
        goes_on.wait(5)
        looks.append(ends)
        return []

    def tell(number: int) -> None:
        tellings.tell(parent, f"step {number % 2}", "succeeded", look)

    first = threading.Thread(target=tell, args=[0])
    first.start()
    is_looking.wait(5)
    others = [threading.Thread(target=tell, args=[number]) for number in range(6)]
    for thread in others:
        thread.start()
    while tellings.waiting < len(others):
        pass
    goes_on.set()
    for thread in [first, *others]:
        thread.join(5)
    assert [sorted(step for _, step in ends) for ends in looks] == [["step 0"], ["step 0", "step 1"]]


def test_canceling_a_run_without_children_costs_as_much_as_ever(leaf):
    run = leaf.start(1)
    with counted(connection) as wire:
        run.cancel()
    # The clock, the run, and reading it back.
    assert About(statements=3, transactions=3) == wire
    run = leaf.start(1)
    claim()
    with counted(connection) as wire:
        run.cancel()
    # One that is executed: one statement more to find that out, and two to find no children.
    assert About(statements=6, transactions=6) == wire
