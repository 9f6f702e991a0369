"""Values are recorded so that every pass reads the same: same types, same order; or they are refused, saying where."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import operator
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import TZPATH, ZoneInfo

import pydantic
import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.db import models
from django.http import QueryDict
from django.utils import timezone as django_timezone
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given, settings
from hypothesis import strategies as st

from django_steps import values
from django_steps.errors import (
    RecordedInstanceGone,
    UnreadableValue,
    UnserializableResult,
    UnserializableValue,
    ValueTooLarge,
)
from django_steps.models import Worker, WorkflowRun

ROOT = Path(__file__).parent.parent.parent
BERLIN = ZoneInfo("Europe/Berlin")


class Color(enum.Enum):
    RED = object()  # a value that can't be encoded is no obstacle
    ALIAS = RED


class Size(models.TextChoices):
    SMALL = "s", "small"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2


class Name(enum.StrEnum):
    ANN = "ann"


class Point(NamedTuple):
    x: int
    y: Any = 0


Pair = namedtuple("Pair", "left right")


class Tagged(Pair):
    """A namedtuple that can carry attributes."""


@dataclasses.dataclass
class Order:
    number: int
    lines: list[Any] = dataclasses.field(default_factory=list)
    note: str = ""

    class Status(enum.Enum):
        NEW = "new"


@dataclasses.dataclass(frozen=True)
class Key:
    name: str
    when: date


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    amount: Decimal
    tags: tuple[str, ...] = ()

    @property
    def total(self) -> Decimal:
        return self.amount * len(self.tags)


@dataclasses.dataclass(frozen=True, slots=True)
class SlottedBelow(Slotted):
    more: int = 0


@dataclasses.dataclass
class Derived:
    width: int
    scale: dataclasses.InitVar[int] = 1
    area: int = dataclasses.field(init=False)

    def __post_init__(self, scale: int) -> None:
        self.area = self.width * scale
        self.extra = "set in __post_init__"

    @functools.cached_property
    def cached(self) -> Any:
        return object()


@dataclasses.dataclass
class DictAndFields(dict):  # type: ignore[type-arg]
    number: int = 0


class Address(pydantic.BaseModel):
    street: str
    zip_code: str = "10115"
    _hits: int = pydantic.PrivateAttr(0)

    @functools.cached_property
    def cached(self) -> Any:
        return object()


class Open(pydantic.BaseModel, extra="allow"):
    name: str
    home: Address | None = None


class Assigned(Open, validate_assignment=True):
    pass


class Names(pydantic.RootModel[list[str]]):
    pass


class Half(str):
    pass


class Ticket:
    def __init__(self) -> None:
        self.number = 1


class Moon(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=1)


def exactly(value: Any) -> Any:
    """The value with the types that `==` doesn't see."""
    if isinstance(value, float):
        return ("float", value.hex())
    if isinstance(value, Decimal):
        return ("Decimal", value.as_tuple())
    if isinstance(value, datetime):
        return (type(value), value.replace(tzinfo=None), value.fold, repr(value.tzinfo))
    if isinstance(value, time):
        return (type(value), value.replace(tzinfo=None), value.fold, repr(value.tzinfo))
    if type(value) in (list, tuple):
        return (type(value), [exactly(item) for item in value])
    if isinstance(value, dict):
        return (type(value), [(exactly(key), exactly(item)) for key, item in value.items()])
    if isinstance(value, (set, frozenset)):
        # A set is read as a subclass, which has an order.
        return (isinstance(value, set), {repr(exactly(item)) for item in value})
    return (type(value), value)


def round_trip(value: Any) -> Any:
    text = values.encode(value)
    assert text.isascii()
    json.loads(text, parse_constant=pytest.fail)  # strictly valid: no NaN, no Infinity
    return values.decode(text)


# -- What comes back -----------------------------------------------------------------------------

NESTED = {"tags": ({1, 2}, frozenset({"a"})), "at": [datetime(2024, 1, 2, 3, 4, 5, 6, BERLIN), None]}

