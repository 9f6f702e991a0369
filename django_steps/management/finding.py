"""Finding the run that somebody means: by its id, the beginning of that, or its key."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from ..core.ids import beginning_with
from ..definitions import registered
from ..models import WorkflowRun
from ..models.querysets import WorkflowRunQuerySet
from . import base

_NAMED = 5  # runs, where several are meant
_SHORTEST_BEGINNING = 8  # characters of an id


def runs() -> WorkflowRunQuerySet[WorkflowRun]:
    """All runs, with their workers."""
    return WorkflowRun.objects.using(base.connection().alias).select_related("worker")


def find(text: str) -> WorkflowRun:
    """The run of this id or key, or whose id begins like this; `CommandError` if there is none, or several."""
    with suppress(ValueError):
        run = runs().filter(pk=UUID(text)).first()
        if run is not None:
            return run
    if (run := _only(with_key(text), _("Several runs have the key %(text)r. Give the id: %(runs)s"), text)) is not None:
        return run
    run = _only(with_beginning(text), _("The ids of several runs begin with %(text)r: %(runs)s"), text)
    if run is None:
        raise CommandError(_("There is no run with the id or key %(text)r.") % {"text": text})
    return run


def with_key(key: str) -> list[WorkflowRun]:
    """The first runs of a key."""
    # The names let the database use the index of the keys.
    names = {workflow.name for workflow in registered()}
    return list(runs().filter(workflow__in=names, key=key).order_by("pk")[: _NAMED + 1])


def with_beginning(text: str) -> list[WorkflowRun]:
    """The newest runs whose id begins like this; none for a beginning that is too short to mean one of them."""
    ids = beginning_with(text) if len(text) >= _SHORTEST_BEGINNING else None
    return [] if ids is None else list(runs().filter(pk__range=ids).order_by("-pk")[: _NAMED + 1])


def _only(found: list[WorkflowRun], several: str, text: str) -> WorkflowRun | None:
    if len(found) > 1:
        named = ", ".join(f"{run.pk} ({run.workflow})" for run in found[:_NAMED])
        named += ", …" if len(found) > _NAMED else ""
        raise CommandError(several % {"text": text, "runs": named})
    return found[0] if found else None
