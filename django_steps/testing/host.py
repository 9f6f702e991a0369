"""Where the testing kit executes passes: on the caller's thread and connection, without waiting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar
from uuid import UUID

from ..engine.host import Direct
from ..ledger.claims import Claim
from . import clock
from .autocommit import Autocommit
from .order import Order

U = TypeVar("U")


class Others(Protocol):
    """What executes other runs meanwhile."""

    def execute_other(self, run_id: UUID) -> bool:
        """Execute a run while this one waits; whether there is one."""
        ...

    def next_due(self) -> int | None:
        """In how many microseconds a run becomes due by itself; None: never."""
        ...


class TestingHost(Direct):
    """The caller's thread and connection, where waiting only moves the virtual clock."""

    __test__ = False  # pytest collects what is named like this
    lets_through = (KeyboardInterrupt,)  # it means the whole test run
    logs_failures = False  # the kit knows which failures a test expects, and logs the others itself

    def __init__(
        self,
        alias: str,
        claim: Claim,
        autocommit: Autocommit,
        order: Order,
        others: Others,
        *,
        suspends_always: bool,
    ) -> None:
        super().__init__(alias)
        self.autocommit = autocommit
        self.suspends_always = suspends_always
        # It asks before each step whether the run may go on: what happens must not depend on how fast the machine is. And a
        # body whose calls have other arguments the second time is found here, whatever is said of it elsewhere.
        self.limits = replace(self.limits, trusted=-1.0, on_changed_arguments="fail")
        if suspends_always:
            self.limits = replace(self.limits, inline_wait_us=0)
        self.order = order
        self._claim, self._others = claim, others

    def arrange(self, begun: Sequence[U], others: Sequence[U], concurrency: int | None) -> Sequence[U]:
        return self.order.arranged(begun, others, concurrency)

    def wait(self, seconds: float) -> None:
        passed = -(-seconds * 1_000_000 // 1)
        clock.advance(int(passed))

    def execute_other(self) -> bool:
        """Execute another run, while this one waits for others; whether there is one."""
        return self._others.execute_other(self._claim.run_id)

    def others_due(self) -> float:
        """In how many seconds another run becomes due by itself, or infinity."""
        wait = self._others.next_due()
        return math.inf if wait is None else wait / 1_000_000
