"""The registry of workflows, by name and version."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ..errors import UnknownWorkflow
from .workflow import Workflow

_registry: dict[tuple[str, str], Workflow[Any, Any]] = {}


def register(definition: Workflow[Any, Any]) -> Workflow[Any, Any]:
    """Put a workflow into the registry; the same line may do so again (a module that is imported anew)."""
    key = definition.name, definition.version
    other = _registry.get(key)
    if other is not None and other.place != definition.place:
        version = f" (version {definition.version!r})" if definition.version else ""
        raise ImproperlyConfigured(
            f"Two workflows are named {definition.name!r}{version}: {other.place} and {definition.place}. "
            "Give one of them another name or version."
        )
    _refuse_taken_schedules(definition)
    _registry[key] = definition
    return definition


def _refuse_taken_schedules(definition: Workflow[Any, Any]) -> None:
    """Each schedule has a name of its own, also among the versions of a workflow."""
    for key, other in _registry.items():
        taken = definition.schedules.keys() & other.schedules.keys()
        if taken and key != (definition.name, definition.version):
            raise ImproperlyConfigured(
                f"Two schedules are named {min(taken)!r}: of {other.place} and of {definition.place}. Give one of them"
                " another name; of a workflow with several versions one alone is scheduled."
            )


def get_workflow(name: str, version: str | None = None) -> Workflow[Any, Any]:
    """The workflow of that name; without a version the only or the latest registered one.

    Raises `UnknownWorkflow`, which lists the known ones.
    """
    found = [item for (known, v), item in _registry.items() if known == name and version in (None, v)]
    if not found:
        known = ", ".join(sorted({name for name, _ in _registry})) or "none"
        version_text = f" version {version!r}" if version else ""
        raise UnknownWorkflow(f"Unknown workflow {name!r}{version_text}. Known are: {known}.")
    return found[-1]


def masked_keys(name: str) -> frozenset[str]:
    """The keys that any registered version of the workflow masks: what is a secret in one is a secret in all."""
    return frozenset[str]().union(*(item.mask for (known, _version), item in _registry.items() if known == name))


def registered() -> list[Workflow[Any, Any]]:
    """All registered workflows, by name and version."""
    return [_registry[key] for key in sorted(_registry)]


def registered_kinds() -> frozenset[tuple[str, str]]:
    """The name and version of each registered workflow: what a worker of this process can claim."""
    return frozenset(_registry)
