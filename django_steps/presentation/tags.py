"""Tags as people read them, and what a run is about."""

from __future__ import annotations

from ..core.tags import ABOUT
from ..models import WorkflowRun
from ..values import references
from .text import clipped

_LONGEST = 100  # characters of a value


def listed(run: WorkflowRun) -> list[tuple[str, str]]:
    """The tags of a run, each as it is looked for and as it is shown: `tenant=acme`. First what it is about: `order 7`."""
    tags = sorted(run.tags.items())
    found = [(f"{name}={value}", f"{name}={clipped(value, _LONGEST)}") for name, value in tags]
    about = run.about_text
    return [(f"{ABOUT}={about}", label(about)), *found] if about else found


def about(run: WorkflowRun) -> str:
    """What a run is about: `order 7`; empty for nothing."""
    text = run.about_text
    return label(text) if text else ""


def line(run: WorkflowRun) -> str:
    """The tags in a line, without what the run is about."""
    return ", ".join(f"{name}={clipped(value, _LONGEST)}" for name, value in sorted(run.tags.items()))


def label(text: str) -> str:
    """What the text of a reference stands for: `order 7`."""
    model, key = references.parts(text)
    name = text.partition(":")[0] if model is None else str(model._meta.verbose_name)
    return clipped(f"{name} {key}", _LONGEST)
