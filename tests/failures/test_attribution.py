"""Which steps' failures an exception of a body is: it is looked for in groups and in what it was raised from or in."""

from __future__ import annotations

import pytest

from django_steps import workflow
from django_steps.failures.attribution import Attribution
from django_steps.testing import run_workflow


def linked(count: int, first: BaseException, link: str) -> BaseException:
    """A chain of so many errors that begins with `first`."""
    error = first
    for number in range(count):
        later = ValueError(number)
        setattr(later, link, error)
        error = later
    return error


def nested(count: int, innermost: Exception) -> BaseException:
    error = innermost
    for _ in range(count):
        error = ExceptionGroup("group", [error])
    return error


@pytest.fixture
def attribution() -> Attribution:
    return Attribution()


def failure(attribution: Attribution, step: str) -> ValueError:
    error = ValueError(step)
    attribution.remember(error, [step])
    return error


@pytest.mark.parametrize("wrap", [
    lambda error: linked(5000, error, "__context__"),
    lambda error: linked(5000, error, "__cause__"),
    lambda error: nested(3000, error),
])  # fmt: skip
def test_failure_is_found_at_any_depth(attribution: Attribution, wrap: object) -> None:
    error = wrap(failure(attribution, "charge"))  # type: ignore[operator]
    assert attribution.steps_of(error) == ["charge"]


def test_members_of_a_group_come_before_what_it_was_raised_from(attribution: Attribution) -> None:
    a, b, c = (failure(attribution, name) for name in "abc")
    inner = ExceptionGroup("inner", [linked(2, b, "__cause__"), a, KeyError()])
    outer = ExceptionGroup("outer", [KeyError(), inner, b])
    outer.__cause__ = c
    assert attribution.steps_of(outer) == ["b", "a"]
    without = ExceptionGroup("of others", [KeyError(), ExceptionGroup("inner", [KeyError()])])
    without.__cause__ = c
    assert attribution.steps_of(without) == ["c"]


def test_cause_is_followed_and_the_context_only_where_it_is_not_suppressed(attribution: Attribution) -> None:
    error = KeyError()
    error.__context__ = failure(attribution, "a")
    assert attribution.steps_of(error) == ["a"]
    error.__suppress_context__ = True
    assert attribution.steps_of(error) == []
    error.__cause__ = failure(attribution, "b")
    assert attribution.steps_of(error) == ["b"]


def test_chain_that_ends_in_itself_is_followed_once(attribution: Attribution) -> None:
    one, other = KeyError(), KeyError()
    one.__context__, other.__context__ = other, one
    assert attribution.steps_of(one) == []


@pytest.mark.django_db
@pytest.mark.parametrize("place", ["body", "step"])
def test_run_fails_by_an_error_with_a_long_chain_of_contexts(place: str) -> None:
    def fail() -> None:
        raise linked(1500, KeyError("first"), "__context__")

    @workflow(name=f"long chain in the {place}")
    def body(step):  # type: ignore[no-untyped-def]
        step.define("fail", fail).run() if place == "step" else fail()

    run = run_workflow(body)
    assert (run.error["type"], run.error["message"]) == ("ValueError", "1499")
