"""Starting a workflow from the admin."""

from __future__ import annotations

import dataclasses
import enum
from datetime import timedelta
from typing import Literal
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from pydantic import BaseModel

from django_steps.models import WorkflowRun

from .conftest import make_run, url


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Order:
    """What is to be ordered."""

    sku: str
    quantity: int = 1
    color: Color = Color.RED
    gift: bool = False
    token: str = ""


class Refund(BaseModel):
    amount: float
    why: Literal["broken", "late"] = "late"


def address(workflow, **more):
    return f"{url('start')}?{urlencode({'workflow': workflow.name, **more})}"


def post(client, where, **fields):
    return client.post(where, {"queue": "default", "priority": "0", "press": str(uuid4()), **fields})


@pytest.fixture
def order(define):
    def order(input: Order):
        pass

    return define(order, mask=("token",))


@pytest.fixture
def anything(define):
    def anything(input):
        """Takes anything."""

    return define(anything, queue="bulk", priority=5)


def test_workflows_are_offered_with_what_they_do(root, anything):
    page = root.get(url("start")).content.decode()
    assert "Takes anything." in page
    assert f'<a href="{address(anything, version="").replace("&", "&amp;")}">anything</a>' in page
    assert root.get(url("add")).url == url("start")


def test_json_input_is_started_as_given(root, anything):
    page = root.get(address(anything)).content.decode()
    assert 'value="bulk"' in page
    post(root, address(anything), input='{"order": [1, 2.5, null]}', queue="fast", priority="7", key="k-1", delay="10m")
    run = WorkflowRun.objects.get()
    assert (run.input, run.queue, run.priority, run.key) == ({"order": [1, 2.5, None]}, "fast", 7, "k-1")
    assert run.wakes_at is not None
    assert LogEntry.objects.get().get_change_message() == "Started."


def test_time_limits_are_those_of_the_form(root, anything):
    post(root, address(anything), input="1", timeout="2h", start_within="10m")
    run = WorkflowRun.objects.get()
    assert (run.timeout, run.start_within) == (timedelta(hours=2), timedelta(minutes=10))


def test_empty_input_is_none(root, anything):
    post(root, address(anything), input="")
    assert WorkflowRun.objects.get().input is None


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"input": "{not json"}, "Enter a valid JSON"),
        ({"delay": "soon"}, "Not a duration"),
        ({"timeout": "soon"}, "Not a duration"),
        ({"start_within": "0s"}, "more than nothing"),
        ({"priority": "1000"}, "less than or equal to 100"),
        ({"queue": " "}, "This field is required"),
        ({"key": "a\u2028b"}, "can&#x27;t contain the character"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_started(root, anything, fields, complaint):
    response = post(root, address(anything), **fields)
    assert complaint in response.content.decode()
    assert not WorkflowRun.objects.exists()


def test_dataclass_has_a_field_for_each_member(root, order):
    page = root.get(address(order)).content.decode()
    assert 'name="input_sku"' in page
    post(root, address(order), input_sku="mug", input_quantity="3", input_color="BLUE", input_gift="on")
    assert WorkflowRun.objects.get().input == Order("mug", 3, Color.BLUE, True)


def test_pydantic_model_complains_beside_its_fields(root, define):
    def refund(input: Refund):
        pass

    workflow = define(refund)
    page = post(root, address(workflow), input_amount="x", input_why="late").content.decode()
    assert "Enter a number." in page
    post(root, address(workflow), input_amount="2.5", input_why="broken")
    assert WorkflowRun.objects.get().input == Refund(amount=2.5, why="broken")


def test_missing_member_is_marked(root, order):
    page = post(root, address(order), input_quantity="1").content.decode()
    assert "This field is required" in page
    assert not WorkflowRun.objects.exists()


def test_pressed_twice_starts_one_run(root, anything):
    press = str(uuid4())
    first = post(root, address(anything), input="1", press=press)
    second = post(root, address(anything), input="1", press=press)
    assert first.url == second.url
    assert WorkflowRun.objects.count() == 1
    assert "started already" in str(list(get_messages(second.wsgi_request))[-1])
    assert LogEntry.objects.count() == 1


def test_same_key_gives_the_first_run(root, anything):
    for press in range(2):
        post(root, address(anything), input=str(press), key="order-7")
    assert WorkflowRun.objects.get().input == 0


def test_restart_with_another_input_is_linked_to_the_first(root, anything):
    run = make_run("failed", workflow="anything", input={"order": 7})
    where = f"{url('start')}?run={run.pk}"
    assert "&quot;order&quot;: 7" in root.get(where).content.decode()
    post(root, where, input='{"order": 8}')
    assert WorkflowRun.objects.get(restart_of=run).input == {"order": 8}


def test_masked_values_are_neither_shown_nor_lost_when_the_input_is_edited(root, define):
    def charge(input):
        pass

    define(charge, mask=("token",))
    run = make_run("failed", workflow="charge", input={"user": {"token": "s3cret"}, "n": 1})
    where = f"{url('start')}?run={run.pk}"
    assert "s3cret" not in root.get(where).content.decode()
    post(root, where, input='{"user": {"token": "********"}, "n": 2}')
    assert WorkflowRun.objects.get(restart_of=run).input == {"user": {"token": "s3cret"}, "n": 2}


def test_masked_member_of_a_dataclass_is_neither_shown_nor_lost(root, order):
    run = make_run("failed", workflow="order", input=Order("mug", token="s3cret"))
    where = f"{url('start')}?run={run.pk}"
    assert "s3cret" not in root.get(where).content.decode()
    post(root, where, input_sku="cup", input_quantity="1", input_color="RED", input_token="********")
    assert WorkflowRun.objects.get(restart_of=run).input == Order("cup", token="s3cret")


def test_unknown_workflow_is_named(root, db):
    response = root.get(f"{url('start')}?workflow=nope")
    assert response.url == url("start")
    assert "Unknown workflow &#x27;nope&#x27;" in root.get(response.url).content.decode()


def test_starting_needs_the_permission(staff, anything):
    client = staff("view", "retry", "cancel", "delete")
    assert client.get(address(anything)).status_code == 403
    assert post(client, address(anything), input="1").status_code == 403
    assert not WorkflowRun.objects.exists()
