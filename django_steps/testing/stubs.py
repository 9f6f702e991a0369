"""What takes the place of steps in a test, by their names, and which of it was used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from ..core.names import check_name, without_keys
from .errors import UnusedStub


class Stubs:
    """The stubs of one call of the kit."""

    def __init__(self, stubs: Mapping[str, Any] | None) -> None:
        if stubs is not None and not isinstance(stubs, Mapping):
            raise TypeError(f'stubs takes a dict by step names, as in stubs={{"charge": {{"id": 1}}}}, got {stubs!r}.')
        self._stubs = {check_name(name, "step name"): stub for name, stub in (stubs or {}).items()}
        self._unused = set(self._stubs)
        self._real: dict[str, None] = {}  # the steps that were executed without a stub
        # Of the test itself, in a stub that was called: not the step's failure, but the test's.
        self.failed_assertion: AssertionError | None = None

    def function_for(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """What is to be called as this step. A stub may be that of one item or branch, or of all of them."""
        if not self.has(name):
            self._real[name] = None
            return function
        name = name if name in self._stubs else without_keys(name)
        self._unused.discard(name)
        stub = self._stubs[name]
        if _is_exception(stub):
            return _raising(stub)
        return self._watching(stub) if callable(stub) else lambda *args, **kwargs: stub

    def _watching(self, stub: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return stub(*args, **kwargs)
            except AssertionError as error:
                self.failed_assertion = error
                raise

        return call

    def has(self, name: str | None) -> bool:
        """Whether this step is stubbed."""
        return name is not None and (name in self._stubs or without_keys(name) in self._stubs)

    def is_stubbed_by(self, name: str, error: type[BaseException]) -> bool:
        """Whether the stub of this step is an exception of this class, or the class."""
        stub = self._stubs.get(name, self._stubs.get(without_keys(name)))
        return isinstance(stub, error) or (isinstance(stub, type) and issubclass(stub, error))

    def check_used(self, reached: Mapping[str, str]) -> None:
        """Raise `UnusedStub` if a stub was not used; `reached` are the names of the steps that there were, with their kinds
        where these are known."""
        for name in self._stubs:
            if name in self._unused:
                raise UnusedStub(f"No step used the stub {name!r}. {_advice(name, reached)}")

    def check_spelling(self) -> None:
        """Raise `UnusedStub` if a stub was not used, and a step of nearly its name was executed without one.

        For runs that did not get to their end: a stub of any other name may belong to a step that was not reached.
        """
        for name in self._stubs:
            meant = misspelled(name, _like(name, self._real)) if name in self._unused else None
            if meant is not None:
                raise UnusedStub(
                    f"No step used the stub {name!r}, and step {meant!r} was executed without a stub. If it is not"
                    f" {meant!r} that is meant, but a step that was not reached, leave the stub out."
                )


def _raising(error: Any) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error if isinstance(error, type) else error.with_traceback(None)

    return fail


def _is_exception(stub: Any) -> bool:
    return isinstance(stub, BaseException) or (isinstance(stub, type) and issubclass(stub, BaseException))


def misspelled(name: str, steps: Iterable[str]) -> str | None:
    """The step whose name was most likely meant: not `notify_1` for `notify_2`, nor `book` for `unbook`."""
    likely = [step for step in steps if abs(len(step) - len(name)) <= 1 and _letters(step) != _letters(name)]
    similar = get_close_matches(name, likely, n=1, cutoff=0.75)
    return similar[0] if similar else None


def _letters(name: str) -> str:
    return "".join(character for character in name if not character.isdigit())


def _like(stub: str, names: Iterable[str]) -> list[str]:
    """Names of steps as the stub is written: with the keys of items, or without."""
    return list(names) if "#" in stub else list(dict.fromkeys(map(without_keys, names)))


# Of steps that no stub is for, by their kinds.
_INSTEAD = {
    "event": "It is a wait for an event: give its payload by events=, under the name of the event.",
}


def _advice(stub: str, reached: Mapping[str, str]) -> str:
    if (instead := _INSTEAD.get(reached.get(stub, ""))) is not None:
        return instead
    names = _like(stub, reached)
    if not names:
        return "No steps were executed at all."
    inside = next((name for name in names if stub in names and name.startswith(f"{stub}/")), None)
    if inside is not None:
        return f"It is a branch, which is called as it is: stub the steps in it, such as {inside!r}."
    similar = get_close_matches(stub, names, n=1)
    meant = f"Did you mean {similar[0]!r}? " if similar else ""
    return f"{meant}The steps were: {', '.join(map(repr, names[:50]))}."
