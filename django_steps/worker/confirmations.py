"""Asking whether runs were canceled, paused or lost, for many async passes by one statement.

A pass asks before a step that doesn't follow a record at once. On a busy loop many do so within a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..engine.host import Host
from ..engine.loops import PassLoop, Steady
from ..ledger import leases
from ..ledger.claims import Claim
from ..ledger.leases import Holding, Renewal

_AT_MOST = 500  # runs in one statement

_Asked = tuple[Claim, Steady]


class Confirmations:
    """One question at a time, for all that have asked meanwhile; used on the thread of the loop.

    `put` gives something to a thread, which asks by `host`.
    """

    def __init__(self, loop: PassLoop, host: Host, put: Callable[[Callable[[], None]], None]) -> None:
        self._loop, self._host, self._put = loop, host, put
        self._asked: list[_Asked] = []
        self._is_asking = False

    def ask(self, claim: Claim) -> Steady:
        """What is found of a run."""
        answer = self._loop.steady()
        self._asked.append((claim, answer))
        if not self._is_asking:
            self._is_asking = True
            self._loop.soon(self._send)
        return answer

    def _send(self) -> None:
        batch, self._asked = self._asked[:_AT_MOST], self._asked[_AT_MOST:]
        self._put(partial(self._check, batch))

    def _check(self, batch: list[_Asked]) -> None:
        """On a thread."""
        holdings = {claim.run_id: Holding(claim.token) for claim, _ in batch}
        host = self._host
        try:
            found = host.write(lambda: leases.check(host.connection(), holdings))
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._answer, batch, None, error)
        else:
            self._loop.call_soon_threadsafe(self._answer, batch, found, None)

    def _answer(self, batch: list[_Asked], found: Renewal | None, error: BaseException | None) -> None:
        if self._asked:
            self._send()
        else:
            self._is_asking = False
        for claim, answer in batch:
            if found is None:
                answer.fail(error or RuntimeError("nothing was found"))
                continue
            lost, halted = {claim.run_id} & found.lost, {claim.run_id} & found.halted
            answer.set_result(Renewal(lost=lost, halted=halted))
