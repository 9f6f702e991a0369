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
        """The steps whose failures this exception is, or holds, or was raised from or in."""
        return list(dict.fromkeys(self._steps_of(error, set())))

    def _steps_of(self, error: BaseException, seen: set[int]) -> list[str]:
        if id(error) in seen:
            return []
        seen.add(id(error))
        step = self.step_of(error)
        if step is not None:
            return [step]
        if isinstance(error, BaseExceptionGroup):
            members = [step for member in error.exceptions for step in self._steps_of(member, seen)]
            if members:
                return members
        if error.__cause__ is not None:
            return self._steps_of(error.__cause__, seen)
        if error.__context__ is not None and not error.__suppress_context__:
            return self._steps_of(error.__context__, seen)
        return []