PLAIN = [
    None,
    True,
    False,
    0,
    -1,
    2**63,
    -(2**200),
    10**4298,
    0.0,
    -0.0,
    1e22,
    5e-324,
    1.7976931348623157e308,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "ü 漢字 한국어 😀",
    "a\x00b\x1f\x7f\u2028",
    "\ud800",
    "\udc00\ud800",
    "\ud83d\ude00",
    "x\ud83d\ude00😀\ud83d\ude00",
    '"$":',
    '{"$":"model",',
    [],
    {},
    [[[]]],
    {"b": 1, "a": 2},
    {"": ""},
    {"😀": "\ud83d\ude00"},
    {"\ud83d\ude00": 1, "😀": 2},
]
TAGGED = [
    (),
    (1,),
    (1, (2, [3])),
    set(),
    {1, "a", None, (2, 3)},
    frozenset({1.5, b"x"}),
    {frozenset({1}), frozenset()},
    {1: "int", "1": "str", None: 0, (1, 2): [3], 2.5: 1, date(2024, 1, 1): 1},
    {"$": 1},
    {"$": "tuple", "v": [1]},
    {"a": {"$": {"$": "model", "of": "auth.User"}}},
    [math.nan, {"x": -math.inf}],
    NESTED,
    {"nested": [NESTED, (NESTED,)]},
    b"",
    bytes(range(256)),
    Decimal("1.10"),
    Decimal("-0"),
    Decimal("1E+3"),
    Decimal("1E-400"),
    Decimal("NaN"),
    Decimal("-sNaN123"),
    Decimal("-Infinity"),
    uuid.UUID(int=7),
    date.min,
    date.max,
    datetime.min,
    datetime.max,
    datetime(2024, 10, 27, 2, 30, fold=1),
    datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
    datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, microsecond=1, tzinfo=ZoneInfo("UTC")),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-5, microseconds=3))),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(0), "Zulu")),
    datetime(2024, 1, 1, tzinfo=django_timezone.get_fixed_timezone(90)),
    time(1, 2, 3, 4, fold=1),
    time(1, 2, tzinfo=UTC),
    time(1, 2, tzinfo=BERLIN),
    timedelta.min,
    timedelta.max,
    timedelta(microseconds=-1),
    mark_safe("<b>ü</b>"),
    mark_safe("\ud83d\ude00"),
    {mark_safe("key"): 1},
]


@pytest.mark.parametrize(
    "value", PLAIN + TAGGED, ids=lambda value: repr(value)[:40].encode("ascii", "replace").decode()
)
def test_value_comes_back_with_the_same_types_and_order(value: Any) -> None:
    assert exactly(round_trip(value)) == exactly(value)
    assert exactly(round_trip([value])) == exactly([value])
    assert exactly(round_trip({"key": (value,)})) == exactly({"key": (value,)})


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(0))])
def test_utc_comes_back_as_the_one_utc(zone: tzinfo) -> None:
    assert round_trip(datetime(2024, 1, 1, tzinfo=zone)).tzinfo is UTC


class Keyed(Moon):
    """A zone that says by what key others know it, as those of pytz do with `zone`."""

    def __init__(self, *, hours: float = 1, **names: Any) -> None:
        self.hours = hours
        vars(self).update(names)

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=self.hours)


class Endless(tzinfo):
    """A zone that knows no offset."""

    def utcoffset(self, when: datetime | None) -> None:
        return None


SUMMER, AMBIGUOUS = datetime(2024, 7, 1), datetime(2024, 10, 27, 2, 30)
HOUR = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2024, 1, 1, tzinfo=Moon()), datetime(2024, 1, 1, tzinfo=HOUR)),
        (time(1, 2, tzinfo=Moon()), time(1, 2, tzinfo=HOUR)),
        (
            pydantic.TypeAdapter(datetime).validate_python("2024-01-01T00:00:00+01:00"),
            datetime(2024, 1, 1, tzinfo=HOUR),
        ),
        (pydantic.TypeAdapter(datetime).validate_python("2024-01-01T00:00:00Z"), datetime(2024, 1, 1, tzinfo=UTC)),
        (pydantic.TypeAdapter(time).validate_python("01:02:00+01:00"), time(1, 2, tzinfo=HOUR)),
        (SUMMER.replace(tzinfo=Keyed(key="Europe/Berlin", hours=2)), SUMMER.replace(tzinfo=BERLIN)),
        (SUMMER.replace(tzinfo=Keyed(zone="Europe/Berlin", hours=2)), SUMMER.replace(tzinfo=BERLIN)),
        # Which of two hours, such zones may say by their offset.
        (AMBIGUOUS.replace(tzinfo=Keyed(zone="Europe/Berlin", hours=2)), AMBIGUOUS.replace(tzinfo=BERLIN)),
        (AMBIGUOUS.replace(tzinfo=Keyed(zone="Europe/Berlin")), AMBIGUOUS.replace(tzinfo=BERLIN, fold=1)),
        # Not the zone of that key.
        (SUMMER.replace(tzinfo=Keyed(key="Europe/Berlin")), SUMMER.replace(tzinfo=HOUR)),
        (SUMMER.replace(tzinfo=Keyed(key="Mars/Olympus")), SUMMER.replace(tzinfo=HOUR)),
        (SUMMER.replace(tzinfo=Keyed(key="../etc/passwd")), SUMMER.replace(tzinfo=HOUR)),
        (SUMMER.replace(tzinfo=Keyed(key="Europe")), SUMMER.replace(tzinfo=HOUR)),
        (SUMMER.replace(tzinfo=Keyed(key=7)), SUMMER.replace(tzinfo=HOUR)),
        (time(1, 2, tzinfo=Keyed(zone="Europe/Berlin")), time(1, 2, tzinfo=HOUR)),
    ],
    ids=repr,
)
def test_zone_of_another_class_comes_back_by_its_key_or_its_offset(value: Any, expected: Any) -> None:
    back = round_trip([value])[0]
    assert exactly(back) == exactly(expected)
    if isinstance(value, datetime):
        assert back.utcoffset() == value.utcoffset()


