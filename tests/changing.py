"""Bodies that change while runs are in flight: the same workflow defined a second time, as after a deploy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_steps import workflow
from django_steps.definitions import registry


def deploy(name: str, body: Callable[..., Any], **options: Any) -> Any:
    """The workflow of this name with another body, in this process."""
    registry._registry.pop((name, options.get("version", "")), None)
    return workflow(name=name, **options)(body)
