"""The limits of workflows and queues: their names in a run's row, and the numbers that workers write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import values
from ..conf import conf
from ..core.limit import Limit, Stage, definition_name, limit_name
from ..errors import InvalidInput
from ..ledger.limits import Numbers
from .keys import item_segment, key_of
from .registry import get_workflow, registered_kinds

if TYPE_CHECKING:
    from .workflow import Workflow

_STAGES = (Stage.FIRST, Stage.SECOND)


def limits_of(workflow: Workflow[Any, Any], input: Any, queue: str) -> tuple[str | None, str | None, str | None]:
    """The limits of a run as its row has them: those of its workflow, and its queue's. Raises `InvalidInput` where a key
    function fails."""
    own = [
        limit.rule + limit_name(stage, workflow.name, _key(limit, workflow, input))
        for stage, limit in _staged(workflow)
    ]
    first, second = [*own, None, None][:2]
    return first, second, queue_limit(queue)


def limits_of_recorded(
    workflow: Workflow[Any, Any], input: str, queue: str
) -> tuple[str | None, str | None, str | None]:
    """The limits of a run whose input is encoded already. Raises `InvalidInput` where a key function fails, or the input is not
    what the workflow takes any more."""
    if not any(limit.key for limit in workflow.limits):
        return limits_of(workflow, None, queue)
    try:
        value = values.decode(input)
        value = workflow.to_input(value) if "input" in workflow.parameters else value
    except Exception as error:  # the row is damaged, or its classes are gone
        raise _no_key(workflow, error) from error
    return limits_of(workflow, value, queue)


def queue_limit(queue: str) -> str | None:
    """The limit of a queue as the row of a run has it."""
    found = conf.queues.get(queue)
    if found is None:
        return None
    rule = ("r" if found.at_once is None else "e") + ("-" if found.interval_us is None else "t")
    return rule + limit_name(Stage.QUEUE, queue, "")


def _staged(workflow: Workflow[Any, Any]) -> list[tuple[str, Limit]]:
    return list(zip(_STAGES, workflow.limits, strict=False))


def _key(limit: Limit, workflow: Workflow[Any, Any], input: Any) -> str:
    if limit.key is None:
        return ""
    try:
        value = limit.key(input)
        key = key_of(value)
    except Exception as error:  # it is a user's
        raise _no_key(workflow, error) from error
    if key is None:
        raise InvalidInput(
            f"The key function of a limit of workflow {workflow.name!r} gave {value!r}; it takes text that is not empty, a"
            " whole number, an Enum member, a UUID, a Decimal, a date or a saved instance of a model."
        )
    return item_segment(key)


def _no_key(workflow: Workflow[Any, Any], error: Exception) -> InvalidInput:
    return InvalidInput(f"The key of a limit of workflow {workflow.name!r} could not be made: {error!r}")


def known_limits() -> tuple[dict[str, Numbers], list[str]]:
    """The numbers of the limits that this process knows, by their names; and the names of those that its workflows might have
    and don't have."""
    known = {definition_name(Stage.QUEUE, name): Numbers(*queue) for name, queue in conf.queues.items()}
    possible = []
    for kind in sorted(registered_kinds()):
        workflow = get_workflow(*kind)
        possible += [definition_name(stage, workflow.name) for stage in _STAGES]
        for stage, limit in _staged(workflow):
            numbers = Numbers(limit.at_once, limit.interval_us, limit.burst)
            known[definition_name(stage, workflow.name)] = numbers
    return known, [name for name in possible if name not in known]