def test_time_comes_back_by_the_key_of_its_zone_where_it_has_no_offset() -> None:
    class WithoutDate(Endless):
        zone = "Europe/Berlin"

    assert exactly(round_trip(time(1, 2, tzinfo=WithoutDate()))) == exactly(time(1, 2, tzinfo=BERLIN))


class FakeDatetime(datetime):
    """What freezegun puts in the place of `datetime`, and below of `date`."""

    __module__ = "freezegun.api"


class FakeDate(date):
    __module__ = "freezegun.api"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (FakeDatetime(2024, 1, 2, 3, 4, 5, 6, UTC), datetime(2024, 1, 2, 3, 4, 5, 6, UTC)),
        (
            FakeDatetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
            datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
        ),
        (FakeDate(2024, 1, 2), date(2024, 1, 2)),
    ],
)
def test_date_of_freezegun_comes_back_as_a_plain_one(value: Any, expected: Any) -> None:
    assert exactly(round_trip({"at": [value]})) == exactly({"at": [expected]})
    assert values.searchable({value: value}) == {expected.isoformat(): expected.isoformat()}


def test_date_is_read_as_a_plain_one_while_the_classes_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [values.encode(value) for value in (datetime(2024, 1, 2, tzinfo=UTC), date(2024, 1, 2))]
    monkeypatch.setattr("django_steps.values.types.datetime", FakeDatetime)
    monkeypatch.setattr("django_steps.values.types.date", FakeDate)
    assert [type(values.decode(text)) for text in texts] == [datetime, date]


@pytest.mark.parametrize("kind", [datetime, date])
def test_other_subclass_of_a_date_is_refused(kind: Any) -> None:
    with pytest.raises(UnserializableValue, match="it is a subclass"):
        values.encode(type("Timestamp", (kind,), {})(2024, 1, 1))


def test_zone_made_from_a_file_comes_back_by_its_offset() -> None:
    path = next(path for path in (Path(directory, "Europe", "Berlin") for directory in TZPATH) if path.exists())
    with path.open("rb") as file:
        zone = ZoneInfo.from_file(file)
    assert exactly(round_trip(SUMMER.replace(tzinfo=zone))) == exactly(
        SUMMER.replace(tzinfo=timezone(timedelta(hours=2)))
    )


@pytest.mark.parametrize(
    "member",
    [
        Color.RED,
        Color.ALIAS,
        Size.SMALL,
        Level.LOW,
        Access.READ,
        Access.READ | Access.WRITE,
        Access(0),
        Bits.ONE | Bits.TWO,
        Bits(64),
        Name.ANN,
        Order.Status.NEW,
        WorkflowRun.Status.FAILED,
    ],
)
def test_enum_member_comes_back_as_the_member_itself(member: enum.Enum) -> None:
    assert round_trip(member) is member
    assert round_trip({member: [member]}) == {member: [member]}


@pytest.mark.parametrize("value", [Point(1, Decimal(2)), Pair((1,), {2}), Tagged(1, 2)])
def test_namedtuple_comes_back_as_an_instance_of_its_class(value: Any) -> None:
    assert (round_trip(value), type(round_trip(value))) == (value, type(value))


@pytest.mark.parametrize(
    "value",
    [
        Order(1, [Order(2, [(1, 2)])]),
        Key("a", date(2024, 1, 1)),
        Slotted(Decimal("1.0"), ("x",)),
        {Key("a", date.max): 1},
    ],
)
def test_dataclass_comes_back_as_an_instance_of_its_class(value: Any) -> None:
    assert (round_trip(value), type(round_trip(value))) == (value, type(value))


def test_dataclass_is_rebuilt_without_calling_its_init() -> None:
    value = Derived(3, scale=5)
    value.width = 4  # what __init__ would compute from it is another area
    back = round_trip(value)
    assert vars(back) == {"width": 4, "area": 15, "extra": "set in __post_init__"}


def test_cached_property_is_computed_again_instead_of_being_recorded() -> None:
    value, model = Derived(1), Address(street="a")
    assert value.cached is not None
    assert model.cached is not None
    assert "cached" not in vars(round_trip(value))
    assert "cached" not in vars(round_trip(model))


def test_dataclass_without_a_value_for_a_field_comes_back_without_it() -> None:
    value = Order(1)
    del value.note
    assert vars(round_trip(value)) == {"number": 1, "lines": [], "note": ""}  # what the class itself would give


def test_field_that_is_newer_than_the_record_gets_its_default() -> None:
    text = values.encode(Order(1)).replace('"lines":[],"note":""', '"gone":true')
    assert vars(values.decode(text)) == {"number": 1, "gone": True, "lines": [], "note": ""}
    text = values.encode(Point(1, 2)).replace(',"y":2', "")
    assert values.decode(text) == Point(1, 0)


