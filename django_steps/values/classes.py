"""How instances of users' classes are written as JSON: enums, namedtuples, dataclasses, pydantic models.

A class is named by its module and qualified name, and found again by them; nothing of it is called when an instance
is rebuilt. Instances of Django models are in `instances.py`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum, Flag
from functools import cached_property, lru_cache
from types import MemberDescriptorType
from typing import Any

from django.utils.functional import cached_property as django_cached_property

from ..errors import UnreadableValue
from .sets import RecordedSet
from .types import TAG, Codec, Pack, Refused, pack_members

# -- Classes by name -----------------------------------------------------------------------------

_PACKAGE = __name__.partition(".")[0]
# The modules of this package that stay where they are.
_PUBLIC_MODULES = {f"{_PACKAGE}.errors", f"{_PACKAGE}.models"}


@lru_cache(maxsize=512)
def class_name(cls: type) -> str:
    """`module:Qualname` of a class that any process can import; raises `LookupError`, saying why that can't be."""
    module, qualname = cls.__module__, cls.__qualname__
    if is_private(cls):
        raise LookupError("its class is in a module of django_steps that may be moved: use plain values")
    if module == "__main__":
        raise LookupError("its class is defined in __main__, which no worker can import: move it to a module")
    if "<locals>" in qualname:
        raise LookupError("its class is defined inside a function: move it to the top level of its module")
    name = f"{module}:{qualname}"
    try:
        found = find_class(name)
    except UnreadableValue:
        found = None
    if found is not cls:
        raise LookupError(f"its class can't be imported as {module}.{qualname}")
    return name


def is_private(cls: type) -> bool:
    """Whether a class is in a module of this package that may be moved, so that no record may name it."""
    return cls.__module__.startswith(f"{_PACKAGE}.") and cls.__module__ not in _PUBLIC_MODULES


def shown_name(cls: type) -> str:
    """`module.Qualname` for people; only the name of what is built in, or in a module that may be moved."""
    if cls.__module__ == "builtins" or is_private(cls):
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__qualname__}"


def find_class(name: str) -> type:
    """The class that `class_name` named; raises `UnreadableValue` when it is gone."""
    module_name, _, qualname = name.partition(":")
    try:
        found: Any = sys.modules.get(module_name) or importlib.import_module(module_name)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit):  # importing a module can raise anything
        found = None
    if isinstance(found, type):
        return found
    raise UnreadableValue(
        f"A recorded value is of the class {name.replace(':', '.')}, which can't be found. "
        "If the class was moved or renamed, keep its old name as an alias."
    )


def _class_of(node: dict[str, Any], is_kind: Callable[[type], bool]) -> Any:
    cls = find_class(node["of"])
    if not is_kind(cls):
        raise UnreadableValue(f"A recorded {node[TAG]} is of the class {node['of'].replace(':', '.')}, which is none.")
    return cls


def built_in_base(cls: type) -> type:
    """The class written in C whose memory layout the class extends: `object`, or `OSError`, or `dict` …"""
    made_at_run_time = 1 << 9
    while cls.__flags__ & made_at_run_time and cls.__base__ is not None:
        cls = cls.__base__
    return cls


def _name_of(value: Any) -> str:
    cls: Any = type(value)
    try:
        return class_name(cls)
    except LookupError as error:
        raise Refused(value, f"{error}.") from None


# -- Enums and namedtuples -----------------------------------------------------------------------


def _is_enum(cls: type) -> bool:
    return issubclass(cls, Enum)


def _pack_enum(value: Enum, depth: int, pack: Pack) -> Any:
    name = _name_of(value)
    if isinstance(value, Flag):
        # A combination has no name of its own.
        return {TAG: "Flag", "of": name, "v": value.value}
    if type(value).__members__.get(value.name) is not value:
        raise Refused(value, "it is no declared member of its class: use its value.")
    return {TAG: "Enum", "of": name, "v": value.name}


def _unpack_enum(node: dict[str, Any]) -> Any:
    cls = _class_of(node, _is_enum)
    try:
        return cls(node["v"]) if node[TAG] == "Flag" else cls[node["v"]]
    except (KeyError, ValueError):
        raise UnreadableValue(
            f"A recorded value is {node['v']!r} of {cls.__qualname__}, which has no such member (any more)."
        ) from None


def is_namedtuple(cls: type) -> bool:
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def _pack_namedtuple(value: Any, depth: int, pack: Pack) -> Any:
    if getattr(value, "__dict__", None):
        raise Refused(value, "a namedtuple can't carry attributes of its own: use a dataclass.")
    members = dict(zip(value._fields, value, strict=True))
    return {TAG: "namedtuple", "of": _name_of(value), "v": pack_members(value, members, depth, pack)}


