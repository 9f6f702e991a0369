"""What an async pass needs from the place where it runs: who writes for it, and who executes what blocks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from ..ledger.claims import Claim
from ..ledger.leases import Renewal
from ..ledger.records import Outcome, StepWrite
from ..ledger.transitions import Finish
from .host import Host
from .loops import Steady

T = TypeVar("T")


class AsyncHost(Protocol):
    """The place of async passes. What its methods return can't be canceled: who waits for it is canceled once it is done."""

    @property
    def host(self) -> Host:
        """The same place for what blocks; it may be used on any of the threads that execute `call()` and `run_step()`."""
        ...

    def record(self, write: StepWrite) -> Awaitable[Outcome]:
        """Record the outcome of a step, as `Host.record()`."""
        ...

    def finish(self, end: Finish) -> Awaitable[Outcome]:
        """End the run, as `Host.finish()`."""
        ...

    def confirm(self, claim: Claim) -> Awaitable[Renewal]:
        """Ask whether a run was canceled or lost."""
        ...

    def call(self, function: Callable[[], T]) -> Awaitable[T]:
        """Call something that blocks, and is short, on a thread that may use the ORM."""
        ...

    def run_step(self, function: Callable[[], Any]) -> Steady:
        """Call something that blocks and may take long, in the context of the caller: the function of a step. It
        may be answered before the function has ended."""
        ...
