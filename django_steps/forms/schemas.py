"""The JSON Schema of a type, shown beside a field for JSON: pydantic's own, or one made from the annotations."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Decimal: {"type": "string", "format": "decimal"},
    date: {"type": "string", "format": "date"},
    datetime: {"type": "string", "format": "date-time"},
    time: {"type": "string", "format": "time"},
    timedelta: {"type": "string", "format": "duration"},
    UUID: {"type": "string", "format": "uuid"},
    None: {"type": "null"},
    type(None): {"type": "null"},
}
_DEEPEST = 8  # levels of types within types; beyond that anything is said to be allowed


def schema_text(annotation: Any) -> str:
    """The JSON Schema as text, laid out for people; empty where nothing can be said."""
    try:
        schema = schema_of(annotation)
        return json.dumps(schema, indent=2, ensure_ascii=False) if schema else ""
    except Exception:  # whatever the annotations of users are: the field works without
        return ""


def schema_of(annotation: Any, depth: int = 0) -> dict[str, Any]:
    """The JSON Schema of what is annotated; empty for anything.

    >>> schema_of(list[int])
    {'type': 'array', 'items': {'type': 'integer'}}
    """
    if depth > _DEEPEST:
        return {}
    if hasattr(annotation, "model_json_schema"):
        schema: dict[str, Any] = annotation.model_json_schema()
        return schema
    if annotation in _PLAIN:
        return dict(_PLAIN[annotation])
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return _of_class(annotation, depth)
    return _of_generic(annotation, typing.get_origin(annotation), typing.get_args(annotation), depth)


def _of_class(cls: type, depth: int) -> dict[str, Any]:
    if issubclass(cls, Enum):
        return {"enum": [item.name for item in cls]}
    if dataclasses.is_dataclass(cls):
        fields = [field for field in dataclasses.fields(cls) if field.init]
        required = [field.name for field in fields if _is_required(field)]
        return _object(typing.get_type_hints(cls), [field.name for field in fields], required, depth)
    if typing.is_typeddict(cls):
        hints = typing.get_type_hints(cls)
        return _object(hints, list(hints), [name for name in hints if name in cls.__required_keys__], depth)  # type: ignore[attr-defined]
    for kinds, name in (((dict,), "object"), ((list, tuple, set, frozenset), "array")):
        if issubclass(cls, kinds):
            return {"type": name}
    return {}


def _of_generic(annotation: Any, origin: Any, arguments: tuple[Any, ...], depth: int) -> dict[str, Any]:
    inner: Callable[[Any], dict[str, Any]] = lambda one: schema_of(one, depth + 1)  # noqa: E731
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [inner(one) for one in arguments]}
    if origin is typing.Annotated:
        return inner(arguments[0])
    if not isinstance(origin, type):
        return {}
    if issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": inner(arguments[1])}
    if issubclass(origin, tuple) and arguments[-1] is not Ellipsis:
        return {"type": "array", "prefixItems": [inner(one) for one in arguments]}
    if issubclass(origin, (Sequence, Set)):
        return {"type": "array", "items": inner(arguments[0])}
    return {}


def _object(hints: dict[str, Any], names: list[str], required: list[str], depth: int) -> dict[str, Any]:
    properties = {name: schema_of(hints.get(name, Any), depth + 1) for name in names}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return schema | {"required": required} if required else schema


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
