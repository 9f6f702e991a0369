"""The histories of the runs of a claim: what this worker still has, and one query for the rest."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from itertools import takewhile
from uuid import UUID

from django.db import DatabaseError, InterfaceError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.repeated import Repeated
from ..ledger import database, histories
from ..ledger.claims import Claim
from ..ledger.histories import Recorded

logger = logging.getLogger("django_steps")


class HistoryCache:
    """The long histories that this worker saw last, so that a run of many sleeps doesn't load all of it each time.

    Short ones are cheaper to load than to keep.
    """

    _WORTH_KEEPING = 64  # records
    _KEPT = 8_000_000  # characters, a record counting for some more than it holds

    def __init__(self) -> None:
        self._kept: OrderedDict[UUID, tuple[int, list[Recorded], int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self.repeated = Repeated(logger)

    def keep(self, claim: Claim, recorded: list[Recorded], reset: Collection[str] | None = None) -> None:
        """Keep what a run had recorded when it was suspended, up to what was `reset` for another attempt."""
        generation = claim.generation
        if reset is not None:  # these are no longer final
            recorded = list(takewhile(lambda item: item.name not in reset, recorded))
            generation += 1
        with self._lock:
            self._drop(claim.run_id)
            size = _size(recorded)
            if len(recorded) < self._WORTH_KEEPING or size > self._KEPT:
                return
            self._kept[claim.run_id] = (generation, recorded, size)
            self._size += size
            while self._size > self._KEPT:
                self._drop(next(iter(self._kept)))

    def take(self, claims: Collection[Claim]) -> dict[UUID, list[Recorded]]:
        """What is kept of these runs and still good."""
        with self._lock:
            found = {}
            for claim in claims:
                generation, recorded, _ = self._kept.get(claim.run_id, (-1, [], 0))
                self._drop(claim.run_id)
                if generation == claim.generation:
                    found[claim.run_id] = recorded
        return found

    def _drop(self, run_id: UUID) -> None:
        kept = self._kept.pop(run_id, None)
        if kept is not None:
            self._size -= kept[2]


def _size(recorded: Sequence[Recorded]) -> int:
    return sum(400 + len(item.output or "") + len(item.error or "") + len(item.attempt_log) for item in recorded)


def load_histories(
    connection: BaseDatabaseWrapper, claims: Sequence[Claim], cache: HistoryCache
) -> dict[UUID, list[Recorded]]:
    """The histories of the runs of a claim: nothing to ask for fresh ones, one query for all the others.

    A run that is missing in the answer loads its own.
    """
    resumed = [claim for claim in claims if claim.has_history]
    found: dict[UUID, list[Recorded]] = {claim.run_id: [] for claim in claims if not claim.has_history}
    if not resumed:
        return found
    kept = cache.take(resumed)
    known = {claim.run_id: kept[claim.run_id][-1].position if claim.run_id in kept else -1 for claim in resumed}
    try:
        loaded = histories.load(connection, known)
    except (DatabaseError, InterfaceError) as error:  # the runs are claimed, so each has to get its turn
        cache.repeated.warning("histories", "Histories could not be loaded together: %s", error)
        database.drop(connection)
        return found
    cache.repeated.over("histories", "Histories can be loaded together again.")
    return found | {run_id: kept.get(run_id, []) + newer for run_id, newer in loaded.items()}
