"""Which unit of a group is taken next, without threads."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from django_steps.engine.groups import Group, Tolerance
from django_steps.engine.history import History
from django_steps.engine.scopes import Scope
from django_steps.engine.units import Unit, UnitStatus
from django_steps.errors import FailureWasHandled
from django_steps.ledger.order import Level, Place, failures


def units(count: int) -> list[Unit]:
    scope = Scope(History())
    return [Unit(str(number), f"m#{number}", None, scope, "m") for number in range(count)]


def group(members: list[Unit], concurrency: int | None = None, **tolerance: Any) -> Group:
    made = Group(members, concurrency, Tolerance(len(members), **tolerance))
    made.open()
    return made


def suspend(made: Group, unit: Unit, until: int) -> None:
    unit.suspended_until = until
    made.put_back(unit)


def test_suspended_units_are_taken_again_when_they_are_due_and_keep_their_places() -> None:
    members = units(3)
    made = group(members, concurrency=2)
    first, second = made.take(0), made.take(0)
    assert [first, second] == members[:2] and made.take(0) is None
    suspend(made, members[0], 50)
    suspend(made, members[1], 40)
    assert made.take(10) is None and made.next_due() == 40
    assert made.take(45) is members[1]
    assert members[1].suspended_until is None


def test_alone_nothing_is_taken_while_a_unit_is_executed() -> None:
    made = group(units(2))
    first = made.take(0, alone=True)
    assert first is not None and made.take(0, alone=True) is None
    made.put_back(first)
    assert made.take(0, alone=True) is not None


def test_closed_group_gives_nothing_to_a_thread_that_comes_late() -> None:
    members = units(1)
    made = group(members)
    taken = made.take(0)
    assert taken is not None
    assert not made.close()  # it is executed
    suspend(made, taken, 10)
    assert made.close()
    assert made.take(100) is None and not made.has_work(100)
    made.open()
    assert made.take(100) is members[0]


@pytest.mark.parametrize(
    ("options", "ends", "is_decided", "has_failed"),
    [
        ({}, [False, False], False, False),
        ({}, [False, True], True, True),
        ({"tolerates_all": True}, [True, True, True], False, False),
        ({"max_failures": 1}, [True], False, False),
        ({"max_failures": 1}, [True, True], True, True),
        ({"min_successes": 2}, [True, False], False, False),
        ({"min_successes": 2}, [False, False], True, False),
        ({"min_successes": 2}, [True, True], True, True),
        ({"min_successes": 1, "max_failures": 0}, [True], True, True),
        ({"min_successes": 1, "max_failures": 0}, [False, True], True, False),
    ],
)
def test_decision_is_made_once(options: Any, ends: list[bool], is_decided: bool, has_failed: bool) -> None:
    tolerance = Tolerance(3, **options)
    for has_ended_badly in ends:
        tolerance.note(has_failed=has_ended_badly)
    assert (tolerance.is_decided, tolerance.has_failed) == (is_decided, has_failed)


def test_left_units_are_not_taken_again() -> None:
    members = units(1)
    made = group(members)
    taken = made.take(0)
    assert taken is not None
    made.put_back(taken)
    assert taken.status is UnitStatus.LEFT and made.take(100) is None


def test_whether_failures_were_handled_takes_no_quadratic_time() -> None:
    places = []
    for number in range(10_000):
        path = f"m#{number}"
        places.append(Place(f"{path}/charge", 2 * number, -1, (Level(path, "m", -1),)))
        places.append(Place(path, 2 * number + 1, -1, (), "m"))
    began = time.process_time()
    steps = [place.name for place in places[:10_000]]
    assert failures(places, steps) == steps
    assert time.process_time() - began < 2  # comparing each with each takes half a minute


def some_places(chance: random.Random) -> list[Place]:
    """Records of branches within branches, whose entries are what was known by then."""
    places: list[Place] = []
    scopes: list[tuple[tuple[Level, ...], int]] = [((), -1)]
    for number in range(chance.randrange(2, 12)):
        index = chance.randrange(len(scopes))
        levels, known = scopes[index]
        name = f"{levels[-1].branch if levels else ''}/{number}"
        places.append(Place(name, number, known, levels))
        if chance.random() < 0.5:
            scopes[index] = (levels, number)
        if chance.random() < 0.4:
            scopes.append(((*levels, Level(f"{name}#", "", scopes[index][1])), scopes[index][1]))
    return places


def test_failure_is_handled_if_any_other_record_is_later() -> None:
    answers = set()
    for seed in range(500):
        places = some_places(random.Random(seed))
        failed = random.Random(seed).choice(places)
        later = [place.name for place in places if place is not failed and place.is_later(failed)]
        answers.add(bool(later))
        try:
            assert failures(places, [failed.name]) == [failed.name] and not later
        except FailureWasHandled as error:
            assert later and error.later == later
    assert answers == {True, False}
