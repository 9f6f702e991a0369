"""Runs that wait for an event, and the addresses at which it is sent from outside."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from django.test import override_settings
from pydantic import BaseModel, Field

from django_steps.models import WorkflowRun
from tests.admin.conftest import add_step, make_run

BASE_URL = "https://example.com"


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


@dataclasses.dataclass
class Decision:
    """What somebody decides."""

    ok: bool
    note: str = ""


@dataclasses.dataclass
class Everything:
    """A field of each kind."""

    text: str
    whole: int
    sure: bool
    price: Decimal
    day: date
    color: Color
    size: Literal["S", "M"]
    maybe: int | None = None
    items: list[int] = dataclasses.field(default_factory=list)


class Refund(BaseModel):
    amount: float = Field(gt=0)
    day: date


@pytest.fixture(autouse=True)
def base_url() -> Iterator[None]:
    with override_settings(DJANGO_STEPS={"BASE_URL": BASE_URL}):
        yield


def waiting(event: str = "approval", type_: Any = None, **columns: Any) -> WorkflowRun:
    """A run that waits for this event, of this type."""
    run = make_run("waiting", waits_for=f"\n{event}\n", **columns)
    add_wait(run, event, type_)
    return run


def add_wait(run: WorkflowRun, event: str, type_: Any = None, name: str = "") -> None:
    """One more wait that the run has reached; the type is a class, or what is recorded of one."""
    said: dict[str, Any] = {"events": [event]}
    if type_ is not None:
        said["type"] = f"{type_.__module__}:{type_.__qualname__}" if isinstance(type_, type) else type_
    add_step(run, name or event, "waiting", kind="event", context_text=json.dumps(said), finished_at=None)


def path_of(url: str) -> str:
    """What a client of the tests asks for."""
    assert url.startswith(f"{BASE_URL}/")
    return urlsplit(url).path


def sent(run: WorkflowRun) -> list[tuple[str, Any]]:
    """The events that were sent to the run: names and payloads."""
    return [(event.name, event.payload) for event in run.events.order_by("pk")]


@pytest.fixture
def post(client: Any) -> Callable[..., Any]:
    """Send JSON as another program does: `post(url, {"ok": True})`."""

    def send(url: str, value: Any = None, **options: Any) -> Any:
        return client.post(path_of(url), json.dumps(value), content_type="application/json", **options)

    return send
