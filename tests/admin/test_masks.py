"""What a workflow masks: shown nowhere, and given to a new run only where it is certain which value the mask stands for."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Any

import pytest
from django.test import Client
from pydantic import BaseModel, field_validator

from django_steps import InvalidInput, values
from django_steps.models import WorkflowRun
from django_steps.presentation.values import Mask, plain

from .conftest import make_run, url
from .test_start import post

M = "********"
CARDS = {"cards": [{"name": "a", "token": "A"}, {"name": "b", "token": "B"}, {"name": "c", "token": "C"}]}


class Key(str, enum.Enum):  # noqa: UP042
    TOKEN = "token"
    NAME = "name"


class Plain(enum.Enum):
    SECRET = "token"
    OTHER = "other"


@pytest.fixture
def edit(root: Client, define: Any) -> Any:
    """Restart a run of that input with another one, as typed; the new run, or the page that complains."""

    def charge(input: Any) -> None: ...

    define(charge, mask=("token",))

    def edit(input: Any, typed: Any) -> Any:
        run = make_run("failed", workflow="charge", input=input)
        response = post(root, f"{url('start')}?run={run.pk}", input=json.dumps(typed))
        new = WorkflowRun.objects.filter(restart_of=run).first()
        return response.content.decode() if new is None else new.input

    return edit


def shown(*names: str) -> dict[str, Any]:
    return {"cards": [{"name": name, "token": M} for name in names]}


@pytest.mark.parametrize(
    ("names", "tokens"),
    [("abc", "ABC"), ("bc", "BC"), ("cab", "CAB"), ("a", "A"), ("", ""), ("aa", "AA")],
)
def test_entries_that_were_moved_or_removed_keep_their_own_values(edit: Any, names: str, tokens: str) -> None:
    assert [card["token"] for card in edit(CARDS, shown(*names))["cards"]] == list(tokens)


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        (shown("a", "x"), "cards[1].token"),
        ({"cards": [{"token": M}]}, "cards[0].token"),
        ({"cards": [], "token": M}, "token"),
        ({"other": {"deep": [[{"token": M}]]}}, "other.deep[0][0].token"),
    ],
)
def test_what_is_not_certain_has_to_be_typed(edit: Any, typed: Any, place: str) -> None:
    assert f"{place}: type this value" in edit(CARDS, typed)


def test_entries_that_look_the_same_are_certain_only_as_they_were(edit: Any) -> None:
    twins = {"cards": [{"token": "A"}, {"token": "B"}], "n": 1}
    assert edit(twins, {"cards": [{"token": M}, {"token": M}], "n": 2}) == {**twins, "n": 2}
    assert "cards[0].token: type this value" in edit(twins, {"cards": [{"token": M}], "n": 2})
    assert edit({"cards": [{"token": "A"}, {"token": "A"}]}, {"cards": [{"token": M}]}) == {"cards": [{"token": "A"}]}


def test_no_run_starts_with_the_mask_itself(root: Client, define: Any) -> None:
    def charge(input: Any) -> None: ...

    define(charge, mask=("token",))
    page = post(root, f"{url('start')}?workflow=charge", input=json.dumps({"token": M})).content.decode()
    assert "token: type this value" in page
    assert not WorkflowRun.objects.exists()


def test_complaint_stands_beside_its_field(root: Client, define: Any) -> None:
    @dataclasses.dataclass
    class Order:
        token: str = "from the code"
        n: int = 1

    Order.__module__ = __name__

    def order(input: Any) -> None: ...

    order.__annotations__["input"] = Order
    define(order, mask=("token",))
    where = f"{url('start')}?workflow=order"
    assert "from the code" not in root.get(where).content.decode()
    response = post(root, where, input_token=M, input_n="1")
    assert "type this value" in str(response.context["form"].errors["input_token"])


@pytest.mark.parametrize("key", [Key.TOKEN, Plain.SECRET])
def test_keys_that_are_members_of_an_enum_are_masked(key: Any, define: Any) -> None:
    value = {key: "s3cret", Key.NAME: "Ann"}
    read = plain(values.encode(value), Mask(["token"]))
    assert M in read.values()
    assert "Ann" in read.values()
    for hidden in (read, values.searchable(value, ["token"]), values.masked(value, ["token"])):
        assert "s3cret" not in str(hidden)
    assert plain(values.encode(value), Mask([f"{key.name}"]))[f"{type(key).__name__}.{key.name}"] == M


def test_keys_of_an_enum_that_is_gone_are_hidden() -> None:
    text = '{"$":"dict","v":[[{"$":"Enum","of":"gone:Gone","v":"X"},"s3cret"],["n",1]]}'
    assert plain(text, Mask(["token"])) == {"Gone.X": M, "n": 1}
    assert plain(text, Mask(())) == {"Gone.X": "s3cret", "n": 1}


def test_what_one_version_masks_is_masked_in_all(root: Client, define: Any) -> None:
    def charge(input: Any) -> None: ...

    define(charge)
    define(charge, version="2", mask=("token",))
    run = make_run("failed", workflow="charge", input={"n": 1, "token": "s3cret"}, output_text='{"token":"s3cret"}')
    for page in (url("changelist"), url("change", run.pk), f"{url('start')}?run={run.pk}"):
        assert "s3cret" not in root.get(page).content.decode()
    found = root.get(url("changelist"), {"q": "s3cret", "created_at__range__gte": "2020-01-01"})
    assert not found.context["cl"].result_list


def test_no_complaint_about_an_input_holds_what_is_masked(define: Any) -> None:
    @dataclasses.dataclass
    class Order:
        user: str = ""
        token: int = 0

    class Refund(BaseModel):
        token: str
        n: int

        @field_validator("token")
        @classmethod
        def check(cls, value: str) -> str:
            raise ValueError(f"{value} is not valid")

    def order(input: Any) -> None: ...
    def refund(input: Any) -> None: ...

    order.__annotations__["input"], refund.__annotations__["input"] = Order, Refund
    for workflow, input in (
        (define(order, mask=("token",)), {"user": {"token": "s3cret", "n": 17}, "token": "s3cret"}),
        (define(refund, mask=("token",)), {"token": "s3cret", "n": "x"}),
    ):
        with pytest.raises(InvalidInput) as raised:
            workflow.to_input(input)
        assert "s3cret" not in str(raised.value) + str(raised.value.errors)
        assert "token: " in str(raised.value)
