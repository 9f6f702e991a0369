"""What users type in a body, checked and made into requests: the same for `Step` and `AsyncStep`.

Everything is checked where it is typed, before anything is awaited or executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from ..core import clock
from ..core.names import check_name
from ..durations import Duration, to_microseconds
from ..errors import DuplicateStepName
from .branches import check_branch, check_kind, refuse_workflow, wanted_by
from .calls import Bound
from .checked import check_count, check_datetime, check_flag
from .keys import item_segment, key_of
from .kinds import refuse_async_atomic
from .options import (
    CallOptions,
    MapOptions,
    MapRunsOptions,
    UndoableOptions,
    refuse_unknown,
    step_options,
)
from .polling import Polling, polling
from .requests import CallBranch, Gather, Invoke, Map, MapRuns, Names, Patch, RunStep, Sleep, Undo
from .undos import check_fits
from .workflow import Workflow

# How many items of functions are executed side by side, if nothing else is said.
CONCURRENCY = 10


def definition(name: str, function: Any, options: UndoableOptions) -> tuple[str, Any, CallOptions]:
    """What `define()` was given: the name of the step, its function if there is one yet, its options."""
    name = check_name(name, "step name", forbidden="#")
    refuse_workflow("define", name, function)
    if function is not None and not callable(function):
        raise TypeError(f"Step {name!r} takes a function, got {function!r}. Call it by .run(…), not in define().")
    checked = step_options(name, options)
    if checked.undo is not None and function is not None:
        check_fits(name, checked.undo, function)
    return name, function, checked


def undo(reason: Any) -> Undo:
    """What `undo()` asks for."""
    if not isinstance(reason, str):
        raise TypeError(f"undo() takes a text as its reason, got {reason!r}.")
    return Undo("undo()", reason)


def poll(name: str, check: Any, retry: Any, check_timeout: Any, **rules: Any) -> tuple[str, Any, CallOptions, Polling]:
    """What `poll()` was given: the name of the step, its function, its options, how it checks."""
    name = check_name(name, "step name", forbidden="#")
    if not callable(check):
        raise TypeError(f"Poll {name!r} takes a function, got {check!r}. Call it by .run(…), not in poll().")
    how = polling(name, **rules)
    return name, check, step_options(name, {"retry": retry, "timeout": check_timeout}), how


def sleep(names: Names, name: str, duration: Duration) -> Sleep:
    """What `sleep()` asks for."""
    name = check_name(name, "sleep name", forbidden="#")
    return Sleep(names.path(name), duration_us=to_microseconds(duration))


def sleep_until(names: Names, name: str, moment: datetime) -> Sleep:
    """What `sleep_until()` asks for."""
    name = check_name(name, "sleep name", forbidden="#")
    until_us = clock.to_microseconds(check_datetime(moment, "sleep_until()"))
    return Sleep(names.path(name), until_us=until_us)


def patch(names: Names, name: str) -> Patch:
    """What `patched()` asks for."""
    name = check_name(name, "name of a patch", forbidden="#")
    return Patch(names.path(name))


def branch(name: str, function: Any, *, in_async_body: bool) -> tuple[str, Any, tuple[str, ...]]:
    """What `branch()` was given: the name, the function, and what that wants."""
    name = check_name(name, "name of a branch", forbidden="#")
    return name, function, check_branch(name, function, in_async_body=in_async_body)


def gather(names: Names, calls: Sequence[Any], return_exceptions: Any) -> Gather:
    """What `gather()` asks for."""
    for call in calls:
        if not isinstance(call, Bound):
            raise TypeError(
                'step.gather() takes steps that are bound, as in step.define("user", fetch_user).bind(7), and of a list '
                f"step.gather(*calls); got {call!r}."
            )
        if call.performer is not names:
            raise TypeError(f"step.gather() takes steps that were defined by the same `step`, got {call!r}.")
    members = [call.request for call in calls]
    return Gather(members, check_flag(return_exceptions, "return_exceptions of gather()"))


def map_items(names: Names, name: str, function: Any, items: Any, options: Any, *, in_async_body: bool) -> Map:
    """What `map()` asks for."""
    name = check_name(name, "name of a map", forbidden="#")
    if isinstance(function, Workflow):
        return _map_runs(names, name, function, items, dict(options))
    if not callable(function):
        raise TypeError(f"Map {name!r} takes a function and then the items, got {function!r}.")
    refuse_unknown(options, MapOptions, f"Map {name!r}")
    return _map(names, name, function, _listed(name, items), dict(options), in_async_body=in_async_body)


def _listed(name: str, items: Any) -> list[Any]:
    if not isinstance(items, Iterable):
        raise TypeError(f"Map {name!r} takes its items as a list or another iterable, got {items!r:.80}.")
    return list(items)


def _map_runs(names: Names, name: str, workflow: Workflow[Any, Any], items: Any, options: Any) -> MapRuns:
    """What `map()` over a workflow asks for."""
    refuse_unknown(options, MapRunsOptions, f"Map {name!r}, which is over a workflow,")
    timeout = options.pop("timeout", None)
    timeout_us = None if timeout is None else to_microseconds(timeout)
    key = options.pop("key", None)
    items = _listed(name, items)
    request = MapRuns(names.path(name), {}, *_rules(name, options, concurrency=None))
    members = {}
    for item, text in zip(items, _keys(names, name, items, key), strict=True):
        members[text] = Invoke(names.path(f"{name}#{item_segment(text)}"), workflow, item, timeout_us)
    request.members = members
    return request


def _rules(name: str, options: Any, *, concurrency: int | None) -> tuple[int | None, int | None, int | None, bool]:
    """How many items of a map are carried out at a time, and when it stops; taken out of `options`."""
    rules = (
        check_count(options.pop("concurrency", concurrency), f"concurrency of map {name!r}", least=1),
        check_count(options.pop("max_failures", None), f"max_failures of map {name!r}", least=0),
        check_count(options.pop("min_successes", None), f"min_successes of map {name!r}", least=1),
        check_flag(options.pop("return_exceptions", False), f"return_exceptions of map {name!r}"),
    )
    if rules[3] and (rules[1] is not None or rules[2] is not None):
        raise TypeError(f"Map {name!r} takes return_exceptions, or max_failures and min_successes, not both.")
    return rules


def _map(
    names: Names, name: str, function: Callable[..., Any], items: Sequence[Any], options: Any, *, in_async_body: bool
) -> Map:
    path, wanted = names.path(name), wanted_by(function)
    key = options.pop("key", None)
    request = Map(path, {}, *_rules(name, options, concurrency=None if wanted else CONCURRENCY))
    if wanted and options:
        given = ", ".join(options)
        raise TypeError(f"Map {name!r} is over a branch, which takes no {given}: its steps have options of their own.")
    checked = step_options(name, options)
    if wanted:
        check_kind(name, function, in_async_body=in_async_body)
    elif in_async_body and checked.atomic:
        refuse_async_atomic(f"Map {name!r}", function)
        refuse_async_atomic(f"The undo of map {name!r}", checked.undo)
    if checked.undo is not None:
        check_fits(name, checked.undo, function)
    members: dict[str, RunStep | CallBranch] = {}
    for item, text in zip(items, _keys(names, name, items, key), strict=True):
        member = names.path(f"{name}#{item_segment(text)}")
        if wanted:
            members[text] = CallBranch(member, function, (item,), {}, wanted)
        else:
            members[text] = RunStep(member, function, (item,), {}, checked).checked()
    request.members = members
    return request


def _keys(names: Names, name: str, items: Sequence[Any], key: Callable[[Any], Any] | None) -> list[str]:
    """The key of each item; raises `TypeError` for what is none, `DuplicateStepName` for two that are equal."""
    positions: dict[str, int] = {}
    for position, item in enumerate(items):
        value = item if key is None else key(item)
        text = key_of(value)
        if text is None:
            what = (
                f"item {position} ({value!r:.80})"
                if key is None
                else f"key= made {value!r:.80} of item {position}, which"
            )
            raise TypeError(
                f"Map {name!r}: {what} is no key. Give key= a function that makes one, such as key=lambda item: "
                'item["id"]: text, a whole number, a UUID, a date, a Decimal, an Enum member or a saved model instance, the '
                "same on every pass. (An index would give an item the result of another one when the list changes.)"
            )
        if text in positions:
            names.refuse(
                DuplicateStepName(
                    f"{name}#{item_segment(text)}",
                    f"Map {name!r}: the items at the positions {positions[text]} and {position} have the same key {text!r}. "
                    "Give key= a function that tells them apart.",
                )
            )
        positions[text] = position
    return list(positions)
