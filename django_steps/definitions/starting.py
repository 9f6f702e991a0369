"""Starting runs: validate, encode, insert, and wake the workers after the commit.

Nothing is written before everything is known to be right.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from django.db import DatabaseError, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import values
from ..core import clock
from ..core.context import refuse_control_outside_step, refuse_outside_step
from ..core.event import Event
from ..core.names import check_name
from ..core.tags import NONE, Tags, as_text, merged
from ..errors import InvalidInput
from ..ledger import database, inserts, notify
from ..ledger.events import To
from ..ledger.inserts import Child, NewRun
from ..models import WorkflowRun, sending
from .checked import check_key
from .limits import limits_of
from .options import PLAIN_RUN, RunOptions
from .workflow import Workflow

logger = logging.getLogger("django_steps")

# A key's run may be pruned between the INSERT that it refused and the SELECT that looks for it.
_KEY_ATTEMPTS = 5


def start(workflow: Workflow[Any, Any], input: Any, options: RunOptions) -> WorkflowRun:
    """See `Workflow.start`."""
    refuse_outside_step("start")
    new = new_run(workflow, input, options)
    connection = database.connection_for(router.db_for_write(WorkflowRun))
    if options.event is None:
        return _started(connection, new)
    event = sending.prepared(options.event)
    with transaction.atomic(using=connection.alias):
        run = _started(connection, new)
        sending.send(connection, To(run_id=run.pk), options.event, event)
    return run


def send_event(workflow: Workflow[Any, Any], key: str, event: Event[Any]) -> Event[Any]:
    """See `Workflow.send_event`."""
    refuse_control_outside_step("send_event")
    to = To(workflow=workflow.name, key=check_name(key, "key"))
    return sending.send(database.connection_for(router.db_for_write(WorkflowRun)), to, event)


def _started(connection: BaseDatabaseWrapper, new: NewRun) -> WorkflowRun:
    """The new run, or the one that has its key, or is active under its active key."""
    for _ in range(_KEY_ATTEMPTS):
        if inserts.insert(connection, new):
            notify.workers(connection)
            return _instance(new, connection.alias)
        first = (_first_with_key(new, connection) if new.key is not None else None) or _active(new, connection)
        if first is not None:
            return first
    key = new.active_key if new.key is None else new.key
    raise DatabaseError(
        f"Workflow {new.workflow!r} could not be started with key {key!r}: {_KEY_ATTEMPTS} times another run had the"
        " key and was gone before it could be read."
    )


def _active(new: NewRun, connection: BaseDatabaseWrapper) -> WorkflowRun | None:
    """The run that is active under its active key; None if there is none by now. Its input may be another one: what is asked
    for is that one run is at work."""
    if new.active_key is None:
        return None
    run = inserts.find_active(connection, WorkflowRun, new.workflow, new.active_key)
    if run is not None:
        inserts.refuse_canceling(run.pk, run.status, new.active_key)
        run.created = False
    return run


def start_many(
    workflow: Workflow[Any, Any],
    inputs: Iterable[Any],
    options: RunOptions,
    key: Callable[[Any], str] | None = None,
) -> list[WorkflowRun]:
    """See `Workflow.start_many`."""
    refuse_outside_step("start_many")
    _refuse_one_input(workflow, inputs)
    if key is not None and not callable(key):
        raise TypeError(f"key= of start_many() takes a function that makes the key of an input, got {key!r}.")
    runs = []
    for number, input in enumerate(inputs):
        try:
            run = new_run(workflow, input, options)
        except InvalidInput as error:
            raise InvalidInput(f"Input {number}: {error}", error.errors) from None
        run.key = None if key is None else check_key(key(input), f"key of input {number}")
        runs.append(run)
    if not runs:
        return []
    connection = database.connection_for(router.db_for_write(WorkflowRun))
    if key is not None:
        return _started_with_keys(connection, runs)
    inserts.insert_many(connection, runs)
    notify.workers(connection)
    return [_instance(new, connection.alias) for new in runs]


def _started_with_keys(connection: BaseDatabaseWrapper, runs: Sequence[NewRun]) -> list[WorkflowRun]:
    """The new runs, and those that have the keys of the others."""
    first: dict[str, NewRun] = {}
    for new in runs:
        first.setdefault(str(new.key), new)
    with transaction.atomic(using=connection.alias):
        inserts.insert_many(connection, list(first.values()), where_new=True)
    notify.workers(connection)
    ids = inserts.ids_by_key(connection, runs[0].workflow, list(first))
    return [
        _instance(new, connection.alias) if ids.get(str(new.key)) == new.id else _found(new, connection) for new in runs
    ]


def _found(new: NewRun, connection: BaseDatabaseWrapper) -> WorkflowRun:
    return _first_with_key(new, connection) or _started(connection, new)


def _refuse_one_input(workflow: Workflow[Any, Any], inputs: Iterable[Any]) -> None:
    """An input that can be iterated would start a run for each of its keys, characters or fields."""
    type_ = workflow.input_type.type
    if isinstance(inputs, (Mapping, str, bytes, bytearray)) or (type_ is not None and isinstance(inputs, type_)):
        raise TypeError(
            f"start_many() takes an iterable of inputs, got one {type(inputs).__name__}. "
            "Use start() for one run, or put the input into a list."
        )


def new_run(
    workflow: Workflow[Any, Any],
    input: Any,
    options: RunOptions = PLAIN_RUN,
    child: Child | None = None,
    inherited: Tags = NONE,
) -> NewRun:
    """A run to be inserted; `inherited`: the tags of its parent. Raises `InvalidInput` or `ValueTooLarge` for its input, and
    `ValueError` for too many tags."""
    tags = merged(inherited, workflow.tags, options.tags)
    input, text, search = workflow.encoded_input(input)
    queue = workflow.queue if options.queue is None else options.queue
    limit_1, limit_2, limit_queue = limits_of(workflow, input, queue)
    return NewRun(
        workflow=workflow.name,
        version=workflow.version,
        queue=queue,
        priority=workflow.priority if options.priority is None else options.priority,
        input=text,
        input_search=None if search is None else json.dumps(search),
        key=options.key,
        active_key=options.active_key,
        created_at=clock.host_time(),
        delay=options.delay_us,
        due_at=options.due_at_us,
        child=child,
        timeout=workflow.timeout_us if options.timeout_us is None else options.timeout_us,
        start_within=workflow.start_within_us if options.start_within_us is None else options.start_within_us,
        limit_1=limit_1,
        limit_2=limit_2,
        limit_queue=limit_queue,
        tags=tags,
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
        "active_key": new.active_key,
        "own_active_key": new.active_key,
        "phase": new.phase,
        "limit_1": new.limit_1,
        "limit_2": new.limit_2,
        "limit_queue": new.limit_queue,
        "line_key": new.line,
        "input_text": new.input,
        "input_search": None if new.input_search is None else json.loads(new.input_search),
        "created_at": clock.to_datetime(new.created_at),
        "available_at_us": new.due_at or (new.created_at + new.delay if new.delay is not None else 0),
        "timeout_us": new.timeout,
        "start_within_us": new.start_within,
        "expires_at_us": _expires_at(new),
        "trace": new.trace,
        "tags_text": as_text(new.tags),
    }
    # By position, which takes a model half as long as by name.
    defaults = _defaults()
    return WorkflowRun.from_db(alias, list(defaults), list({**defaults, **known}.values()))


def _expires_at(new: NewRun) -> int | None:
    """When a run that was just inserted expires, by this host's clock."""
    if new.start_within is None:
        return None
    return max(new.created_at + (new.delay or 0), new.due_at or 0) + new.start_within


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
