"""What the testing kit has to say about a workflow. All are `AssertionError`s, so that a test fails by them."""

from __future__ import annotations

from ..errors import StepsError


class UnusedStub(StepsError, AssertionError):
    """A stub that no step has used, or an event that no wait has taken; most likely its name is misspelled."""


class UnansweredWait(StepsError, AssertionError):
    """A run waits for an event that nobody sends, and has no timeout."""


class DoesNotEnd(StepsError, AssertionError):
    """Bodies were called so often, without everything coming to its end, that it probably never does."""


class NotRepeatable(StepsError, AssertionError):
    """A body came to other steps than on the pass before, although nothing but that pass had happened."""


class StateLost(StepsError, AssertionError):
    """A step changed a variable of the body, or of the module or thread that the body reads: no later pass will see it."""
