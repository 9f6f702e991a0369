"""What users write and type: `@workflow`, the registry, inputs, starting runs, and the `step` of a body.

Importable before Django's apps are ready: the models are imported when a run is started. Not here: what a step call does
(`engine`).
"""

from .decorator import workflow
from .registry import get_workflow, register, registered, registered_kinds
from .workflow import INJECTED, PRIORITIES, StartOptions, StartOptionsWithKey, Workflow, check_priority

__all__ = [
    "INJECTED",
    "PRIORITIES",
    "StartOptions",
    "StartOptionsWithKey",
    "Workflow",
    "check_priority",
    "get_workflow",
    "register",
    "registered",
    "registered_kinds",
    "workflow",
]
