"""The masked values of a recorded value are found, in every form in which a line may have them."""

from __future__ import annotations

import dataclasses
import enum
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from django_steps import values
from django_steps.values.secrets import secrets, without


class Kind(enum.Enum):
    TOKEN = "token"


@dataclasses.dataclass
class Login:
    user: str
    token: str


@pytest.mark.parametrize(
    "value, said",
    [
        ({"token": "s3cret"}, "got s3cret"),
        ({"a": [{"token": ["one", "s3cret"]}]}, "got s3cret"),
        ({"token": {"deeper": "s3cret"}}, "got s3cret"),
        ({"token": 4711}, "got 4711"),
        ({"token": Decimal("12.50")}, "got 12.50"),
        ({"token": "größe s3cret"}, "got größe s3cret"),
        ({("a", 1): {"token": "s3cret"}}, "got s3cret"),
        ({1: 2, "token": "s3cret"}, "got s3cret"),
        ({Kind.TOKEN: "s3cret"}, "got s3cret"),
        (Login("Ann", "s3cret"), "Login(user='Ann', token='s3cret')"),
    ],
)
def test_values_of_masked_keys_are_found_at_every_depth(value, said):
    shown = without(said, secrets(values.encode(value, root="input"), ["token"]))
    for secret in ("s3cret", "4711", "12.50"):
        assert secret not in shown
    assert "********" in shown


@pytest.mark.parametrize("form", [json.dumps, repr, str, lambda value: json.dumps(value, ensure_ascii=False)])
def test_values_are_found_as_they_are_escaped(form):
    secret = 'a "quoted" \\ größe\nline'
    found = secrets(values.encode({"token": secret, "name": "Ann"}, root="input"), ["token"])
    shown = without(f"got {form({'token': secret})}", found)
    assert "quoted" not in shown
    assert "gr" not in shown


def test_a_moment_is_found_as_str_says_it():
    moment = datetime(2026, 3, 1, 3, 0, 5, tzinfo=UTC)
    found = secrets(values.encode({"token": moment}, root="input"), ["token"])
    assert "03:00:05" not in without(f"at {moment}", found)
    assert "03:00:05" not in without(f"at {moment.isoformat()}", found)


def test_what_says_nothing_is_no_secret():
    text = values.encode({"token": [None, True, "", {}], "name": "Ann"}, root="input")
    assert secrets(text, ["token"]) == set()
    assert secrets("no JSON", ["token"]) == set()
    assert without("T a T", secrets(values.encode({"token": "T"}, root="input"), ["token"])) == "******** a ********"
