"""Leaving and counting traces of what executed, across processes."""

from __future__ import annotations

import os
import time

from django_steps import current_step
from django_steps.errors import StepsError

from .models import Effect


def leave(name: str) -> None:
    """One trace, of the run that is being executed if there is one."""
    try:
        run = str(current_step().run_id)
    except StepsError:
        run = ""
    Effect.objects.create(run=run, name=name, pid=os.getpid(), at=time.time())


def count(name: str, run: object = None) -> int:
    """How often `name` executed, in all runs or in one."""
    effects = Effect.objects.filter(name=name)
    return effects.count() if run is None else effects.filter(run=str(getattr(run, "pk", run))).count()


def names(run: object = None) -> list[str]:
    """What executed, in order."""
    effects = Effect.objects.order_by("id")
    if run is not None:
        effects = effects.filter(run=str(getattr(run, "pk", run)))
    return list(effects.values_list("name", flat=True))
