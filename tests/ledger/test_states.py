"""Every line of the table of states is reached, and nothing else is; so it is by random histories (`engine/test_model`)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.db import connection

from django_steps import ledger, workflow
from django_steps.core import clock, states
from django_steps.ledger import claims, expiry, inserts, pauses, transitions, unknown, waits
from django_steps.ledger.inserts import NewRun, Slot
from django_steps.ledger.transitions import Finish
from django_steps.ledger.waits import Suspension, Waiting
from django_steps.models import StepRecord, WorkflowRun
from tests.app.workflows import customer, sleeper, three_steps
from tests.engine.test_model import Modelled
from tests.staging import claim, make_terms, recover, step_write
from tests.states import check_state, table

pytestmark = pytest.mark.django_db(transaction=True)


def finish(run, status):
    claimed = claim(run)
    end = Finish(run_id=run.pk, token=claimed.token, status=status, output="1", finished_at=claimed.now())
    transitions.finish(connection, end)


def sleep(run):
    claimed = claim(run)
    write = step_write(claimed, "nap", kind="sleep", status="waiting", output=None, wakes_at_us=claimed.now() + 1)
    transitions.suspend(connection, run.pk, claimed.token, Suspension(claimed.now() + 10_000_000), write)


def wait(run):
    claimed = claim(run)
    write = step_write(claimed, "paid", kind="event", status="waiting", output=None)
    suspension = waits.suspension([Waiting(("paid",))], clock.NEVER_US, claimed.now())
    transitions.suspend(connection, run.pk, claimed.token, suspension, write)


def die(run, pass_time, max_recoveries):
    claim(run)
    pass_time("31s")
    recover(make_terms(max_recoveries=max_recoveries))


def cancel_parent(run):
    child = three_steps.start({})
    WorkflowRun.objects.filter(pk=child.pk).update(
        parent_id=run.pk, open_parent_id=run.pk, parent_step="child", parent_item=""
    )
    claim(child)
    run.cancel()


def cancel_held(run):
    claimed = claim(run)
    run.cancel()
    return claimed


def undoing():
    """Runs that are canceled with undo."""
    sleep(run := sleeper.start({}))
    run.cancel(undo=True)
    yield run
    unknown.set_aside(connection, [("another", "")])
    yield run
    unknown.bring_back(connection, [("sleeper", "")])
    yield run
    sleeper.pause()
    pauses.park_all(connection)
    yield run
    sleeper.resume()
    yield run
    claim(run)
    yield run


def held_by_schedule():
    """A run that waits for an earlier one of its schedule."""
    new = NewRun(
        workflow="three_steps",
        version="",
        queue="default",
        priority=0,
        input="null",
        input_search=None,
        created_at=clock.host_time(),
        slot=Slot("nightly", clock.host_time(), is_held=True),
    )
    inserts.insert(connection, new)
    return WorkflowRun.objects.get(pk=new.id)


def test_each_line_of_the_table_is_reached(pass_time):
    def walk():
        yield three_steps.start({})
        yield three_steps.start({}, delay="1h")
        yield customer.start({"customer": 7})
        yield (run := three_steps.start({}))
        claim(run)
        yield run
        cancel_held(run := three_steps.start({}))
        yield run
        cancel_parent(run := three_steps.start({}, delay="1h"))
        yield run
        sleep(run := sleeper.start({}))
        yield run
        sleep(run := sleeper.start({}))
        pass_time("1m")
        assert claims.claim(connection, make_terms(), 0).runs == []  # awake, and not claimed
        yield run
        wait(run := sleeper.start({}))
        yield run
        pass_time("2m")
        assert claims.claim(connection, make_terms(), 0).runs == []  # looked at, and left to wait
        yield run
        run.send_event("paid")
        yield run
        run.cancel()
        for status in ("succeeded", "failed"):
            finish(run := three_steps.start({}), status)
            yield run
            if status == "failed":
                run.retry()
                yield run
        die(run := three_steps.start({}), pass_time, 0)
        yield run
        die(run := three_steps.start({}), pass_time, 3)
        yield run
        sleep(run := sleeper.start({}, timeout="1s"))
        pass_time("2s")
        assert expiry.end_expired(connection) == [run.pk]
        yield run
        (run := three_steps.start({})).cancel()
        yield run
        claimed = cancel_held(run := three_steps.start({}))
        transitions.release(connection, run.pk, claimed.token)
        yield run
        cancel_held(run := three_steps.start({}))
        pass_time("31s")
        recover()
        yield run
        (run := three_steps.start({})).pause()
        yield run
        pauses.park_all(connection)  # nothing holds the others
        three_steps.pause()
        yield (run := three_steps.start({}))
        pauses.park_all(connection)
        yield run
        three_steps.resume()
        yield run
        run = three_steps.start({})
        unknown.set_aside(connection, [("another", "")])
        yield run
        unknown.bring_back(connection, [("three_steps", "")])
        yield run
        yield from undoing()
        yield held_by_schedule()

    seen = {check_state(run) for run in walk()}
    assert seen == set(table())


def test_the_table_names_every_status_and_phase():
    assert {row.status for row in table()} == {*states.ACTIVE, *states.FINISHED} == set(WorkflowRun.Status.values)
    assert {row.phase.upper() for row in table()} == set(WorkflowRun.Phase.names)
    assert {row.status for row in table() if row.phase == "ended"} == set(states.FINISHED)
    assert set(StepRecord.Status.values) == {
        value for name, value in vars(states.StepStatus).items() if not name.startswith("_")
    }
    assert set(states.PAUSABLE) < set(states.CANCELABLE)
    assert set(states.RETRYABLE) | set(states.CANCELABLE) < {*states.ACTIVE, *states.FINISHED}


@pytest.mark.parametrize(
    "columns", [{"phase": 2}, {"claim_token": 7}, {"status": "canceling"}, {"current_step": "one"}], ids=str
)
def test_the_model_test_looks_at_the_table(columns):
    @workflow(name="modelled")
    def modelled(input, step):
        pass

    machine = type("Machine", (Modelled,), {"workflow": modelled, "counts": {"runs": 0}})()
    machine.start([])
    machine.history_is_the_beginning_of_the_models()
    WorkflowRun.objects.filter(pk=machine.run.pk).update(**columns)
    with pytest.raises(AssertionError):
        machine.history_is_the_beginning_of_the_models()


def test_a_run_finishes_becomes_ready_and_is_suspended_in_one_place():
    """Only `moves` spells what these UPDATEs set."""
    spelled = re.compile(
        r"phase = (\{(ENDED|Phase\.ENDED)\}|[02]\b)|finished_at = %s|status = '(sleeping|pending|canceled)',"
    )
    found = {
        path.name
        for path in Path(ledger.__file__).parent.rglob("*.py")
        if any(spelled.search(line) for line in path.read_text().splitlines() if not re.search("WHERE|AND", line))
    }
    assert found == {"moves.py"}
