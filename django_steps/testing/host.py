"""Where the testing kit executes passes: on the caller's thread and connection, without waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from ..engine.host import Direct
from ..ledger.claims import Claim
from . import clock
from .autocommit import Autocommit
from .order import Order

U = TypeVar("U")


class TestingHost(Direct):
    """The caller's thread and connection, where waiting only moves the virtual clock."""

    __test__ = False  # pytest collects what is named like this
    lets_through = (KeyboardInterrupt,)  # it means the whole test run
    logs_failures = False  # the kit knows which failures a test expects, and logs the others itself

    def __init__(
        self, alias: str, claim: Claim, autocommit: Autocommit, order: Order, *, suspends_always: bool
    ) -> None:
        super().__init__(alias)
        self.autocommit = autocommit
        self.suspends_always = suspends_always
        if suspends_always:
            self.limits = replace(self.limits, inline_wait_us=0)
        self.order = order
        self._claim = claim

    def arrange(self, begun: Sequence[U], others: Sequence[U], concurrency: int | None) -> Sequence[U]:
        return self.order.arranged(begun, others, concurrency)

    def wait(self, seconds: float) -> None:
        passed = -(-seconds * 1_000_000 // 1)
        clock.advance(int(passed))
        self._claim.claimed_at += int(passed)
