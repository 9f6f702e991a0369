"""The fingerprint of the arguments of a call: the same for equal ones, in every process and in every version."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import namedtuple
from datetime import UTC, date, datetime, timedelta, tzinfo
from datetime import time as clock_time
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.utils.safestring import mark_safe
from pydantic import BaseModel

from django_steps import values
from django_steps.values.fingerprints import MAX_BYTES, fingerprint

from .test_values import printed_with_other_hashes

Pair = namedtuple("Pair", "x y")


class Color(enum.Enum):
    RED = "r"


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


class Order(BaseModel):
    number: int
    tags: set[str] = set()


def of(*args: Any, **kwargs: Any) -> int | None:
    return fingerprint(args, kwargs)


DIFFERENT: list[Any] = [
    None,
    True,
    1,
    1.0,
    "1",
    b"1",
    2**70,
    -0.5,
    math.nan,
    math.inf,
    "",
    "é",
    "😀",
    "\ud83d",
    mark_safe("1"),
    [],
    [1],
    [[1]],
    (1,),
    {},
    {"a": 1},
    {"a": [1]},
    {1: "a"},
    {"$": "tuple", "v": [1]},
    {1},
    frozenset({1}),
    Decimal("1"),
    Decimal("1.0"),
    datetime(2026, 1, 1),
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    date(2026, 1, 1),
    clock_time(1),
    timedelta(1),
    UUID(int=1),
    Color.RED,
    Pair(1, 2),
    Point(1),
    Point(2),
    Order(number=1),
    Order(number=1, tags={"a"}),
]


def test_other_arguments_have_another_fingerprint() -> None:
    found = [of(value) for value in DIFFERENT]
    assert None not in found
    assert len(set(found)) == len(DIFFERENT)
    assert all(number is not None and -(2**63) <= number < 2**63 for number in found)


def test_place_and_name_of_an_argument_count() -> None:
    found = [of(1, 2), of(2, 1), of([1, 2]), of((1, 2)), of(1, b=2), of(a=1, b=2), of({"a": 1, "b": 2}), of(a={"b": 2})]
    assert len({*found}) == len(found)


@pytest.mark.parametrize("value", DIFFERENT, ids=lambda value: type(value).__name__)
def test_value_that_was_recorded_has_the_fingerprint_of_the_original(value: Any) -> None:
    assert of(values.decode(values.encode(value))) == of(value)
    assert of(key=values.decode(values.encode([value]))) == of(key=[value])


def test_order_of_keys_does_not_count() -> None:
    assert of(a=1, b=2) == of(b=2, a=1)
    assert of(a=[], b=2) == of(b=2, a=[])
    assert of({"a": 1, "b": {"c": 2, "d": 3}}) == of({"b": {"d": 3, "c": 2}, "a": 1})
    assert of({1: "a", "1": "b"}) == of({"1": "b", 1: "a"})
    assert of({"$": 1, "a": Decimal(1)}) == of({"a": Decimal(1), "$": 1})
    assert of(Point({"a": 1, "b": 2})) == of(Point({"b": 2, "a": 1}))


def test_order_of_items_counts_unless_it_is_a_set() -> None:
    assert of([1, 2]) != of([2, 1])
    assert of({"b", "a", "c"}) == of({"c", "b", "a"}) != of({"a", "b"})


def test_call_without_arguments_has_none() -> None:
    assert of() is None


@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda: 1,
        [object()],
        {"a": {object()}},
        User(username="not saved"),
        10**5000,
        "x" * MAX_BYTES,
        b"x" * MAX_BYTES,
        list(range(MAX_BYTES)),
        {str(number): number for number in range(MAX_BYTES)},
        {number: number for number in range(MAX_BYTES)},
        (range(3), "x"),
        Point("x" * MAX_BYTES),
        [[[{"a": "x" * 1000}] * 3], "x" * 1200],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_encoded_or_is_too_long_has_none(value: Any) -> None:
    assert of(value) is None
    assert of(1, key=value) is None


def test_value_that_contains_itself_has_none() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert of(endless) is of((endless,)) is of({"a": endless, "b": {1}}) is None


def test_arguments_of_nearly_4_kib_have_one() -> None:
    assert of("x" * 4000) is not None
    assert of(["x" * 4000]) is not None
    assert of(Point("x" * 3000)) is not None
    assert of(list(range(800))) is not None
    assert of("x" * MAX_BYTES) is None


def test_long_arguments_are_not_encoded_to_their_end() -> None:
    looked: list[int] = []

    class Zone(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta:
            looked.append(1)
            return timedelta(hours=1)

    moment = datetime(2026, 1, 1, tzinfo=Zone())
    assert of((moment,)) is not None and looked
    assert of((moment,) * 100_000) is None
    assert of([0, [moment] * 1000] * 1000) is None
    assert len(looked) < MAX_BYTES


@pytest.mark.django_db
def test_instance_counts_by_its_reference_not_by_its_fields(django_assert_num_queries: Any) -> None:
    user, other = User.objects.create(username="ann"), User.objects.create(username="bob")
    before = of(user)
    User.objects.update(first_name="Ann")
    again = User.objects.only("username").get(pk=user.pk)
    with django_assert_num_queries(0):
        assert before is not None and of(again) == before != of(other)
        assert of(users={"first": again}) == of(users={"first": user})
    assert of(user.pk) != before


def test_fingerprints_are_the_same_in_every_process() -> None:
    code = (
        "from decimal import Decimal; from datetime import date; from urllib.parse import SplitResult\n"
        "from django_steps.values.fingerprints import fingerprint\n"
        "texts = {'delta', 'alpha', 'echo', 'bravo'}\n"
        "for value in (texts, frozenset(texts), {'a': texts}, dict.fromkeys(texts), dict.fromkeys([*texts, 1]),\n"
        "    [{frozenset(texts), date(2026, 1, 1)}], SplitResult('a', texts, Decimal('1.5'), 0.1, 1e30)):\n"
        "    print(fingerprint((value,), {'key': value}), fingerprint((), dict.fromkeys(texts, 1)))\n"
    )
    (printed,) = printed_with_other_hashes(code)
    assert "None" not in printed and len(printed.splitlines()) == 7


def test_fingerprints_stay_the_same_from_version_to_version() -> None:
    """Never change these numbers: they are recorded, and every call in flight is compared with them."""
    assert [of(7), of("a", None, key=True), of("é😀\x7f'", 1.5), of({"b": [1, {"a": None}], "é": "😀"})] == KEPT[:4]
    assert [of((1, Decimal("1.10"))), of(day=date(2026, 1, 31)), of({1: {"b", "a"}}), of([math.nan])] == KEPT[4:]


KEPT = [
    -5154903228496386793,
    -1172096475884983860,
    -6432317982232165043,
    -6692376531058040537,
    -2011128898844935047,
    8969145999584345633,
    -5754910530897028596,
    -4866862168133820467,
]
