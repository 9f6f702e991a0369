"""Forms made from a type: which fields they have, and what a valid one gives."""

from __future__ import annotations

import dataclasses
import enum
from collections import defaultdict
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Optional, TypedDict
from uuid import UUID

import pytest
from django import forms
from pydantic import BaseModel, ConfigDict, Field, RootModel

from django_steps import InvalidInput
from django_steps.forms.checking import check
from django_steps.forms.event import EventForm
from django_steps.forms.fields import JsonField, YesNoField
from django_steps.forms.look import BROWSERS_OWN as PAGE
from django_steps.forms.schemas import schema_of, schema_text

if TYPE_CHECKING:
    from nowhere import Nothing


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


@dataclasses.dataclass
class Item:
    sku: str
    count: int = 1


@dataclasses.dataclass
class Order:
    items: list[Item]
    note: str | None = None


@dataclasses.dataclass
class Node:
    below: list[Node] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Unresolved:
    a: Nothing
    b: int = 3


class Aliased(BaseModel):
    amount: int = Field(alias="Amount", description="In cents.")


class AliasedOrNot(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    amount: int = Field(alias="Amount")


class Tags(RootModel[list[str]]):
    pass


class Price(TypedDict, total=False):
    amount: Decimal
    currency: str


class Point(NamedTuple):
    x: int
    y: int


def one(annotation, *default):
    """A dataclass with a single member."""
    fields = [("member", annotation, *(dataclasses.field(default=value) for value in default))]
    return dataclasses.make_dataclass("One", fields)


def typed(type_, **data):
    return EventForm(type_, PAGE, data)


@pytest.mark.parametrize(
    "annotation, text, value, field",
    [
        (str, "a", "a", forms.CharField),
        (int, "3", 3, forms.IntegerField),
        (float, "2.5", 2.5, forms.FloatField),
        (bool, "true", True, YesNoField),
        (bool, "false", False, YesNoField),
        (bool, "on", True, YesNoField),
        (bool, "0", False, YesNoField),
        (Decimal, "1.50", Decimal("1.50"), forms.DecimalField),
        (date, "2026-03-01", date(2026, 3, 1), forms.DateField),
        (datetime, "2026-03-01T03:00", datetime(2026, 3, 1, 3, tzinfo=UTC), forms.DateTimeField),
        (time, "03:00", time(3), forms.TimeField),
        (UUID, "01890a5d-ac96-774b-bcce-b302099a8057", UUID("01890a5d-ac96-774b-bcce-b302099a8057"), forms.UUIDField),
        (Color, "BLUE", Color.BLUE, forms.TypedChoiceField),
        (Literal["a", 1], "1", 1, forms.TypedChoiceField),
        (Optional[int], "3", 3, forms.IntegerField),  # noqa: UP045
        (int | None, "", None, forms.IntegerField),
        (str | None, "", None, forms.CharField),
        (bool | None, "", None, YesNoField),
        (bool | None, "false", False, YesNoField),
        (Color | None, "", None, forms.TypedChoiceField),
        (Literal["a"] | None, "", None, forms.TypedChoiceField),
        (list[int], "[1]", [1], JsonField),
        (list[int], "[]", [], JsonField),
        (dict, "{}", {}, JsonField),
        (int | str, "7", 7, JsonField),
        (Any, "null", None, JsonField),
    ],
)
def test_member_has_the_field_of_its_type(annotation, text, value, field):
    type_ = one(annotation)
    form = typed(type_, member=text)
    assert type(form.fields["member"]) is field
    if value is None and annotation is Any:  # nothing typed, nothing meant
        assert not form.is_valid()
        return
    assert form.is_valid(), form.errors
    assert form.payload == {"member": value}
    assert type_(**form.payload).member == value


@pytest.mark.parametrize("annotation", [bool, Color, Literal["a", "b"], Decimal, date, str, int])
def test_plain_type_has_the_field_payload(annotation):
    text = {bool: "false", Color: "RED", Decimal: "1.5", date: "2026-03-01", str: "x", int: "3"}.get(annotation, "b")
    form = typed(annotation, payload=text)
    assert not isinstance(form.fields["payload"], JsonField)
    assert form.is_valid(), form.errors
    check(annotation, form.payload)
    assert not typed(annotation).is_valid()


@pytest.mark.parametrize("type_", [None, dict, list, Price, Point, Tags])
def test_other_types_are_json(type_):
    form = EventForm(type_, PAGE)
    assert list(form.fields) == ["payload"]
    assert isinstance(form.fields["payload"], JsonField)


def test_json_has_the_schema_beside_it():
    form = EventForm(Order, PAGE)
    assert '"sku"' in form.fields["items"].schema
    assert '"array"' in EventForm(Tags, PAGE).fields["payload"].schema
    assert EventForm(None, PAGE).fields["payload"].schema == ""


def test_whole_value_has_to_fit_its_type():
    assert not typed(dict, payload="[]").is_valid()
    form = typed(Tags, payload='["a", 1]')
    assert not form.is_valid()
    assert "payload" in form.errors
    assert typed(Tags, payload='["a"]').is_valid()


def test_member_left_empty_keeps_its_default():
    form = typed(Item, sku="mug", count="")
    assert form.is_valid()
    assert form.payload == {"sku": "mug"}
    assert EventForm(Item, PAGE)["count"].initial == 1


def test_bool_with_a_default_shows_it_and_takes_the_other():
    type_ = one(bool, True)
    assert 'value="true" id="id_member_0" checked' in str(EventForm(type_, PAGE)["member"])
    assert typed(type_).is_valid()
    form = typed(type_, member="false")
    assert form.is_valid()
    assert form.payload == {"member": False}


def test_required_bool_has_to_be_said():
    form = typed(one(bool))
    assert not form.is_valid()
    assert form.complaints() == ["member: This field is required."]


@pytest.mark.parametrize("type_, key", [(Aliased, "Amount"), (AliasedOrNot, "amount")])
def test_aliases_of_a_model_are_what_it_takes(type_, key):
    form = typed(type_, amount="3")
    assert form.is_valid(), form.errors
    assert form.payload == {key: 3}
    assert "In cents." in str(EventForm(Aliased, PAGE))


def test_complaints_of_the_type_have_their_field():
    class Limited(BaseModel):
        amount: int = Field(gt=0)
        items: list[int] = []

    form = typed(Limited, amount="-1", items='["a"]')
    assert not form.is_valid()
    assert set(form.errors) == {"amount", "items"}


def test_complaint_about_the_whole_stands_above():
    @dataclasses.dataclass
    class Range:
        low: int
        high: int

        def __post_init__(self):
            if self.low > self.high:
                raise ValueError("low is above high")

    form = typed(Range, low="2", high="1")
    assert form.non_field_errors() == ["low is above high"]


def test_class_may_object_in_any_way():
    @dataclasses.dataclass
    class Odd:
        a: int

        def __post_init__(self):
            raise RuntimeError("internal")

    with pytest.raises(InvalidInput, match=r"^RuntimeError$"):
        check(Odd, {"a": 1})


def test_annotations_that_can_not_be_read_are_json():
    form = typed(Unresolved, a="1", b="")
    assert isinstance(form.fields["a"], JsonField)
    assert form.is_valid()
    assert form.payload == {"a": 1}


def test_masked_member_shows_neither_its_default_nor_its_value():
    form = EventForm(Item, PAGE, {"sku": "x", "count": '"s3cret"'}, mask=["count"])
    assert not form.is_valid()
    assert "s3cret" not in str(form.errors)
    assert EventForm(Item, PAGE, mask=["count"])["count"].initial is None


@pytest.mark.parametrize(
    "annotation, schema",
    [
        (int, {"type": "integer"}),
        (None, {"type": "null"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (set[str], {"type": "array", "items": {"type": "string"}}),
        (dict[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}),
        (tuple[int, str], {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Literal["a", 1], {"enum": ["a", 1]}),
        (Color, {"enum": ["RED", "BLUE"]}),
        (Annotated[int, "x"], {"type": "integer"}),
        (defaultdict, {"type": "object"}),
        (Any, {}),
        (object, {}),
        (
            Item,
            {
                "type": "object",
                "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}},
                "required": ["sku"],
            },
        ),
        (
            Price,
            {
                "type": "object",
                "properties": {"amount": {"type": "string", "format": "decimal"}, "currency": {"type": "string"}},
            },
        ),
    ],
)
def test_schema_says_what_is_annotated(annotation, schema):
    assert schema_of(annotation) == schema


def test_schema_of_a_model_is_its_own():
    assert schema_of(Aliased) == Aliased.model_json_schema()


def test_schema_of_a_type_within_itself_ends():
    assert len(schema_text(Node)) < 10_000


def test_what_has_no_schema_has_none():
    assert schema_text(Unresolved) == ""
    assert schema_text(list["Nowhere"]) != "error"  # noqa: F821
