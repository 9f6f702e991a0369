"""The members of a dataclass or pydantic model, as a form needs them."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any


@dataclasses.dataclass
class Member:
    """One field of a dataclass or pydantic model.

    `key`: by which the type takes it from a dict; that is another name where a pydantic model has an alias.
    """

    name: str
    annotation: Any
    is_required: bool
    default: Any = None
    help_text: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        self.key = self.key or self.name

    def leaves_out(self, value: Any) -> bool:
        """Whether what was typed leaves the member to its default."""
        return not self.is_required and (value is None or value == "")


def members_of(type_: Any) -> list[Member] | None:
    """The members of a type; None for one that is neither a dataclass nor a pydantic model with fields."""
    if not isinstance(type_, type):
        return None
    if hasattr(type_, "model_fields"):
        is_root = getattr(type_, "__pydantic_root_model__", False)  # takes the value itself
        return None if is_root else [_of_model(type_, name, info) for name, info in type_.model_fields.items()]
    if not dataclasses.is_dataclass(type_):
        return None
    hints = _hints(type_)
    return [_of_dataclass(field, hints.get(field.name)) for field in dataclasses.fields(type_) if field.init]


def without_none(annotation: Any) -> tuple[Any, bool]:
    """What is annotated besides None, and whether None is.

    >>> without_none(int | None)
    (<class 'int'>, True)
    """
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        others = [item for item in typing.get_args(annotation) if item is not type(None)]
        if len(others) < len(typing.get_args(annotation)):
            return (others[0] if len(others) == 1 else None), True
    return annotation, False


def _of_model(type_: Any, name: str, info: Any) -> Member:
    alias = info.validation_alias
    takes_name = type_.model_config.get("populate_by_name") or type_.model_config.get("validate_by_name")
    return Member(
        name,
        info.annotation,
        info.is_required(),
        _default_of(info),
        info.description or "",
        key=alias if isinstance(alias, str) and not takes_name else name,
    )


def _default_of(info: Any) -> Any:
    if info.is_required():
        return None
    try:
        return info.get_default(call_default_factory=True)
    except (TypeError, ValueError):  # a factory that is made for what else was validated
        return None


def _of_dataclass(field: dataclasses.Field[Any], annotation: Any) -> Member:
    if field.default is not dataclasses.MISSING:
        return Member(field.name, annotation, False, field.default)
    if field.default_factory is not dataclasses.MISSING:
        return Member(field.name, annotation, False, field.default_factory())
    return Member(field.name, annotation, True)


def _hints(type_: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(type_)
    except Exception:  # an annotation that names something imported for type checkers only
        return {}