def test_field_that_a_class_with_slots_has_lost_is_left_out() -> None:
    lost = values.encode(Slotted(Decimal(1))).replace('"tags"', '"lost"')
    assert values.decode(lost) == Slotted(Decimal(1))
    lost = values.encode(SlottedBelow(Decimal(1), ("a",), 2)).replace('"more"', '"lost"')
    back = values.decode(lost)
    assert back == SlottedBelow(Decimal(1), ("a",), 0)
    renamed = values.encode(Slotted(Decimal(1))).replace('"tags"', '"total"')  # now a property of the class
    assert values.decode(renamed) == Slotted(Decimal(1))


def test_pydantic_model_comes_back_without_validation_and_with_its_fields_set() -> None:
    value = Open.model_construct(name=7, home=Address(street="x"), more=(1, Decimal(2)))
    value.home._hits = 3
    back = round_trip(value)
    assert back == value
    assert (back.name, back.more, back.home._hits) == (7, (1, Decimal(2)), 3)
    assert back.model_fields_set == value.model_fields_set == {"name", "home"}
    assert back.home.model_fields_set == {"street"}
    assert round_trip(Names(["a"])) == Names(["a"])


def test_field_of_a_pydantic_model_that_is_newer_than_the_record_gets_its_default() -> None:
    back = values.decode(values.encode(Address(street="a")).replace(',"zip_code":"10115"', ""))
    assert back == Address(street="a")


def test_each_decoding_gives_fresh_objects() -> None:
    text = values.encode({"items": [[1]]})
    first = values.decode(text)
    first["items"][0].append(2)
    assert values.decode(text) == {"items": [[1]]}


def printed_with_other_hashes(code: str) -> set[str]:
    """What the code prints in several processes, in which texts have different hashes."""
    return {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }


def test_equal_sets_give_the_same_text_in_every_process() -> None:
    code = "from django_steps.values import encode; print(encode({'s': {'b', 'a', 'c', 1, (2,), None}}))"
    assert len(printed_with_other_hashes(code)) == 1


SET_OF_TEXTS = {"delta", "alpha", "echo", "bravo", "charlie"}
IN_ORDER = sorted(SET_OF_TEXTS)


@pytest.mark.parametrize("made", ["set", "frozenset"])
def test_recorded_set_is_read_in_the_same_order_in_every_process(made: str) -> None:
    code = (
        "from django_steps.values import decode, encode; from datetime import date; from copy import copy, deepcopy\n"
        f"items = decode(encode({made}([*'abcdefghij', date(2026, 1, 1), date(2026, 1, 2), ('x', 1), None])))\n"
        "again = decode(encode(items))\n"
        "print([list(items), [*again], sorted(enumerate(again), key=str), copy(items), deepcopy({1: items})])\n"
        "print(items | {'z'}, items - {'a'}, items & {'a', 'c', 'e'}, items ^ {'a', 'z'})\n"
        f"print({made}('ace') & items, {made}('xb') | items)\n"
        "print(items.union('xyz', 'x'), items.intersection('fdb'), items.difference('bd'))"
    )
    assert len(printed_with_other_hashes(code)) == 1


def test_fields_set_of_a_pydantic_model_are_read_in_the_same_order_in_every_process() -> None:
    code = (
        "import django; django.setup()\n"
        "from django_steps.values import decode, encode; from tests.values.test_values import Open\n"
        "print([*decode(encode(Open(name='n', **dict.fromkeys('abcdefgh', 1)))).model_fields_set])"
    )
    assert len(printed_with_other_hashes(code)) == 1


@pytest.mark.parametrize("made", [set, frozenset])
def test_recorded_set_is_a_set_to_everything(made: Any) -> None:
    value = round_trip(made(SET_OF_TEXTS))
    assert isinstance(value, made)
    assert (value == made(SET_OF_TEXTS), value != made("x"), len(value), bool(round_trip(made()))) == (
        True,
        True,
        5,
        False,
    )
    assert (value <= SET_OF_TEXTS, value >= SET_OF_TEXTS, value > {"alpha"}, value.isdisjoint("x")) == (True,) * 4
    assert (list(value), "alpha" in value, "x" in value) == (IN_ORDER, True, False)
    assert repr(round_trip(made("ba"))) == ("{'a', 'b'}" if made is set else "frozenset({'a', 'b'})")
    assert repr(round_trip(made())) == repr(made())
    assert type(pickle.loads(pickle.dumps(value))) is made  # so that no pickle names a module that may be moved
    assert pickle.loads(pickle.dumps(value)) == value
    assert values.encode(value) == values.encode(made(SET_OF_TEXTS))
    if made is frozenset:
        assert {value: 1}[frozenset(SET_OF_TEXTS)] == 1


