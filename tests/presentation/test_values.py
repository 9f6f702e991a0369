"""Recorded values as plain JSON: masked, never decoded, also where they can't be read."""

from __future__ import annotations

import json

import pytest

from django_steps import values as codec
from django_steps.presentation.values import Mask, plain, readable


def test_text_that_is_no_record_is_shown_as_it_is_unless_something_is_masked():
    assert readable("{", Mask(())) == "{"
    assert readable("{token", Mask(["token"])) == readable("{", Mask(None)) == "This value can't be read."
    assert readable(None, Mask(())) == ""


def test_class_that_is_gone_is_read_all_the_same():
    text = '{"$":"dataclass","of":"gone:Gone","v":{"a":1,"token":"x"}}'
    assert plain(text, Mask(["token"])) == {"a": 1, "token": "********"}
    assert plain(text, Mask(None)) == {"a": "********", "token": "********"}


@pytest.mark.parametrize("value", ["\ud800", "\x00", 10**40, float("nan"), {"$": 1}, b"\xff", {(1, 2): {3}}])
def test_odd_values_are_json_that_every_stream_carries(value):
    text = readable(codec.encode(value), Mask(()), indent=None)
    text.encode()
    json.loads(text)


@pytest.mark.parametrize("depth", [100, 150, 151, 900, 100_000])
def test_deep_text_is_shown_or_said_to_be_unreadable(depth):
    text = "[" * depth + "]" * depth
    shown = readable(text, Mask(["token"]), indent=2)
    assert (shown == "This value can't be read.") == (depth > 150)
