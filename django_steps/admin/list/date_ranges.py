"""The date range filter of `django-admin-rangefilter`, through the indexes that the runs have.

Imported only where that app is installed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from rangefilter.filters import DateRangeFilter

from ...core import clock
from ...models import WorkflowRun

# Ids begin with the time at which they were made, which is that of the run; clocks that are set back are allowed for.
_SLACK = timedelta(hours=1)
_RANDOM_BITS = 80


class RunDateRangeFilter(DateRangeFilter):  # type: ignore[misc]
    """Runs of which a date lies in a range."""

    def _make_query_filter(self, request: HttpRequest, validated_data: dict[str, Any]) -> dict[str, Any]:
        condition: dict[str, Any] = super()._make_query_filter(request, validated_data)
        first, last = condition.get(f"{self.field_path}__gte"), condition.get(f"{self.field_path}__lte")
        if self.field_path == "created_at":
            if first is not None:
                condition["pk__gte"] = _id_at(first, -_SLACK)
            if last is not None:
                condition["pk__lte"] = _id_at(last, _SLACK)
        if self.field_path == "finished_at" and condition:
            condition["status__in"] = WorkflowRun.FINISHED
        return condition


def _id_at(moment: datetime, slack: timedelta) -> UUID:
    milliseconds = max((clock.to_microseconds(moment) + slack // timedelta(microseconds=1)) // 1000, 0)
    return UUID(int=min(milliseconds << _RANDOM_BITS, (1 << 128) - 1))