@pytest.mark.parametrize("made", [set, frozenset])
@pytest.mark.parametrize(
    "name", ["__or__", "__and__", "__sub__", "__xor__", "__ror__", "__rand__", "__rsub__", "__rxor__"]
)
@pytest.mark.parametrize("other", [{"a", "z"}, frozenset("ab"), {"a": 1}.keys(), ["a"], set()])
def test_operators_on_a_recorded_set_give_what_they_give_on_a_plain_one(made: Any, name: str, other: Any) -> None:
    plain = made("abc")
    recorded = round_trip(plain)
    operation = getattr(operator, name.replace("__r", "__", 1) if name not in ("__rand__",) else "__and__")
    both = (
        (lambda value: operation(other, value)) if name.startswith("__r") else (lambda value: operation(value, other))
    )
    try:
        expected = both(plain)
    except TypeError:
        with pytest.raises(TypeError):
            both(recorded)
        return
    assert both(recorded) == expected
    assert recorded == plain


def test_recorded_set_can_be_changed_and_keeps_the_order_of_what_was_added() -> None:
    value = round_trip({"a", "b", "c"})
    value.add("0")
    value.add("a")
    value.update(["y", "x"], {"a"})
    assert list(value) == ["a", "b", "c", "0", "y", "x"]
    value.discard("b")
    value.discard("nothing")
    value.remove("x")
    with pytest.raises(KeyError):
        value.remove("x")
    assert (value.pop(), list(value)) == ("a", ["c", "0", "y"])
    alias = value
    value |= {"q"}
    value -= {"c"}
    value &= {"q", "0", "r"}
    value ^= {"q", "s"}
    assert alias is value
    assert (list(value), set(value), len(value)) == (["0", "s"], {"0", "s"}, 2)
    value.intersection_update("s0")
    value.difference_update("0")
    value.symmetric_difference_update("st")
    assert (list(value), value.copy()) == (["t"], {"t"})
    value.clear()
    assert (list(value), value) == ([], set())
    with pytest.raises(KeyError):
        value.pop()


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.text(st.sampled_from("$a\0\ud83d\ude00😀"))
    | st.binary()
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.timedeltas()
    | st.uuids()
)
keys = st.text() | st.just("$") | st.integers() | st.tuples(st.integers(), st.text())


@settings(max_examples=150, deadline=None, database=None)
@given(
    st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(keys, inner, max_size=4)
            | st.frozensets(st.integers() | st.text(), max_size=3)
        ),
        max_leaves=12,
    )
)
def test_any_combination_comes_back(value: Any) -> None:
    assert exactly(round_trip(value)) == exactly(value)
    assert values.encode(values.decode(values.encode(value))) == values.encode(value)


def test_recorded_set_may_be_changed_by_code_in_c() -> None:
    value = round_trip({"a", "b"})
    set.add(value, "0")
    assert list(value) == ["a", "b", "0"]
    set.discard(value, "a")
    set.add(value, "c")
    assert (list(value), value | {"d"}, value.pop()) == (["b", "0", "c"], {"b", "0", "c", "d"}, "b")
    model = round_trip(Assigned(name="a"))
    model.home = Address(street="x")
    assert set(model.model_fields_set) == {*model.model_fields_set} == {"name", "home"}
    assert model.model_dump(exclude_unset=True)["home"] == {"street": "x"}


# -- Model instances -----------------------------------------------------------------------------


@pytest.mark.django_db
def test_model_instance_comes_back_as_the_row_is_now() -> None:
    user = User.objects.create(username="ann")
    text = values.encode({"user": user})
    User.objects.update(username="bob")
    back = values.decode(text)["user"]
    assert (type(back), back.pk, back.username, back._state.db) == (User, user.pk, "bob", "default")


@pytest.mark.django_db
def test_model_instance_is_found_by_primary_keys_of_other_types() -> None:
    run = WorkflowRun(workflow="w", input_text="null", created_at=django_timezone.now())
    run.save(force_insert=True)
    session = Session.objects.create(session_key="k", session_data="", expire_date=django_timezone.now())
    assert round_trip((run, session)) == (run, session)
    assert round_trip(run) == run


@pytest.mark.django_db
def test_model_instance_is_found_whose_primary_key_was_given_as_text() -> None:
    users = [User.objects.create(pk=str(number), username=str(number)) for number in (71, 72)]
    runs = [
        WorkflowRun.objects.create(id=text, workflow="w", input_text="null", created_at=django_timezone.now())
        for text in (str(uuid.uuid4()), uuid.uuid4().hex)
    ]
    session = Session.objects.create(session_key=7, session_data="", expire_date=django_timezone.now())
    for instances in (users, runs, [session, session]):
        back = round_trip(instances)
        assert [type(instance.pk) for instance in back] == [type(type(back[0]).objects.first().pk)] * 2
        assert [str(instance.pk).replace("-", "") for instance in back] == [
            str(instance.pk).replace("-", "") for instance in instances
        ]
        assert round_trip(instances[0]).pk == back[0].pk
    assert values.searchable(users[0]) == {"model": "auth.User", "pk": 71}


@pytest.mark.django_db
def test_row_that_is_gone_names_model_and_primary_key() -> None:
    user, group = User.objects.create(username="ann"), Group.objects.create(name="g")
    one, many = values.encode(user), values.encode([group, user])
    key = user.pk
    user.delete()
    for text in (one, many):
        with pytest.raises(RecordedInstanceGone) as raised:
            values.decode(text)
        assert (raised.value.model, raised.value.pk) == ("auth.User", key)


