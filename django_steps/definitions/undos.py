"""The undo of a step: a function that takes back what the step has done, and with what it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_undo(name: str, undo: Any) -> Callable[..., Any] | None:
    """Return the undo of the step of this name, or raise `TypeError` if it can't be called with a result."""
    if undo is None:
        return None
    if not callable(undo):
        raise TypeError(f"undo of step {name!r} takes a function, got {undo!r}.")
    signature = _signature(undo)
    if signature is not None and not _takes_positional(signature):
        raise TypeError(
            f"undo of step {name!r} has to take the result of the step as its first argument, and {undo!r} takes none."
        )
    function: Callable[..., Any] = undo
    return function


def takes_arguments(undo: Callable[..., Any]) -> bool:
    """Whether an undo is called with the arguments of the step, too, behind its result: where it needs more than one argument,
    or takes any.

    >>> takes_arguments(lambda booking: None), takes_arguments(lambda booking, day: None)
    (False, True)
    >>> takes_arguments(lambda booking, force=False: None), takes_arguments(lambda booking, *args, **kwargs: None)
    (False, True)
    """
    signature = _signature(undo)
    if signature is None:  # of a builtin that says nothing of itself
        return False
    parameters = list(signature.parameters.values())
    needed = [one for one in parameters if one.default is one.empty and one.kind not in _ANY]
    return len(needed) > 1 or any(one.kind in _ANY for one in parameters[1:]) or parameters[0].kind in _ANY


def check_fits(name: str, undo: Callable[..., Any], function: Callable[..., Any]) -> None:
    """Raise `TypeError` if an undo that takes the arguments of its step can't take any that this function takes."""
    signature, of_step = _signature(undo), _signature(function)
    if signature is None or of_step is None or not takes_arguments(undo):
        return
    parameters = list(of_step.parameters.values())
    if any(one.kind in _ANY for one in parameters):
        return
    needed = [one for one in parameters if one.default is one.empty]
    if not any(_binds(signature, some, by_name) for some in (parameters, needed) for by_name in (False, True)):
        raise TypeError(f"undo of step {name!r} takes {signature}: neither the result alone, nor that and {of_step}.")


def arguments_of(
    name: str, undo: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, Any]:
    """The arguments with which an undo is called behind the result of its step, which was called with these. Raises `TypeError`
    if it can't be called with them."""
    if not takes_arguments(undo):
        return (), {}
    signature = _signature(undo)
    if signature is not None:
        try:
            signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"undo of step {name!r} can't take the arguments of the step: {error}.") from None
    return tuple(args), dict(kwargs)


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _takes_positional(signature: inspect.Signature) -> bool:
    first = next(iter(signature.parameters.values()), None)
    return first is not None and (first.kind in _POSITIONAL or first.kind is inspect.Parameter.VAR_POSITIONAL)


def _binds(signature: inspect.Signature, parameters: Sequence[inspect.Parameter], by_name: bool) -> bool:
    positional = [one for one in parameters if one.kind in _POSITIONAL and not by_name]
    named = [
        one.name for one in parameters if one not in positional and one.kind is not inspect.Parameter.POSITIONAL_ONLY
    ]
    try:
        signature.bind(None, *positional, **dict.fromkeys(named))
    except TypeError:
        return False
    return True