def _unpack_namedtuple(node: dict[str, Any]) -> Any:
    cls = _class_of(node, is_namedtuple)
    members = cls._field_defaults | node["v"]
    try:
        return tuple.__new__(cls, [members[name] for name in cls._fields])
    except KeyError as error:
        raise UnreadableValue(f"A recorded {cls.__qualname__} has no field {error}: give it a default.") from None


# -- Dataclasses and pydantic models -------------------------------------------------------------


def is_plain_dataclass(cls: type) -> bool:
    # One that also extends dict, say, has content besides its fields.
    return is_dataclass(cls) and built_in_base(cls) is object


def dataclass_state(value: Any) -> dict[str, Any]:
    """All attributes of a dataclass instance, in order, except cached properties."""
    state: Any = object.__getstate__(value)
    slots: dict[str, Any] = {}
    if isinstance(state, tuple):
        state, slots = state
    return _without_caches(type(value), (state or {}) | slots)


def _without_caches(cls: type, state: dict[str, Any]) -> dict[str, Any]:
    caches = (cached_property, django_cached_property)
    return {name: member for name, member in state.items() if not isinstance(getattr(cls, name, None), caches)}


def dataclass_with(cls: type, state: dict[str, Any]) -> Any:
    """An instance with these attributes; neither `__init__` nor `__setattr__` of the class is called.

    A class with slots has no place for an attribute of a field that it has lost: that one is left out.
    """
    value: Any = object.__new__(cls)
    attributes = getattr(value, "__dict__", None)
    for name, member in state.items():
        if isinstance(getattr(cls, name, None), MemberDescriptorType):
            object.__setattr__(value, name, member)
        elif attributes is not None:
            attributes[name] = member
    return value


def _pack_dataclass(value: Any, depth: int, pack: Pack) -> Any:
    return {TAG: "dataclass", "of": _name_of(value), "v": pack_members(value, dataclass_state(value), depth, pack)}


def _unpack_dataclass(node: dict[str, Any]) -> Any:
    cls = _class_of(node, is_plain_dataclass)
    state = node["v"]
    for field in fields(cls):
        if field.name in state:
            continue
        # The field is newer than the record.
        if field.default is not MISSING:
            state[field.name] = field.default
        elif field.default_factory is not MISSING:
            state[field.name] = field.default_factory()
    return dataclass_with(cls, state)


def is_pydantic(cls: type) -> bool:
    # Who hasn't imported pydantic has no models of it.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def pydantic_state(value: Any) -> dict[str, Any]:
    """What pydantic itself pickles, except cached properties."""
    import pydantic

    state = pydantic.BaseModel.__getstate__(value)
    return state | {"__dict__": _without_caches(type(value), state["__dict__"])}


def pydantic_with(cls: Any, state: dict[str, Any]) -> Any:
    """An instance with this state; nothing is validated."""
    import pydantic

    value = cls.__new__(cls)
    pydantic.BaseModel.__setstate__(value, state)
    return value


def _pack_pydantic(value: Any, depth: int, pack: Pack) -> Any:
    name, state = _name_of(value), pydantic_state(value)
    return {
        TAG: "pydantic",
        "of": name,
        "v": pack_members(value, state["__dict__"], depth, pack),
        "set": sorted(state["__pydantic_fields_set__"]),
        "extra": pack(state["__pydantic_extra__"], depth),
        "private": pack(state["__pydantic_private__"], depth),
    }


def _unpack_pydantic(node: dict[str, Any]) -> Any:
    cls = _class_of(node, is_pydantic)
    newer = {
        name: field.get_default(call_default_factory=True)
        for name, field in cls.model_fields.items()
        if name not in node["v"] and not field.is_required()
    }
    state = {
        "__dict__": node["v"] | newer,
        "__pydantic_fields_set__": RecordedSet(node["set"]),
        "__pydantic_extra__": node["extra"],
        "__pydantic_private__": node["private"],
    }
    return pydantic_with(cls, state)


# -- Their codecs --------------------------------------------------------------------------------

ENUM = Codec(_is_enum, _pack_enum, ("Enum", "Flag"), _unpack_enum)
NAMEDTUPLE = Codec(is_namedtuple, _pack_namedtuple, ("namedtuple",), _unpack_namedtuple)
PYDANTIC = Codec(is_pydantic, _pack_pydantic, ("pydantic",), _unpack_pydantic)
DATACLASS = Codec(is_plain_dataclass, _pack_dataclass, ("dataclass",), _unpack_dataclass)
