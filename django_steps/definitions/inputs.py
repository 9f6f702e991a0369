"""The input of a body: what its annotation says, and validating against it.

A dataclass or a pydantic model is validated when the run is started, and built again for the body. A field of a dataclass whose
type JSON has no form for (Decimal, dates, UUID, Enum) may be given as text. Any other annotation is for type checkers only.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from ..errors import InvalidInput
from ..values import masked


class InputType:
    """Takes any input as it is."""

    type: type | None = None

    def validate(self, value: Any) -> Any:
        """The argument of the body; `InvalidInput` if the value doesn't fit."""
        return value


class DataclassInput(InputType):
    """Takes an instance of a dataclass, or a dict of its fields."""

    def __init__(self, type_: type, mask: Collection[str] = ()) -> None:
        self.type, self._mask = type_, mask

    def validate(self, value: Any) -> Any:
        assert self.type is not None
        if isinstance(value, self.type):
            return value
        if not isinstance(value, dict):
            raise InvalidInput(
                f"The input must be a {self.type.__name__} or a dict of its fields, got {type(value).__name__}."
            )
        hints = _hints(self.type)
        value = {name: _from_json(hints.get(name), item) for name, item in value.items()}
        value, errors = _with_nested(value, hints, self._mask)
        fields = {field.name: field for field in dataclasses.fields(self.type) if field.init}
        errors += [f"{name}: unknown, the fields are {', '.join(fields)}" for name in value if name not in fields]
        errors += [f"{name}: missing" for name, field in fields.items() if name not in value and _is_required(field)]
        errors += _type_errors(hints, {name: item for name, item in value.items() if name in fields}, self._mask)
        if errors:
            raise InvalidInput(_message(self.type, errors), errors)
        try:
            return self.type(**value)
        except (TypeError, ValueError) as error:
            raise InvalidInput(_message(self.type, [str(error)]), [str(error)]) from None


class PydanticInput(InputType):
    """Takes an instance of a pydantic model, or what the model validates."""

    def __init__(self, type_: Any, mask: Collection[str] = ()) -> None:
        self.type, self._mask = type_, mask

    def validate(self, value: Any) -> Any:
        from pydantic import ValidationError

        model: Any = self.type
        if isinstance(value, model):
            return value
        try:
            return model.model_validate(value)
        except ValidationError as error:
            lines = [self._line(item) for item in error.errors()]
            raise InvalidInput(_message(model, lines), lines) from None

    def _line(self, error: Any) -> str:
        """A complaint with its place. A message may repeat the value, so a masked one is left with the kind of error."""
        where = ".".join(map(str, error["loc"])) or "input"
        is_masked = not frozenset(map(str, error["loc"])).isdisjoint(self._mask)
        return f"{where}: {error['type'] if is_masked else error['msg']}"


class SimpleInput(InputType):
    """Takes an instance of a class that is neither, such as `bool` or `str`."""

    def __init__(self, type_: type) -> None:
        self.type = type_

    def validate(self, value: Any) -> Any:
        assert self.type is not None
        if self.type is float and type(value) is int:
            return float(value)
        is_bool_for_number = isinstance(value, bool) and self.type in (int, float)
        if is_bool_for_number or not _is_instance(value, self.type):
            text = f"expected {self.type.__name__}, got {type(value).__name__}"
            raise InvalidInput(text, [text])
        return value


def input_type_of(function: Callable[..., Any], mask: Collection[str] = ()) -> InputType:
    """How to validate the input of this body. The values of the keys in `mask` are in no message."""
    try:
        annotation = typing.get_type_hints(function).get("input")
    except Exception:  # an annotation that names something imported for type checkers only
        annotation = getattr(function, "__annotations__", {}).get("input")
    if not isinstance(annotation, type):
        return InputType()
    if hasattr(annotation, "model_validate"):
        return PydanticInput(annotation, mask)
    return DataclassInput(annotation, mask) if dataclasses.is_dataclass(annotation) else InputType()


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _hints(type_: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(type_)
    except Exception:  # as for the function
        return {}


def _from_json(hint: Any, item: Any) -> Any:
    """The value of a field whose type JSON has no form for, made of the text or whole number that stands for it there; else
    the item as it is."""
    if type(item) not in (str, int):
        return item
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    expected = typing.get_args(hint) if is_union else (hint,)
    if type(item) in expected:
        return item
    for type_ in expected:
        is_enum = isinstance(type_, type) and issubclass(type_, Enum)
        parse = type_ if is_enum else _PARSED.get(type_) if type(item) is str or type_ is Decimal else None
        if parse is not None:
            with suppress(ValueError, TypeError, ArithmeticError):
                return parse(item)
    return item


# What makes a value of a text.
_PARSED: dict[Any, Callable[[Any], Any]] = {
    Decimal: Decimal,
    UUID: UUID,
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    time: time.fromisoformat,
}


def _with_nested(
    value: dict[str, Any], hints: dict[str, Any], mask: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """The fields, with dicts made into the dataclasses that are wanted there; and what is wrong in those dicts."""
    built, errors = dict(value), []
    for name, item in value.items():
        hint = hints.get(name)
        expected = [type_ for type_ in (hint, *typing.get_args(hint)) if isinstance(type_, type)]
        nested = next((type_ for type_ in expected if dataclasses.is_dataclass(type_)), None)
        if nested is None or not isinstance(item, dict):
            continue
        try:
            built[name] = DataclassInput(nested, mask).validate(item)
        except InvalidInput as error:
            errors += [f"{name}.{line}" for line in error.errors]
    return built, errors


def _type_errors(hints: dict[str, Any], value: dict[str, Any], mask: Collection[str]) -> list[str]:
    """What is clearly of another type; a value is accepted where the annotation alone can't decide."""
    errors = []
    for name, item in value.items():
        expected = hints.get(name)
        if not isinstance(expected, type) or expected is Any or dataclasses.is_dataclass(expected):
            continue
        is_bool_for_number = isinstance(item, bool) and expected in (int, float)
        is_int_for_float = expected is float and isinstance(item, int)
        if is_bool_for_number or not (_is_instance(item, expected) or is_int_for_float):
            got = type(item).__name__ if name in mask else repr(masked(item, mask))
            errors.append(f"{name}: expected {expected.__name__}, got {got}")
    return errors


def _is_instance(value: Any, type_: type) -> bool:
    try:
        return isinstance(value, type_)
    except TypeError:  # a TypedDict or a protocol can't be asked
        return True


def _message(type_: Any, errors: list[str]) -> str:
    return f"The input does not fit {type_.__name__}: {'; '.join(errors)}."
