"""How instances of Django models are written as JSON: as references to their rows, and read as the rows are then.

Other classes of users are in `classes.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import Model

from ..errors import RecordedInstanceGone, UnreadableValue
from .types import TAG, Codec, Pack, Refused


def _is_model(cls: type) -> bool:
    return issubclass(cls, Model)


def _pack_instance(value: Model, depth: int, pack: Pack) -> Any:
    label, alias = value._meta.label, value._state.db
    if value.pk is None or alias is None or value._state.adding:
        raise Refused(value, "it isn't saved, and only a reference to its row can be kept: save it first.")
    if apps.all_models.get(value._meta.app_label, {}).get(str(value._meta.model_name)) is not type(value):
        raise Refused(value, f"its class isn't the model that Django knows as {label}: use its values.")
    return {TAG: "model", "of": label, "pk": pack(primary_key(value), depth), "db": alias}


def primary_key(instance: Model) -> Any:
    """The primary key as a query gives it: what was assigned may be a text that stands for a number or a UUID."""
    field: Any = instance._meta.pk
    try:
        if parts := getattr(field, "fields", None):  # a composite key
            return tuple(part.to_python(value) for part, value in zip(parts, instance.pk, strict=True))
        return field.to_python(instance.pk)
    except (TypeError, ValidationError, ValueError):  # nothing that the field understands
        return instance.pk


def _model(label: str) -> Any:
    try:
        return apps.get_model(label)
    except LookupError:
        raise UnreadableValue(f"A recorded value is a {label}, and no installed app has such a model.") from None


def _unpack_instance(node: dict[str, Any]) -> Any:
    model = _model(node["of"])
    instance = model._base_manager.using(node["db"]).filter(pk=node["pk"]).first()
    if instance is None:
        raise RecordedInstanceGone(node["of"], node["pk"])
    return instance


class Instances:
    """The rows that a text refers to, loaded with one query for each model and database.

    `note` takes the place of `unpack` in a first reading, `get` gives the instances in a second one.
    """

    def __init__(self) -> None:
        self._nodes: list[dict[str, Any]] = []
        self._rows: dict[tuple[str, str], dict[Any, Any]] = {}

    def note(self, node: dict[str, Any]) -> dict[str, Any]:
        if node.get(TAG) == "model":
            self._nodes.append(node)
        return node

    def load(self, read: Callable[[Any], Any]) -> None:
        """Queries for all that was noted; `read` gives a primary key from what is written of it."""
        wanted: dict[tuple[str, str], set[Any]] = {}
        for node in self._nodes:
            wanted.setdefault((node["of"], node["db"]), set()).add(read(node["pk"]))
        for (label, alias), keys in wanted.items():
            self._rows[label, alias] = _model(label)._base_manager.using(alias).in_bulk(list(keys))

    def get(self, node: dict[str, Any]) -> Any:
        instance = self._rows[node["of"], node["db"]].get(node["pk"])
        if instance is None:
            raise RecordedInstanceGone(node["of"], node["pk"])
        # Two references are two instances, as with any other value.
        return copy.copy(instance)


MODEL = Codec(_is_model, _pack_instance, ("model",), _unpack_instance)
