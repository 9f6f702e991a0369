"""Durable workflows for Django: plain functions whose steps are recorded in your own database.

The public names are here. Not here: anything else; what lives in which package is in `docs/internals/architecture.md`.
"""

from .core.context import current_step
from .core.retries import RetryPolicy
from .core.unfinished import UNFINISHED
from .definitions import Workflow, get_workflow
from .definitions.decorator import workflow
from .definitions.step import Step
from .errors import (
    DuplicateStepName,
    EndlessBody,
    FailureWasHandled,
    GroupFailed,
    HistoryMismatch,
    InvalidInput,
    InvalidName,
    InvalidState,
    NestedStep,
    NonRetryableError,
    OwnRunChanged,
    PollTimedOut,
    RecordedInstanceGone,
    ResultUnavailable,
    RetryAfter,
    RunCanceled,
    RunFailed,
    StartOutsideStep,
    StepFailed,
    StepInterrupted,
    StepInTransaction,
    StepNotRun,
    StepsError,
    TimedOut,
    UnknownStep,
    UnknownWorkflow,
    UnreadableValue,
    UnserializableResult,
    UnserializableValue,
    ValueTooLarge,
    WorkerDied,
    WrongThread,
)

__version__ = "0.1.0"

__all__ = [
    "UNFINISHED",
    "DuplicateStepName",
    "EndlessBody",
    "FailureWasHandled",
    "GroupFailed",
    "HistoryMismatch",
    "InvalidInput",
    "InvalidName",
    "InvalidState",
    "NestedStep",
    "NonRetryableError",
    "OwnRunChanged",
    "PollTimedOut",
    "RecordedInstanceGone",
    "ResultUnavailable",
    "RetryAfter",
    "RetryPolicy",
    "RunCanceled",
    "RunFailed",
    "StartOutsideStep",
    "Step",
    "StepFailed",
    "StepInTransaction",
    "StepInterrupted",
    "StepNotRun",
    "StepsError",
    "TimedOut",
    "UnknownStep",
    "UnknownWorkflow",
    "UnreadableValue",
    "UnserializableResult",
    "UnserializableValue",
    "ValueTooLarge",
    "WorkerDied",
    "Workflow",
    "WrongThread",
    "current_step",
    "get_workflow",
    "workflow",
]
