"""Durable workflows for Django: plain functions whose steps are recorded in your own database.

The public names are here. Not here: anything else; what lives in which package is in `docs/internals/architecture.md`.
"""

from .core.context import current_step
from .core.event import Event
from .core.limit import Limit
from .core.retries import RetryPolicy
from .core.unfinished import UNFINISHED
from .definitions import AsyncWorkflow, Workflow, get_workflow
from .definitions.async_step import AsyncStep
from .definitions.decorator import workflow
from .definitions.schedule import Schedule
from .definitions.step import Step
from .errors import (
    ChildTimedOut,
    DuplicateStepName,
    EndlessBody,
    EventTimedOut,
    FailureWasHandled,
    GroupFailed,
    HistoryMismatch,
    InvalidEvent,
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
    RunFinished,
    RunTimedOut,
    StartOutsideStep,
    StepCanceled,
    StepFailed,
    StepInterrupted,
    StepInTransaction,
    StepNotRun,
    StepsError,
    StepTimedOut,
    TimedOut,
    UndoFailed,
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
    "AsyncStep",
    "AsyncWorkflow",
    "ChildTimedOut",
    "DuplicateStepName",
    "EndlessBody",
    "Event",
    "EventTimedOut",
    "FailureWasHandled",
    "GroupFailed",
    "HistoryMismatch",
    "InvalidEvent",
    "InvalidInput",
    "InvalidName",
    "InvalidState",
    "Limit",
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
    "RunFinished",
    "RunTimedOut",
    "Schedule",
    "StartOutsideStep",
    "Step",
    "StepCanceled",
    "StepFailed",
    "StepInTransaction",
    "StepInterrupted",
    "StepNotRun",
    "StepTimedOut",
    "StepsError",
    "TimedOut",
    "UndoFailed",
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
