"""Which steps' failures an exception is that came out of a body.

The exception may be a step's own, one raised from it or while it was handled, or a group that holds some.
"""

from __future__ import annotations

from collections.abc import Sequence


class Attribution:
    """The exceptions that a pass has raised in its body, and the steps they came from."""

    __slots__ = ("_raised",)

    def __init__(self) -> None:
        # By identity, with the exception itself: it has to live as long as its identity is looked up.
        self._raised: dict[int, tuple[BaseException, Sequence[str], str]] = {}

    def remember(self, error: BaseException, steps: Sequence[str], record: str = "") -> None:
        """A failure is about to be raised in the body: that of these steps, of which one `record` (its name) has the text.

        What is said last of an exception holds.
        """
        self._raised[id(error)] = (error, steps, record)

    def steps_it_is(self, error: BaseException) -> Sequence[str]:
        """The steps whose failure this very exception is."""
        return self._raised[id(error)][1] if id(error) in self._raised else ()

    def record_of(self, error: BaseException) -> str:
        """The name of the record that this very exception was made from; empty for none."""
        return self._raised[id(error)][2] if id(error) in self._raised else ""

    def steps_of(self, error: BaseException) -> list[str]:
        """The steps whose failures this exception is, or holds, or was raised from or in.

        What a group was raised from or in counts only where none of its members is a step's failure.
        """
        found: list[str] = []
        seen: set[int] = set()
        # Not by recursion: chains can be longer than the stack is deep. An exception comes a second time after its
        # members, with the number of steps that had been found before them.
        waiting: list[tuple[BaseException, int | None]] = [(error, None)]
        while waiting:
            error, found_before = waiting.pop()
            if found_before is not None:
                if len(found) == found_before and (origin := _origin(error)) is not None:
                    waiting.append((origin, None))
            elif id(error) not in seen:
                seen.add(id(error))
                if steps := self.steps_it_is(error):
                    found += steps
                    continue
                waiting.append((error, len(found)))
                if isinstance(error, BaseExceptionGroup):
                    waiting += [(member, None) for member in reversed(error.exceptions)]
        return list(dict.fromkeys(found))


def _origin(error: BaseException) -> BaseException | None:
    """What an exception was raised from or in, as a traceback shows it."""
    return error.__context__ if error.__cause__ is None and not error.__suppress_context__ else error.__cause__
