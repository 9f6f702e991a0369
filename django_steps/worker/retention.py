"""How long runs are kept, and deleting those that have been kept for so long: by status, and for each workflow.

What a workflow says of a status comes before the setting; where versions of a workflow differ, the longest time holds.
Workflows that this process doesn't know follow the setting.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import ENDS, conf
from ..definitions import registered
from ..ledger import database, reports
from ..models.deleting import Pruner

logger = logging.getLogger("django_steps")

_TRY_KEPT_AGAIN_AFTER = 3600.0  # seconds; until then rounds leave out the runs that could not be deleted
_NAMES = 10_000  # workflows in the table


class Rule(NamedTuple):
    """Runs of some statuses are kept for a time: those of some workflows, or of all but some."""

    kept: timedelta
    workflows: tuple[str, ...]
    but: tuple[str, ...]


def rules() -> dict[Rule, list[str]]:
    """What is deleted when, of all workflows, with the statuses that each rule is for."""
    found: dict[Rule, list[str]] = defaultdict(list)
    setting = conf.retention
    for status in ENDS:
        usual = setting.get(status)
        own = _own(status, usual)
        if usual is not None:
            found[Rule(usual, (), tuple(sorted(own)))].append(status)
        for kept in sorted(filter(None, set(own.values()))):
            found[Rule(kept, tuple(sorted(name for name in own if own[name] == kept)), ())].append(status)
    return found


def _own(status: str, usual: timedelta | None) -> Mapping[str, timedelta | None]:
    """The workflows that say something of a status, and how long they are kept; None: without limit."""
    times: dict[str, list[timedelta | None]] = defaultdict(list)
    says = set()
    for workflow in registered():
        times[workflow.name].append(workflow.retention.get(status, usual))
        if status in workflow.retention:
            says.add(workflow.name)
    return {name: None if None in found else max(filter(None, found)) for name, found in times.items() if name in says}


class Retention:
    """Deletes what has been kept for long enough, in small batches, until it is stopped."""

    def __init__(self, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped
        self._pruners: dict[Rule, Pruner] = {}
        self._began = time.monotonic()

    def prune(self, connection: BaseDatabaseWrapper) -> None:
        """Delete all that is due now."""
        if time.monotonic() - self._began > _TRY_KEPT_AGAIN_AFTER:
            self._began, self._pruners = time.monotonic(), {}
        found = rules()
        if not found:
            return
        now = database.read_clock(connection)
        names = reports.workflow_names(connection, _NAMES) if any(rule.but for rule in found) else []
        for rule, statuses in found.items():
            pruner = self._pruners.setdefault(rule, Pruner())
            pruner.workflows = _workflows(rule, names)
            self._prune(connection, now - rule.kept // timedelta(microseconds=1), statuses, pruner)

    def _prune(self, connection: BaseDatabaseWrapper, before: int, statuses: Sequence[str], pruner: Pruner) -> None:
        if pruner.workflows is not None and not pruner.workflows:
            return
        kept = pruner.kept
        while not self._is_stopped() and pruner.batch(connection, before, statuses):
            pass
        if pruner.kept > kept:
            logger.warning(
                "%d runs are older than RETENTION and can't be deleted. The first: %s", pruner.kept, pruner.reason
            )


def _workflows(rule: Rule, names: Sequence[str]) -> Sequence[str] | None:
    """Of which workflows a rule deletes; None: of all. By their names, so that what is kept longer is not walked over."""
    if rule.workflows:
        return rule.workflows
    return [name for name in names if name not in rule.but] if rule.but else None
