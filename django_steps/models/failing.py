"""Which runs failed in the same way: with errors of one class, in the same step."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from django.db.models import QuerySet, Value
from django.db.models.functions import StrIndex

from ..core.names import without_keys
from ..ledger import database, reports

Q = TypeVar("Q", bound="QuerySet[Any]")


def with_error(runs: Q, error: str) -> Q:
    """Those that have an error of this class: its dotted path, or its name alone, whatever the module.

    >>> with_error(WorkflowRun.objects.failed(), "CardDeclined")  # doctest: +SKIP
    """
    is_path = not error or "." in error
    return runs.filter(error_text__isnull=False, error_type__in=[error] if is_path else _named(runs.db, error))


def at_step(runs: Q, step: str) -> Q:
    """Those whose error is the failure of this step, by its path: without keys (`order/charge`) that of any item, with them
    (`order#17/charge`) that of this one; an empty text for those that no step has failed.

    >>> at_step(WorkflowRun.objects.failed(), "order/charge")  # doctest: +SKIP
    """
    found = runs.filter(error_text__isnull=False, failed_step=without_keys(step))
    if "#" not in step:
        return found
    named = json.dumps(step)  # as the error has it
    # Of these two some databases distinguish upper and lower case with one only.
    return found.alias(place=StrIndex("error_text", Value(named))).filter(error_text__contains=named, place__gt=0)


def _named(alias: str, name: str) -> list[str]:
    types = reports.error_types(database.connection_for(alias))
    return [found for found in types if found == name or found.endswith(f".{name}")]
