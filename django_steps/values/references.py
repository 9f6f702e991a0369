"""An instance of a model as a short text that is the same for the same row, and can be looked for: `shop.order:7`."""

from __future__ import annotations

import json
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import Model

from .instances import primary_key

MAX_LENGTH = 255


def reference(instance: Any) -> str:
    """The text for an instance. A proxy is the row that it stands for; the database that it was read from doesn't count.

    Raises `TypeError` for what is no instance, and `ValueError` for one that is not saved or whose key is too long.
    """
    if not isinstance(instance, Model):
        raise TypeError(f"about= takes an instance of a model, as in about=order, got {instance!r}.")
    if instance.pk is None or instance._state.adding:
        raise ValueError(f"about= takes a saved instance, and this {instance._meta.label} isn't saved: save it first.")
    key = primary_key(instance)
    shown = json.dumps([str(part) for part in key]) if isinstance(key, tuple) else str(key)
    concrete: Any = instance._meta.concrete_model
    text = f"{concrete._meta.label_lower}:{shown}"
    if len(text) > MAX_LENGTH or not text.isprintable():
        raise ValueError(
            f"about= takes an instance whose key has at most {MAX_LENGTH} characters together with the name of its model, "
            f"and no control characters; got {text[:80]!r}."
        )
    return text


def parts(text: str) -> tuple[type[Model] | None, str]:
    """The model and the key in such a text; no model where no installed app has it."""
    label, _, key = text.partition(":")
    try:
        return apps.get_model(label), key
    except (LookupError, ValueError):
        return None, key


def referred(text: str) -> Model | None:
    """The row that such a text stands for; None if there is none any more."""
    model, key = parts(text)
    if model is None:
        return None
    field: Any = model._meta.pk
    try:
        found: Model | None = model._base_manager.filter(
            pk=tuple(json.loads(key)) if getattr(field, "fields", None) else key
        ).first()
    except (TypeError, ValueError, ValidationError):
        return None
    return found
