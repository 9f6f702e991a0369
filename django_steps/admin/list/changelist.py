"""The list of runs: a page of it costs the same few queries, however many runs there are.

Big columns stay in the database but for their beginnings, which are read for the runs of the page only; runs are
counted up to a limit, and the newest come first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any
from uuid import UUID

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import DataError, router, transaction
from django.db.models import Count
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils.functional import cached_property

from ...ledger import database
from ...models import StepRecord, WorkflowRun
from ...presentation import pauses, runs, waits
from . import search, subject
from .filters import StatusFilter, has_date_range

BIG_COLUMNS = (
    "input_text",
    "input_search",
    "output_text",
    "error_text",
    "checkpoint",
    "details_text",
    "overdue_text",
    "trace",
)
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
    """A page of runs with what their rows show of their steps, inputs and errors."""

    is_capped = False
    is_search_cut = False
    wider: Sequence[tuple[str, str]] = ()
    not_searched = ""

    def __init__(self, request: HttpRequest, *arguments: Any, **options: Any) -> None:
        connection = database.connection_for(router.db_for_read(WorkflowRun))
        # Of a request's transaction, so that it goes on after the database has refused a value.
        savepoint = transaction.atomic(using=connection.alias) if connection.in_atomic_block else nullcontext()
        try:
            with savepoint:
                super().__init__(request, *arguments, **options)
        except (ValueError, OverflowError, DataError) as error:
            # The database refuses what a filter compares with, such as a NUL or a time before its first year.
            raise IncorrectLookupParameters(error) from error

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Any:
        """Of finished runs those that ended last come first, of all others those that were started last."""
        queryset = super().get_queryset(request, exclude_parameters)
        is_finished = self.params.get(StatusFilter.parameter_name) in WorkflowRun.FINISHED
        return queryset.order_by("-finished_at", "-pk") if is_finished else queryset

    def get_results(self, request: HttpRequest) -> None:
        self.queryset = pauses.with_holds(self.queryset.defer(*BIG_COLUMNS))
        super().get_results(request)
        self.is_capped = getattr(self.paginator, "is_capped", False)
        self.is_search_cut = getattr(request, "steps_search_is_cut", False)
        if self.query and has_date_range(request):  # only then inputs and errors are searched
            self.not_searched = ", ".join(search.not_searched())
        self.result_list: list[WorkflowRun] = list(self.result_list)
        if self.result_list:
            self._read_details([run.pk for run in self.result_list])
        elif self.query and not has_date_range(request):
            self.wider = [(label, self.get_query_string(new)) for label, new in search.date_ranges()]

    def _read_details(self, ids: list[UUID]) -> None:
        starts = WorkflowRun.objects.filter(pk__in=ids).values_list(
            "pk", Left("input_text", subject.READ), Left("error_text", _ERROR_START)
        )
        texts = {pk: found for pk, *found in starts}
        kinds = StepRecord.objects.filter(run__in=ids).values_list("run", "kind").annotate(Count("pk"))
        counts: Counter[tuple[UUID, bool]] = Counter()
        for pk, kind, count in kinds:
            counts[pk, kind == StepRecord.Kind.SLEEP] += count
        retrying = runs.retrying_steps(self.result_list)
        waiting = waits.of_runs(self.result_list)
        for run in self.result_list:
            row: Any = run
            row.retrying = retrying.get(run.pk)
            row.waits = waiting.get(run.pk)
            row.input_start, row.error_start = texts.get(run.pk, (None, None))
            row.step_count = counts[run.pk, False]
            row.sleep_count = counts[run.pk, True]
