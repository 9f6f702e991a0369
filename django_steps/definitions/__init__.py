"""What users write and type: workflows and the registry, their inputs and options, starts, and the `step` of a body.

From below: `checked` < `schedule`, `targets`, `inputs`, `logger`, `kinds` < `options` < `workflow` < `branches`, `calls` <
`making` < `step`, `async_step` < `registry`, `starting`, `scheduling`, `bodies` < `decorator`.

All of it can be imported before Django's apps are ready: the models are imported when a run is started.

Not here: what a step call does (`engine`), how a run becomes a row (`ledger.inserts`), and the decorator `workflow`
among the names below, since it would hide the module `workflow`: it is in `decorator`, for users in `django_steps`.
"""

from .checked import PRIORITIES, check_priority
from .options import StartOptions, StartOptionsWithKey, StepOptions, WorkflowOptions
from .registry import get_workflow, masked_keys, register, registered, registered_kinds
from .workflow import INJECTED, AsyncWorkflow, Workflow

__all__ = [
    "INJECTED",
    "PRIORITIES",
    "AsyncWorkflow",
    "StartOptions",
    "StartOptionsWithKey",
    "StepOptions",
    "Workflow",
    "WorkflowOptions",
    "check_priority",
    "get_workflow",
    "masked_keys",
    "register",
    "registered",
    "registered_kinds",
]
