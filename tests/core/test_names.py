"""Which identifiers are usable on every database."""

from __future__ import annotations

from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_steps.core.names import MAX_LENGTH, check_name
from django_steps.errors import InvalidName, StepsError


class Names(str, Enum):  # noqa: UP042
    CHARGE = "charge"


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "process_order",
        "with space",
        "a/b",
        "a.b-c:d",
        "'quoted\"",
        "<script>",
        "é",
        "e\u0301",
        "😀",
        "日本",
        "x" * 255,
    ],
)
def test_usable_name_is_returned_as_it_is(name):
    assert check_name(name, "step name") == name


@pytest.mark.parametrize(
    "name, hint",
    [
        ("", "can't be empty"),
        (" ", "begin or end with white space"),
        ("a ", "begin or end with white space"),
        ("\u00a0a", "begin or end with white space"),
        ("a\n", "begin or end with white space"),
        ("a\nb", r"character '\\n'"),
        ("a\0b", r"character '\\x00'"),
        ("a\x7fb", "character"),
        ("a\x85b", "character"),
        ("a\u2028b", "character"),
        ("a\ud800b", r"character '\\ud800'"),
        ("x" * 256, "at most 255 characters, got 256"),
        (None, "must be a string, got NoneType"),
        (b"a", "must be a string, got bytes"),
        (1, "must be a string, got int"),
    ],
    ids=repr,
)
def test_unusable_name_is_refused_with_the_reason(name, hint):
    with pytest.raises(InvalidName, match=hint) as raised:
        check_name(name, "step name")
    assert str(raised.value).startswith("A step name")
    assert isinstance(raised.value, StepsError)
    assert isinstance(raised.value, ValueError)
    assert len(str(raised.value)) < 400


def test_long_message_is_not_the_whole_name():
    with pytest.raises(InvalidName) as raised:
        check_name("x" * 1_000_000, "key")
    assert len(str(raised.value)) < 200


def test_forbidden_characters_are_the_callers():
    assert check_name("a#2", "key") == "a#2"
    with pytest.raises(InvalidName, match="can't contain '#'"):
        check_name("a#2", "step name", forbidden="#")


def test_empty_name_is_fine_where_it_is_allowed():
    assert check_name("", "workflow version", empty=True) == ""


@pytest.mark.parametrize("name", [Names.CHARGE, type("Text", (str,), {})("charge")], ids=["enum", "subclass"])
def test_subclass_of_str_is_returned_as_a_plain_string(name):
    checked = check_name(name, "step name")
    assert type(checked) is str
    assert checked == "charge"


@given(st.text(max_size=300))
def test_accepted_names_survive_utf8_and_have_no_white_space_around_them(name):
    try:
        checked = check_name(name, "step name")
    except InvalidName:
        return
    assert checked == name
    assert checked.encode().decode() == name.strip()
    assert 0 < len(checked) <= MAX_LENGTH
    assert "\0" not in checked
