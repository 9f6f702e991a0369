"""Which steps' failures an exception is that came out of a body.

The exception may be a step's own, one raised from it or while it was handled, or a group that holds some.
"""

from __future__ import annotations


class Attribution:
    """The exceptions that a pass has raised in its body, and the steps they came from."""

    __slots__ = ("_raised",)

    def __init__(self) -> None:
        self._raised: list[tuple[BaseException, str]] = []

    def remember(self, error: BaseException, step: str) -> None:
        """A step's failure is about to be raised in the body."""
        self._raised.append((error, step))

    def step_of(self, error: BaseException) -> str | None:
        """The step whose failure this very exception is."""
        return next((step for raised, step in self._raised if raised is error), None)

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
                step = self.step_of(error)
                if step is not None:
                    found.append(step)
                    continue
                waiting.append((error, len(found)))
                if isinstance(error, BaseExceptionGroup):
                    waiting += [(member, None) for member in reversed(error.exceptions)]
        return list(dict.fromkeys(found))


def _origin(error: BaseException) -> BaseException | None:
    """What an exception was raised from or in, as a traceback shows it."""
    return error.__context__ if error.__cause__ is None and not error.__suppress_context__ else error.__cause__
