"""Starting runs: validate, encode, insert, and wake the workers after the commit.

Nothing is written before everything is known to be right.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from django.db import DatabaseError, router

from .. import values
from ..conf import conf
from ..core import clock
from ..core.context import refuse_outside_step
from ..errors import InvalidInput, UnserializableValue
from ..ledger import database, inserts, notify
from ..ledger.inserts import NewRun
from ..models import WorkflowRun
from .options import RunOptions
from .workflow import Workflow

logger = logging.getLogger("django_steps")

# A key's run may be pruned between the INSERT that it refused and the SELECT that looks for it.
_KEY_ATTEMPTS = 5


def start(workflow: Workflow[Any, Any], input: Any, options: RunOptions) -> WorkflowRun:
    """See `Workflow.start`."""
    refuse_outside_step("start")
    new = _new_run(workflow, input, options)
    connection = database.connection_for(router.db_for_write(WorkflowRun))
    for _ in range(_KEY_ATTEMPTS):
        if inserts.insert(connection, new):
            notify.workers(connection)
            return _instance(new, connection.alias)
        first = _first_with_key(new, connection)
        if first is not None:
            return first
    raise DatabaseError(
        f"Workflow {workflow.name!r} could not be started with key {new.key!r}: {_KEY_ATTEMPTS} times another run had the"
        " key and was deleted before it could be read."
    )


def start_many(workflow: Workflow[Any, Any], inputs: Iterable[Any], options: RunOptions) -> list[WorkflowRun]:
    """See `Workflow.start_many`."""
    refuse_outside_step("start_many")
    _refuse_one_input(workflow, inputs)
    runs = []
    for number, input in enumerate(inputs):
        try:
            runs.append(_new_run(workflow, input, options))
        except InvalidInput as error:
            raise InvalidInput(f"Input {number}: {error}", error.errors) from None
    if not runs:
        return []
    connection = database.connection_for(router.db_for_write(WorkflowRun))
    inserts.insert_many(connection, runs)
    notify.workers(connection)
    return [_instance(new, connection.alias) for new in runs]


def _refuse_one_input(workflow: Workflow[Any, Any], inputs: Iterable[Any]) -> None:
    """An input that can be iterated would start a run for each of its keys, characters or fields."""
    type_ = workflow.input_type.type
    if isinstance(inputs, (Mapping, str, bytes, bytearray)) or (type_ is not None and isinstance(inputs, type_)):
        raise TypeError(
            f"start_many() takes an iterable of inputs, got one {type(inputs).__name__}. "
            "Use start() for one run, or put the input into a list."
        )


def _new_run(workflow: Workflow[Any, Any], input: Any, options: RunOptions) -> NewRun:
    if "input" in workflow.parameters:
        input = workflow.to_input(input)
    try:
        text = values.encode(input, root="input", max_bytes=conf.max_value_bytes)
    except UnserializableValue as error:
        raise InvalidInput(str(error)) from None
    search = values.searchable(input, workflow.mask)
    return NewRun(
        workflow=workflow.name,
        version=workflow.version,
        queue=workflow.queue if options.queue is None else options.queue,
        priority=workflow.priority if options.priority is None else options.priority,
        input=text,
        input_search=None if search is None else json.dumps(search),
        key=options.key,
        created_at=clock.host_time(),
        delay=options.delay_us,
        due_at=options.due_at_us,
    )


def _instance(new: NewRun, alias: str) -> WorkflowRun:
    """The run as it was inserted, without reading it back."""
    known = {
        "id": new.id,
        "workflow": new.workflow,
        "version": new.version,
        "queue": new.queue,
        "priority": new.priority,
        "key": new.key,
        "phase": WorkflowRun.Phase.TIMED if new.waits else WorkflowRun.Phase.READY,
        "input_text": new.input,
        "input_search": None if new.input_search is None else json.loads(new.input_search),
        "created_at": clock.to_datetime(new.created_at),
        "available_at_us": new.due_at or (new.created_at + new.delay if new.delay is not None else 0),
    }
    # By position, which takes a model half as long as by name.
    defaults = _defaults()
    return WorkflowRun.from_db(alias, list(defaults), list({**defaults, **known}.values()))


@cache
def _defaults() -> dict[str, Any]:
    """The values of the columns that a start does not set, in the order of the fields."""
    fields = WorkflowRun._meta.concrete_fields
    return {field.attname: None if field.primary_key else field.get_default() for field in fields}


def _first_with_key(new: NewRun, connection: Any) -> WorkflowRun | None:
    """The run that has the key; None if it was deleted since."""
    assert new.key is not None
    run = inserts.find_by_key(connection, WorkflowRun, new.workflow, new.key)
    if run is None:
        return None
    run.created = False
    if not _is_same_input(run.input_text, new.input):
        logger.warning(
            "Workflow %r was started again with key %r and a different input; run %s keeps the first one.",
            new.workflow,
            new.key,
            run.pk,
        )
    return run


def _is_same_input(first: str, second: str) -> bool:
    """Whether two encoded inputs are equal, also if their keys are in another order."""
    if first == second:
        return True
    try:
        return bool(values.decode(first) == values.decode(second))
    except Exception:  # a row or a class that the first one refers to is gone
        return False
