"""Adopting a claim: once, by compare-and-set, whatever happens to the message and to the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.db import connection, connections

from django_steps.core.ids import random_token
from django_steps.ledger import claims, database, handovers, leases, recovery, transitions
from django_steps.ledger.handovers import Handover
from django_steps.ledger.leases import Holding
from django_steps.models import Worker as WorkerRow
from django_steps.models import WorkflowRun
from tests.app.workflows import three_steps
from tests.staging import SECOND, at_once, make_terms, recover, status_of
from tests.wire import counted

pytestmark = pytest.mark.django_db(transaction=True)


def claimed(terms=None):
    return claims.claim(connection, terms or make_terms(), 10).runs


def adopt(handover, terms=None, token=None):
    return handovers.adopt(connection, handover, terms or make_terms(), token or random_token())


def test_adoption_gives_the_claim_a_token_a_worker_and_a_lease_of_its_own():
    run = three_steps.start({"a": 1})
    (claim,) = claimed(make_terms(lease=30 * SECOND))
    terms = make_terms(lease=60 * SECOND)
    adopted = adopt(Handover.of(claim), terms)
    run.refresh_from_db()
    assert adopted.token == run.claim_token != claim.token
    assert adopted.worker_id == run.worker_id == terms.worker_id
    assert run.available_at_us - database.read_clock(connection) > 50 * SECOND
    assert (adopted.run_id, adopted.workflow, adopted.input) == (run.pk, "three_steps", claim.input)
    assert (adopted.is_first, adopted.has_history) == (True, False)
    assert abs(adopted.now() - database.read_clock(connection)) < SECOND
    assert leases.check(connection, {run.pk: Holding(claim.token)}).lost == {run.pk}


def test_adoption_costs_one_statement_on_postgresql_and_two_elsewhere():
    three_steps.start({})
    (claim,) = claimed()
    terms = make_terms()
    with counted(connection) as wire:
        assert adopt(Handover.of(claim), terms) is not None
    assert wire.statements == (1 if connection.vendor == "postgresql" else 2)


def test_message_that_comes_twice_is_adopted_once():
    three_steps.start({})
    (claim,) = claimed()
    terms = make_terms()
    assert adopt(Handover.of(claim), terms) is not None
    with counted(connection) as wire:
        assert adopt(Handover.of(claim), terms) is None
    assert wire.statements == 1


def test_of_many_that_adopt_at_once_one_gets_the_claim():
    three_steps.start_many([{}] * 5)
    terms = make_terms()
    for claim in claimed():
        handover = Handover.of(claim)
        tokens = [random_token() for _ in range(4)]
        attempts = [
            lambda token=token, handover=handover: handovers.adopt(connections["default"], handover, terms, token)
            for token in tokens
        ]
        assert sum(found is not None for found in at_once(attempts)) == 1


def test_adoption_whose_answer_was_lost_may_be_asked_for_again():
    three_steps.start({})
    (claim,) = claimed()
    terms, token = make_terms(), random_token()
    first, again = adopt(Handover.of(claim), terms, token), adopt(Handover.of(claim), terms, token)
    assert first is not None
    assert again is not None
    assert first.token == again.token == token


def test_late_message_finds_a_claim_that_has_gone_on():
    three_steps.start({})
    (claim,) = claimed()
    transitions.release(connection, claim.run_id, claim.token, is_untouched=True)
    assert adopt(Handover.of(claim)) is None
    (newer,) = claimed()
    assert adopt(Handover.of(claim)) is None
    assert adopt(Handover.of(newer)) is not None


def test_canceled_claim_is_not_adopted():
    run = three_steps.start({})
    (claim,) = claimed()
    run.cancel()
    assert adopt(Handover.of(claim)) is None
    assert status_of(run) == "canceling"


def test_claim_of_a_workflow_that_is_not_known_here_is_left_and_can_be_named():
    three_steps.start({})
    (claim,) = claimed()
    assert adopt(Handover.of(claim), replace(make_terms(), kinds=[("sleeper", "")])) is None
    assert handovers.waiting_kind(connection, Handover.of(claim)) == ("three_steps", "")
    assert adopt(Handover.of(claim)) is not None
    assert handovers.waiting_kind(connection, Handover.of(claim)) is None


def test_adopted_claim_of_a_suspected_dispatcher_is_no_longer_suspected():
    run = three_steps.start({})
    (claim,) = claimed()
    recovery.suspect(connection, [run.pk if connection.vendor == "postgresql" else run.pk.hex], SECOND)
    assert adopt(Handover.of(claim)) is not None
    run.refresh_from_db()
    assert run.suspect_since_us is None


def test_death_of_a_dispatcher_costs_no_recovery_of_the_runs_that_nobody_had_adopted(pass_time):
    run = three_steps.start({})
    for _ in range(5):
        terms = make_terms()
        WorkerRow.objects.filter(pk=terms.worker_id).update(executor="celery")
        assert claimed(terms)
        pass_time("1m")
        recover()
    run.refresh_from_db()
    assert (run.status, run.recoveries, run.recovery_log) == ("pending", 0, [])


def test_adopted_claim_knows_the_timeout_the_schedule_and_the_limits_of_its_run():
    limits = ("u-1:a#customer", "utq:mail")
    run = three_steps.start({}, timeout="1h", start_within="2h")
    WorkflowRun.objects.filter(pk=run.pk).update(open_schedule="nightly", limit_1=limits[0], limit_queue=limits[1])
    (claim,) = claimed()
    assert claim.begin_by is not None
    adopted = adopt(Handover.of(claim))
    assert adopted.timeout == claim.timeout == 3600 * SECOND
    assert abs(adopted.expires_at - claim.expires_at) < SECOND
    assert (adopted.schedule, adopted.limits) == (claim.schedule, claim.limits) == ("nightly", limits)
    assert adopted.begin_by == claim.begin_by


def test_adopted_claim_that_is_released_untouched_is_to_begin_by_the_same_time_as_before():
    run = three_steps.start({}, timeout="1h", start_within="2h")
    run.refresh_from_db()
    begin_by = run.expires_at_us
    (claim,) = claimed()
    adopted = adopt(Handover.of(claim))
    transitions.release(
        connection, adopted.run_id, adopted.token, is_untouched=adopted.is_first, begin_by=adopted.begin_by
    )
    run.refresh_from_db()
    assert (run.expires_at_us, run.attempting_since_us) == (begin_by, None)


def test_claim_of_a_run_that_is_to_be_paused_is_not_adopted():
    run = three_steps.start({})
    (claim,) = claimed()
    run.pause()
    assert adopt(Handover.of(claim)) is None
    transitions.release(connection, claim.run_id, claim.token, is_untouched=True)
    assert status_of(run) == "paused"