@pytest.mark.django_db
def test_rows_are_loaded_with_one_query_for_each_model(django_assert_num_queries: Any) -> None:
    users = [User.objects.create(username=f"user {number}") for number in range(5)]
    groups = [Group.objects.create(name=f"group {number}") for number in range(3)]
    text = values.encode({"users": users, "groups": {group: group.name for group in groups}, "first": users[0]})
    with django_assert_num_queries(2):
        back = values.decode(text)
    assert back == {"users": users, "groups": {group: group.name for group in groups}, "first": users[0]}
    assert back["first"] is not back["users"][0]


@pytest.mark.django_db
def test_instance_with_deferred_fields_comes_back_with_all_of_them(django_assert_num_queries: Any) -> None:
    User.objects.create(username="ann")
    with django_assert_num_queries(2):
        assert round_trip(User.objects.only("pk").get()).__dict__["username"] == "ann"


@pytest.mark.django_db
@pytest.mark.parametrize("make", [User, lambda: User(pk=1), lambda: WorkflowRun(workflow="w"), lambda: deleted()])
def test_instance_without_a_row_is_refused(make: Any) -> None:
    with pytest.raises(UnserializableValue, match=r"result\[0\]: <class '.*'> can't be recorded; it isn't saved"):
        values.encode([make()])


def deleted() -> Group:
    group = Group.objects.create(name="g")
    group.delete()
    return group


# -- What is refused -----------------------------------------------------------------------------


def local_class_instance() -> Any:
    @dataclasses.dataclass
    class Local:
        number: int = 1

    return Local()


class Impostor(enum.Enum):
    ONE = 1


Impostor.__qualname__ = "Size"


async def coroutine_function() -> None: ...


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (Ticket(), "plain data"),
        (object(), "plain data"),
        (User.objects, "rows or their primary keys"),
        (QueryDict("a=1"), "value.dict()"),
        (OrderedDict(a=1), "dict(value)"),
        (defaultdict(list), "dict(value)"),
        (Half("a"), "str(value)"),
        (type("Int", (int,), {})(1), "int(value)"),
        (bytearray(b"x"), "bytes(value)"),
        (memoryview(b"x"), "bytes(value)"),
        (range(3), "list(value)"),
        ({}.keys(), "list(value)"),
        ((number for number in ()), "list(value)"),
        (map(str, ()), "list(value)"),
        (len, "function"),
        (test_value_comes_back_with_the_same_types_and_order, "function"),
        (lambda: 1, "function"),
        ([].append, "function"),
        (Ticket, "its name"),
        (int, "its name"),
        (ValueError("x"), "str(error)"),
        (Path("/tmp"), "str(path)"),
        (1j, "value.real"),
        (threading.Lock(), "plain data"),
        (gettext_lazy("Yes"), "str(value)"),
        (SimpleLazyObject(lambda: 1), "lazy object"),
        (local_class_instance(), "inside a function"),
        (Impostor.ONE, "can't be imported as tests.values.test_values.Size"),
        (DictAndFields(1), "dict(value)"),
        (datetime(2024, 1, 1, tzinfo=Endless()), "zoneinfo"),
        (time(1, tzinfo=Endless()), "zoneinfo"),
        (10**4300, "hex(value)"),
    ],
    ids=lambda value: repr(value)[:30] if not isinstance(value, int) else "int",
)
def test_refused_value_is_named_with_its_path_and_what_to_use_instead(value: Any, hint: str) -> None:
    with pytest.raises(UnserializableValue) as raised:
        values.encode({"user": [{"avatar": value}]})
    message = str(raised.value)
    assert type(raised.value) is UnserializableResult
    assert message.startswith('result["user"][0]["avatar"]: <class \'')
    assert hint in message


def test_queryset_is_refused_without_being_evaluated(django_assert_num_queries: Any, db: None) -> None:
    with django_assert_num_queries(0), pytest.raises(UnserializableValue, match="it is a query, not its rows"):
        values.encode(User.objects.all())


def test_coroutine_that_was_never_awaited_is_refused() -> None:
    coroutine = coroutine_function()
    with pytest.raises(UnserializableValue, match="await it first"):
        values.encode(coroutine)
    coroutine.close()


