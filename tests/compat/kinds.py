"""What the expressions in the files name. Rows of earlier versions name it too: nothing here is changed, moved or renamed."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import uuid
import zoneinfo
from typing import Any, NamedTuple

import pydantic
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models
from django.http import Http404
from django.utils.safestring import mark_safe

from django_steps import errors
from django_steps.models import StepRecord, Worker, WorkflowRun
from tests.app.models import Person


class Color(enum.Enum):
    RED = "r"


class Size(models.TextChoices):
    SMALL = "s", "small"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Any = 0


@dataclasses.dataclass
class Order:
    number: int
    lines: list[Any] = dataclasses.field(default_factory=list)

    class Status(enum.Enum):
        NEW = "new"


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    amount: decimal.Decimal
    tags: tuple[str, ...] = ()


class Address(pydantic.BaseModel):
    street: str
    zip_code: str = "10115"
    _hits: int = pydantic.PrivateAttr(0)


class Open(pydantic.BaseModel, extra="allow"):
    name: str
    home: Address | None = None


class CardDeclined(Exception):
    """Its `__init__` takes something else than `args` holds."""

    def __init__(self, *, reason: Color, amount: decimal.Decimal, response: Any = None) -> None:
        super().__init__(f"declined: {reason.value}")
        self.reason, self.amount = reason, amount
        if response is not None:
            self.response = response


class Slow(Exception):
    __slots__ = ("seconds",)

    def __init__(self, seconds: int) -> None:
        super().__init__("slow")
        self.seconds = seconds


class Group(ExceptionGroup[Exception]):
    def __new__(cls, message: str, found: list[Exception], code: int) -> Group:
        made = super().__new__(cls, message, found)
        made.code = code
        return made

    def __init__(self, message: str, found: list[Exception], code: int) -> None:
        super().__init__(message, found)


def local_error(text: str) -> Exception:
    """Of a class that can't be found again."""

    class LocalError(ValueError):
        pass

    return LocalError(text)


def raised_by(function: Any) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error.with_traceback(None)
    raise AssertionError("nothing was raised")


def attributed(error: BaseException, **attributes: Any) -> BaseException:
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def noted(error: BaseException, *notes: str) -> BaseException:
    for note in notes:
        error.add_note(note)
    return error


def chained(
    error: BaseException,
    cause: BaseException | None = None,
    context: BaseException | None = None,
    suppress: bool = False,
) -> BaseException:
    error.__context__ = context
    if cause is not None:
        error.__cause__ = cause
    error.__suppress_context__ = suppress or cause is not None
    return error


NAMES: dict[str, Any] = {
    **{cls.__name__: cls for cls in (Color, Size, Level, Access, Point, Order, Slotted, Address, Open)},
    **{cls.__name__: cls for cls in (CardDeclined, Slow, Group, Person, WorkflowRun, StepRecord, Worker)},
    **{function.__name__: function for function in (local_error, raised_by, attributed, noted, chained, mark_safe)},
    **{cls.__name__: cls for cls in (Http404, IntegrityError, ValidationError)},
    **{module.__name__: module for module in (datetime, decimal, math, pathlib, uuid, zoneinfo)},
    "errors": errors,
}


def evaluate(expression: str) -> Any:
    """What an expression in the files stands for."""
    return eval(expression, dict(NAMES))
