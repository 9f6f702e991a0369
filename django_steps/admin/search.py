"""Searching runs: by id and key at once, by the text of inputs and errors within a chosen time.

Text is never searched in runs of workflows that mask keys, nor of those that this process doesn't know: a hit would
confirm a value that no page shows.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any
from uuid import UUID

from django.db import router
from django.db.models import Q, QuerySet

from ..definitions import registered
from ..ledger import reports, sql
from ..models import WorkflowRun

_HEX = re.compile(r"[0-9a-f]{1,32}")
_TAIL = 12  # digits of an id that the list shows
_AT_MOST = 200


def by_id_or_key(term: str) -> Q:
    """Runs with this key, or with this id: all of it, its beginning, or the end that the list shows."""
    connection = sql.connection_for(router.db_for_read(WorkflowRun))
    return Q(pk__in=reports.find_by_key(connection, term)) | _by_id(term)


def in_text(term: str) -> Q:
    """Runs whose key, input or error holds the text, of workflows that mask nothing."""
    escaped = json.dumps(term)[1:-1]
    searched = Q(input_text__icontains=escaped) | Q(error_text__icontains=escaped)
    return Q(key__icontains=term) | (searched & _unmasked())


def search(queryset: QuerySet[Any], term: str, *, text: bool) -> QuerySet[Any]:
    """The runs that the term finds; all of them for an empty one."""
    term = term.strip().replace("\0", "")
    if not term:
        return queryset
    found = by_id_or_key(term)
    return queryset.filter(found | in_text(term) if text else found)


def _by_id(term: str) -> Q:
    digits = term.lower().lstrip("…").replace("-", "")
    if not _HEX.fullmatch(digits):
        return Q(pk__in=[])
    if len(digits) == _TAIL and "-" not in term:
        return Q(pk__in=_ids(Q(pk__endswith=digits))) | _begins_with(digits)
    return _begins_with(digits)


def _ids(condition: Q) -> list[UUID]:
    return list(WorkflowRun.objects.filter(condition).values_list("pk", flat=True)[:_AT_MOST])


def _begins_with(digits: str) -> Q:
    first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    return Q(pk=first) if first == last else Q(pk__gte=first, pk__lte=last)


def _unmasked() -> Q:
    kinds = Q(pk__in=[])
    for workflow in registered():
        if not workflow.mask:
            kinds |= Q(workflow=workflow.name, version=workflow.version)
    return kinds


def parse_ids(text: str) -> list[UUID]:
    """The ids in a text that has them separated by commas; whatever is none is left out."""
    ids = []
    for part in text.split(","):
        with contextlib.suppress(ValueError):
            ids.append(UUID(part.strip()))
    return ids