def test_namedtuple_with_attributes_of_its_own_is_refused() -> None:
    value = Tagged(1, 2)
    value.color = "red"  # type: ignore[attr-defined]
    with pytest.raises(UnserializableValue, match="use a dataclass"):
        values.encode(value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Ticket(), "input: "),
        ([0, Ticket()], "input[1]: "),
        ((0, Ticket()), "input[1]: "),
        ({1: Ticket()}, "input[1]: "),
        ({(1, "a"): Ticket()}, "input[(1, 'a')]: "),
        ({'a"b': Ticket()}, 'input["a\\"b"]: '),
        ({"ü": Ticket()}, 'input["ü"]: '),
        ({Ticket(): 1}, "input.keys(): "),
        ({Ticket()}, "input{…}: "),
        (Order(1, [Ticket()]), "input.lines[0]: "),
        (Point(1, Ticket()), "input.y: "),
        (Open.model_construct(name=Ticket()), "input.name: "),
        (Open(name="a", more=Ticket()), 'input["more"]: '),
        ({"k" * 500: Ticket()}, f'input["{"k" * 58}…]: '),
    ],
)
def test_path_leads_to_the_refused_value_through_every_kind_of_container(value: Any, path: str) -> None:
    with pytest.raises(UnserializableValue) as raised:
        values.encode(value, root="input")
    assert type(raised.value) is UnserializableValue
    assert str(raised.value).startswith(path + "<class 'tests.values.test_values.Ticket'>")


def cyclic(kind: str) -> Any:
    inner: Any = {"list": [], "dict": {}, "dataclass": Order(1)}[kind]
    {
        "list": lambda: inner.append({"x": inner}),
        "dict": lambda: inner.update(a=(inner,)),
        "dataclass": lambda: inner.lines.append(inner),
    }[kind]()
    return inner


@pytest.mark.parametrize(("kind", "path"), [("list", '[0]["x"]'), ("dict", '["a"][0]'), ("dataclass", ".lines[0]")])
def test_value_that_contains_itself_is_refused_with_the_way_around(kind: str, path: str) -> None:
    with pytest.raises(UnserializableValue) as raised:
        values.encode({"top": cyclic(kind)})
    assert str(raised.value).startswith(f'result["top"]{path} is result["top"] again: ')


def nested(depth: int, wrap: Any) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPPERS = [lambda value: [value], lambda value: {"a": value}, lambda value: (value,), lambda value: {1: value}, Point]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_hundred_levels_come_back_and_more_are_refused(wrap: Any) -> None:
    assert round_trip(nested(100, wrap)) == nested(100, wrap)
    for depth in (101, 20_000):
        with pytest.raises(UnserializableValue, match="nested more than 100 levels deep") as raised:
            values.encode(nested(depth, wrap))
        assert len(str(raised.value)) < 700


class Unhashable(type):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(cls, other: object) -> bool:
        return False


def test_class_that_misbehaves_is_refused_too() -> None:
    with pytest.raises(UnserializableValue, match="unhashable"):
        values.encode([Unhashable("Odd", (), {})()])


def test_class_in_the_main_module_is_refused() -> None:
    script = (
        "import dataclasses\nfrom django_steps.values import encode\n"
        "@dataclasses.dataclass\nclass A: pass\n"
        "try: encode(A())\nexcept TypeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "defined in __main__, which no worker can import" in done.stdout


def test_value_that_is_too_large_is_refused_with_both_sizes() -> None:
    assert values.encode("x" * 998, max_bytes=1000) == '"' + "x" * 998 + '"'
    with pytest.raises(ValueTooLarge) as raised:
        values.encode({"a": "ü" * 1000}, root="input", max_bytes=1000)
    assert "input has 6,008 bytes when encoded, and the limit is 1,000" in str(raised.value)
    assert "Store the value and return a reference" in str(raised.value)


# -- Records that this code can't read -----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no valid JSON"),
        ("[1", "no valid JSON"),
        ('{"$":"new","v":1}', "kind 'new'"),
        ('{"$":["tuple"],"v":1}', "kind"),
        (
            '{"$":"dataclass","of":"tests.values.test_values:Gone","v":{}}',
            "tests.values.test_values.Gone, which can't be found",
        ),
        ('{"$":"dataclass","of":"no_such_module:Gone","v":{}}', "keep its old name as an alias"),
        ('{"$":"dataclass","of":"tests.values.test_values:BERLIN","v":{}}', "can't be found"),
        (
            '{"$":"dataclass","of":"tests.values.test_values:Ticket","v":{}}',
            "dataclass is of the class tests.values.test_values.Ticket, which is none",
        ),
        ('{"$":"pydantic","of":"tests.values.test_values:Ticket","v":{},"set":[]}', "pydantic is of the class"),
        ('{"$":"namedtuple","of":"tests.values.test_values:Ticket","v":{}}', "namedtuple is of the class"),
        ('{"$":"namedtuple","of":"tests.values.test_values:Point","v":{"y":1}}', "has no field 'x'"),
        ('{"$":"Enum","of":"tests.values.test_values:Size","v":"HUGE"}', "no such member"),
        ('{"$":"Enum","of":"tests.values.test_values:Ticket","v":"HUGE"}', "Enum is of the class"),
        ('{"$":"Flag","of":"tests.values.test_values:Access","v":64}', "no such member"),
        ('{"$":"model","of":"shop.Nothing","pk":1,"db":"default"}', "no installed app has such a model"),
        ('{"$":"datetime","v":"2024-01-01T00:00:00","tz":"Mars/Olympus"}', "Mars/Olympus"),
        ('{"$":"Decimal"}', "Decimal"),
    ],
)
def test_record_that_this_code_cannot_read_says_why(text: str, message: str) -> None:
    with pytest.raises(UnreadableValue) as raised:
        values.decode(text)
    assert message in str(raised.value)


