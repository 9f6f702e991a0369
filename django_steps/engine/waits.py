"""What the calls of a pass wait for others for, as long as they do: events, children.

A plain call that waits ends the pass, or its branch; a branch that is left waits on until it is called again. So what is
here when a run is suspended is what can wake it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import PassEnded
from ..ledger import waits
from ..ledger.waits import Suspension, Waiting


class Waits:
    """The waits of one pass, by the name of the call. Each attribute is set at once, and read by any thread."""

    def __init__(self) -> None:
        self._calls: dict[str, Waiting] = {}
        # How often there was news: whoever waits compares it with what it was when it began to wait.
        self.news = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    @contextmanager
    def waiting(self, name: str, waiting: Waiting) -> Iterator[None]:
        """In here a call waits. It waits on if this ends because its branch, or the pass, is left."""
        self._calls[name] = waiting
        try:
            yield
        except PassEnded:
            raise
        except BaseException:
            self._calls.pop(name, None)
            raise
        self._calls.pop(name, None)

    def over(self, name: str) -> None:
        """A call waits no more: its branch was called again."""
        self._calls.pop(name, None)

    def is_any_in(self, path: str) -> bool:
        """Whether a call waits that is the step at this path, or in the branch there."""
        return any(name == path or name.startswith(f"{path}/") for name in tuple(self._calls))

    def calls(self) -> Sequence[Waiting]:
        """What calls wait for; may be asked from any thread."""
        return list(self._calls.values())

    def suspension(self, until_us: int, now_us: int) -> Suspension:
        """How the run is suspended until a time, by machine time."""
        return waits.suspension(self.calls(), until_us, now_us)
