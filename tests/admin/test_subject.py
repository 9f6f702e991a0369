"""What the list says a run is about: its key, or a few values of its input."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest

from django_steps import values
from django_steps.admin.list import subject
from django_steps.models import WorkflowRun
from django_steps.presentation.values import Mask

from .conftest import make_run, url


@dataclasses.dataclass
class Payment:
    order: int
    token: str
    note: str = ""


VALUES = [
    {"order": 7, "token": "s3cret", "deep": {"token": "s3cret", "x": [1, {"token": "s3cret"}]}, "mail": "a@b.c"},
    Payment(7, "s3cret", 'with {"braces": [1, ",'),
    {"payment": Payment(7, "s3cret"), "when": datetime(2026, 3, 1, tzinfo=UTC), "total": Decimal("9.90")},
    {("tuple", "key"): 7, "token": {"inner": "s3cret"}},
    [{"token": "s3cret"}],
    {"tags": {"a"}, "span": (1, 2), "text": '\\" é \ud800'},
]


def about(value, *mask):
    return subject.excerpt(values.encode(value), Mask(mask))


@pytest.fixture
def listed(root, define):
    """The texts in the first column of the list, newest first; `order` is known and masks `token`."""

    def order(input):
        pass

    define(order, mask=("token",))

    def read():
        page = root.get(url("changelist")).context["cl"]
        return [subject.of(run, run.input_start) for run in page.result_list]

    return read


def test_list_shows_the_key_of_a_run(root):
    make_run(key="order-<7>", input={"n": 12345})
    page = root.get(url("changelist")).content.decode()
    assert '<span class="steps-subject" title="order-&lt;7&gt;">order-&lt;7&gt;</span>' in page
    assert "12345" not in page


def test_long_key_is_cut_in_its_middle_and_whole_in_its_title(root, listed):
    key = f"customer/{'x' * 100}/2026-03-01"
    make_run(key=key)
    (line,) = listed()
    assert len(line) == 40
    assert line.startswith("customer/x")
    assert line.endswith("x/2026-03-01")
    assert f'title="{key}"' in root.get(url("changelist")).content.decode()


def test_without_a_key_the_list_shows_values_of_the_input(root, listed):
    make_run(workflow="order", input={"order_id": 7, "items": [{"sku": "mug"}], "to": {"email": "a@b.c"}, "x": None})
    assert listed() == ["order_id: 7, to.email: a@b.c"]
    assert "order_id: 7, to.email: a@b.c" in root.get(url("changelist")).content.decode()


def test_keys_that_the_admin_made_itself_are_not_shown(root, listed):
    fields = {"input": '{"order_id": 7}', "queue": "default", "priority": "0", "press": str(uuid4())}
    root.post(f"{url('start')}?workflow=order", fields)
    started = WorkflowRun.objects.get()
    root.post(url("restart", started.pk))
    assert not WorkflowRun.objects.filter(key=None)
    assert listed() == ["order_id: 7"] * 2


def test_masked_values_are_left_out(listed):
    make_run(workflow="order", input=VALUES[0])
    assert listed() == ["order: 7, mail: a@b.c"]


def test_nothing_is_shown_of_the_input_of_an_unknown_workflow(listed):
    make_run(workflow="nobody_knows_it", input={"order_id": 7})
    make_run(workflow="order", version="2", input={"order_id": 7})
    assert listed() == ["", ""]


@pytest.mark.parametrize("value", VALUES)
def test_input_that_is_cut_off_anywhere_shows_nothing_masked_and_nothing_half(value):
    text, mask = values.encode(value), Mask(["token"])
    whole = subject.excerpt(text, mask)
    for end in range(len(text)):
        line = subject.excerpt(text[:end], mask)
        assert "s3" not in line
        assert whole.startswith(line)


def test_values_are_shown_as_on_the_page_of_the_run():
    assert about(Payment(7, "t", "hello")) == "order: 7, token: t, note: hello"
    assert about({"when": datetime(2026, 3, 1, tzinfo=UTC), "total": Decimal("9.90"), "ok": True}) == (
        "when: 2026-03-01T00:00:00+00:00, total: 9.90, ok: true"
    )
    assert about("a word") == "a word"
    assert about(7) == "7"
    assert about({"text": "x" * 100}) == f"text: {'x' * 39}…"


@pytest.mark.parametrize(
    "text", ["", "{", "[[[", "]", '"', "nope", "null", '{"$":"gone","v":', "[" * 600, '{"a":[}', "\x00"]
)
def test_odd_text_shows_nothing(text):
    assert subject.excerpt(text, Mask(())) == ""


def test_list_reads_only_the_beginning_of_inputs(root, listed):
    make_run(workflow="order", input={"order_id": 7, "document": "x" * 100_000})
    assert listed() == ["order_id: 7"]
    assert len(root.get(url("changelist")).context["cl"].result_list[0].input_start) == subject.READ
