"""The list of runs: a page of it costs the same few queries, however many runs there are.

Big columns stay in the database, runs are counted up to a limit only, and the newest come first.
"""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Count
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils.functional import cached_property

from ..models import StepRecord, WorkflowRun
from .filters import StatusFilter

BIG_COLUMNS = ("input_text", "input_search", "output_text", "error_text", "takeovers_text")
_ERROR_START = 1200  # characters of a recorded error that hold its type and the beginning of its message


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts up to `cap` rows, so that no page costs a walk over the whole table."""

    cap = 10_000

    @cached_property
    def count(self) -> int:
        return min(self._counted, self.cap)

    @property
    def is_capped(self) -> bool:
        """Whether there are more rows than are counted."""
        return self._counted > self.cap

    @cached_property
    def _counted(self) -> int:
        queryset: Any = self.object_list
        return int(queryset.order_by().values("pk")[: self.cap + 1].count())


class RunChangeList(ChangeList):
    """A page of runs with what their rows show of their steps and errors."""

    is_capped = False

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Any:
        """Of finished runs those that ended last come first, of all others those that were started last."""
        queryset = super().get_queryset(request, exclude_parameters)
        is_finished = self.params.get(StatusFilter.parameter_name) in WorkflowRun.FINISHED
        return queryset.order_by("-finished_at", "-pk") if is_finished else queryset

    def get_results(self, request: HttpRequest) -> None:
        self.queryset = self.queryset.defer(*BIG_COLUMNS).annotate(error_start=Left("error_text", _ERROR_START))
        super().get_results(request)
        self.is_capped = getattr(self.paginator, "is_capped", False)
        self.result_list: list[WorkflowRun] = list(self.result_list)
        ids = [run.pk for run in self.result_list]
        counts = (
            StepRecord.objects.filter(run__in=ids, kind=StepRecord.Kind.STEP).values_list("run").annotate(Count("pk"))
        )
        steps = dict(counts) if ids else {}
        for run in self.result_list:
            run.step_count = steps.get(run.pk, 0)  # type: ignore[attr-defined]