# -- What queries search -------------------------------------------------------------------------


class Secret(NamedTuple):
    token: str


KEYS = {1: "a", None: "b", 2.5: "c", (1, 2): "d", date(2024, 1, 1): "e", Size.SMALL: "f"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (2**63 - 1, 2**63 - 1),
        (2**63, str(2**63)),
        (1.5, 1.5),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ("a\0b\ud800c😀", "abc😀"),
        (mark_safe("<b>"), "<b>"),
        (b"\xff", "/w=="),
        (Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00+00:00"),
        (date(2024, 1, 31), "2024-01-31"),
        (time(1, 2), "01:02:00"),
        (timedelta(days=1, seconds=2), "P1DT00H00M02S"),
        (Size.SMALL, "s"),
        (Access.READ | Access.WRITE, 3),
        ((1, [2], frozenset({3})), [1, [2], [3]]),
        (KEYS, {"1": "a", "null": "b", "2.5": "c", "[1, 2]": "d", "2024-01-01": "e", "s": "f"}),
        ({"a\0": 1}, {"a": 1}),
        (Order(1, [Point(1, 2)]), {"number": 1, "lines": [{"x": 1, "y": 2}], "note": ""}),
        (Open(name="a", more=1), {"name": "a", "home": None, "more": 1}),
        (User(pk=3), {"model": "auth.User", "pk": 3}),
        ({"a": Ticket()}, {"a": "tests.values.test_values.Ticket"}),
    ],
    ids=lambda value: repr(value)[:30].encode("ascii", "replace").decode(),
)
def test_searchable_copy_is_plain_json(value: Any, expected: Any) -> None:
    found = values.searchable(value)
    assert found == expected
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_searchable_copy_masks_keys_at_every_depth() -> None:
    value = {
        "token": 1,
        "list": [{"token": {"a": 1}, "Token": 2}],
        "tuple": Secret("x"),
        "open": Open(name="n", token=1),
    }
    assert values.searchable(value, mask=["token", "name"]) == {
        "token": "********",
        "list": [{"token": "********", "Token": 2}],
        "tuple": {"token": "********"},
        "open": {"name": "********", "home": None, "token": "********"},
    }


@pytest.mark.django_db
@pytest.mark.parametrize(
    "value",
    [
        *PLAIN,
        *TAGGED,
        nested(100, WRAPPERS[0]),
        nested(100, WRAPPERS[1]),
        nested(100, WRAPPERS[3]),
        2**64,
        -(2**63),
        10**4298,
    ],
    ids=lambda value: repr(value)[:40].encode("ascii", "replace").decode(),
)
def test_searchable_copy_is_accepted_by_the_database(value: Any) -> None:
    worker = Worker.objects.create(
        host="h", pid=1, concurrency=1, lease_us=1, started_at=django_timezone.now(), last_seen_us=1,
        queues={"value": values.searchable(value)},
    )  # fmt: skip
    worker.refresh_from_db()
    assert set(worker.queues) == {"value"}


@pytest.mark.django_db
def test_searchable_copy_is_found_by_a_query() -> None:
    search = values.searchable({"order_id": 7, "when": date(2024, 1, 1), "user": {"name": "Ann"}})
    Worker.objects.create(
        host="h", pid=1, concurrency=1, lease_us=1, started_at=django_timezone.now(), last_seen_us=1, queues=search
    )
    assert Worker.objects.filter(queues__order_id=7, queues__when="2024-01-01", queues__user__name="Ann").exists()
    assert not Worker.objects.filter(queues__order_id=8).exists()


# -- What people see -----------------------------------------------------------------------------


def test_masked_value_keeps_its_structure() -> None:
    value = {
        "token": "x",
        1: ("a", Secret("s")),
        "order": Order(1, [Slotted(Decimal(1)), {"note": "secret"}], note="secret"),
        "open": Open(name="n", home=Address(street="s"), token="t"),
        "rest": [Color.RED, {1, 2}, b"x", None],
    }
    assert values.masked(value, ("token", "note", "street", "amount")) == {
        "token": "********",
        1: ("a", Secret("********")),
        "order": Order(1, [Slotted("********"), {"note": "********"}], note="********"),  # type: ignore[arg-type]
        "open": Open(name="n", home=Address(street="********"), token="********"),
        "rest": [Color.RED, {1, 2}, b"x", None],
    }
    assert value["order"].note == "secret"  # type: ignore[attr-defined]
    assert value["open"].home.street == "s"  # type: ignore[attr-defined]


def test_value_without_a_mask_is_shown_as_it_is() -> None:
    value = object()
    assert values.masked(value, ()) is value


def test_masking_an_endless_value_ends() -> None:
    assert "********" in repr(values.masked(cyclic("dict"), ("x",)))
