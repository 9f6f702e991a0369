"""What follows from the end of runs that ended without a pass: signals, parents that wait, children that are left.

To be called after the commit, outside a transaction.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import Cause
from ..ledger import cascades, overlaps
from ..ledger.claims import Claim, Claimed
from ..ledger.schedules import Fired
from . import hooks


class Aftercare:
    """What follows from what claims have come across: runs that ended because their worker died, and canceling ones that wait
    for their children. It is done a little at a time, since there may be very many children."""

    def __init__(self) -> None:
        self._left: deque[Callable[[BaseDatabaseWrapper], cascades.Portions]] = deque()
        self._begun: cascades.Portions = iter(())

    def add(self, claimed: Claimed) -> None:
        """Something to look after; the signals of runs that ended are sent at once."""
        for run_id in claimed.ended:
            hooks.run_ended(run_id)
        if claimed.ended:
            self._left.append(partial(_ended, run_ids=claimed.ended))
        self._left += [partial(cascades.settling, run_id=run_id) for run_id in claimed.canceling]

    def go_on(self, connection: BaseDatabaseWrapper, seconds: float = math.inf) -> bool:
        """Go on for about so long; whether anything is left. What raises an error is left to the nets."""
        until = time.monotonic() + seconds
        while True:
            begun, self._begun = self._begun, iter(())
            for finished in begun:
                hooks.children_canceled(finished)
                if time.monotonic() >= until:
                    self._begun = begun
                    return True
            if not self._left:
                return False
            self._begun = self._left.popleft()(connection)


def _ended(connection: BaseDatabaseWrapper, run_ids: Sequence[UUID]) -> cascades.Portions:
    yield cascades.ended(connection, run_ids)
    for run_id in run_ids:
        yield from cascades.canceling_children(connection, run_id, Cause.PARENT_ENDED)


def look_after(connection: BaseDatabaseWrapper, claimed: Claimed) -> None:
    """Look after what a claim has come across, all at once."""
    aftercare = Aftercare()
    aftercare.add(claimed)
    aftercare.go_on(connection)


def run_canceled(connection: BaseDatabaseWrapper, claim: Claim) -> None:
    """A claimed run was released without a pass, and is canceled by that: let the run go on that waits for it."""
    if claim.parent is not None or claim.schedule is not None:
        hooks.children_canceled(cascades.ended(connection, [claim.run_id]))


def cancel_orphans(connection: BaseDatabaseWrapper, goes_on: Callable[[], bool] = lambda: True) -> None:
    """Cancel children whose parent has ended, and whose cancel got lost, as long as `goes_on()` says so."""
    found = cascades.orphaned(connection)
    while found:
        for run_id in found:
            for finished in cascades.canceling_children(connection, run_id, Cause.PARENT_ENDED):
                hooks.children_canceled(finished)
                if not goes_on():
                    return
        found = cascades.orphaned(connection, after=found[-1])


def schedules_fired(connection: BaseDatabaseWrapper, fired: Fired) -> None:
    """Schedules have fired: cancel the old runs that the new ones are to replace, and let the new ones begin where no old one
    is left."""
    hooks.children_canceled(fired.superseded)
    for name, cancels in fired.held.items():
        _look_after_held(connection, name, cancels)


def look_after_held(connection: BaseDatabaseWrapper) -> None:
    """The same for all runs that are held, some of whose processes may have died in between."""
    for name, cancels in overlaps.held(connection):
        _look_after_held(connection, name, cancels)


def _look_after_held(connection: BaseDatabaseWrapper, name: str, cancels: bool) -> None:
    for run_id in overlaps.cancel_active(connection, name) if cancels else ():
        hooks.children_canceled(cascades.after_cancel(connection, run_id))
    overlaps.look(connection, name)
