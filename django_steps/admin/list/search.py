"""Searching runs: by id and key at once, by the text of inputs and errors within a chosen time.

A part of a key is looked for among the newest runs only: no index finds it, and the table may have a million rows.

Text is never searched in runs of workflows that mask keys, nor of those that this process doesn't know: a hit would
confirm a value that no page shows.
"""

from __future__ import annotations

import contextlib
import json
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from django.apps import apps
from django.conf import settings
from django.db import router
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from ...core.ids import beginning_with
from ...definitions import masked_keys, registered
from ...ledger import database, reports
from ...models import WorkflowRun

_TAIL = 12  # digits of an id that the list shows
_AT_MOST = 200
_LONGEST_TERM = 1000  # characters; databases refuse patterns of tens of thousands
NEWEST = 10_000  # runs whose keys are searched for a part
KEYS_FOUND = 1000  # of those


def in_text(term: str) -> Q:
    """Runs whose key, input or error holds the text, of workflows that mask nothing."""
    escaped = json.dumps(term)[1:-1]
    searched = Q(input_text__icontains=escaped) | Q(error_text__icontains=escaped)
    return Q(key__icontains=term) | (searched & _unmasked())


def not_searched() -> list[str]:
    """The workflows in whose runs `in_text` looks at the keys only, since they mask something."""
    return sorted({workflow.name for workflow in registered() if masked_keys(workflow.name)})


def search(queryset: QuerySet[Any], term: str, *, text: bool) -> tuple[QuerySet[Any], bool]:
    """The runs that the term finds, and whether there may be more; all runs for an empty term."""
    term = term.replace("\0", "").strip()[:_LONGEST_TERM]
    if not term:
        return queryset, False
    connection = database.connection_for(router.db_for_read(WorkflowRun))
    with_key = reports.find_by_key(connection, term)
    found = _by_id(term) | Q(pk__in=with_key)
    if text:
        return queryset.filter(found | in_text(term)), False
    if with_key:  # whoever gives a whole key means that one
        return queryset.filter(found), False
    # They are named: within a condition with "or" a database might as well read the keys of all runs.
    newest = list(_newest_with(term)[: KEYS_FOUND + 1])
    return queryset.filter(found | Q(pk__in=newest[:KEYS_FOUND])), len(newest) > KEYS_FOUND


def date_ranges() -> list[tuple[Any, dict[str, str]]]:
    """Times within which texts can be searched, with the parameters of the list that choose them."""
    days = ((_("today"), 0), (_("the last 7 days"), 6), (_("the last 30 days"), 29))
    name = "created_at__range__gte" if apps.is_installed("rangefilter") else "created_at__gte"
    today = timezone.localdate() if settings.USE_TZ else date.today()
    return [(label, {name: f"{today - timedelta(days=count)}"}) for label, count in days]


def _newest_with(part: str) -> QuerySet[Any, UUID]:
    newest = WorkflowRun.objects.order_by("-pk").values_list("pk", flat=True)
    oldest = newest[NEWEST - 1 : NEWEST].first()
    found = newest.filter(key__icontains=part)
    return found if oldest is None else found.filter(pk__gte=oldest)


def _by_id(term: str) -> Q:
    """Runs with this id: all of it, its beginning, or the end that the list shows."""
    digits = term.lower().lstrip("…")
    ids = beginning_with(digits)
    if ids is None:
        return Q(pk__in=[])
    found = Q(pk__range=ids)
    return found | Q(pk__in=_ids(Q(pk__endswith=digits))) if len(digits) == _TAIL and "-" not in digits else found


def _ids(condition: Q) -> list[UUID]:
    return list(WorkflowRun.objects.filter(condition).values_list("pk", flat=True)[:_AT_MOST])


def _unmasked() -> Q:
    kinds = Q(pk__in=[])
    for workflow in registered():
        if not masked_keys(workflow.name):
            kinds |= Q(workflow=workflow.name, version=workflow.version)
    return kinds


def parse_ids(text: str) -> list[UUID]:
    """The ids in a text that has them separated by commas; whatever is none is left out."""
    ids = []
    for part in text.split(","):
        with contextlib.suppress(ValueError):
            ids.append(UUID(part.strip()))
    return ids
