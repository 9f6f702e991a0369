"""Durable workflows for Django: plain functions whose steps are recorded in your own database."""

from .context import current_step
from .definitions import Workflow, get_workflow, workflow
from .errors import (
    DuplicateStepName,
    FailureWasHandled,
    HistoryMismatch,
    InvalidInput,
    InvalidName,
    InvalidState,
    NestedStep,
    NonRetryableError,
    RecordedInstanceGone,
    ResultUnavailable,
    RetryAfter,
    RunCanceled,
    RunFailed,
    StartOutsideStep,
    StepFailed,
    StepInTransaction,
    StepNotRun,
    StepsError,
    UnknownStep,
    UnknownWorkflow,
    UnserializableResult,
    UnserializableValue,
    ValueTooLarge,
    WorkerDied,
    WrongThread,
)
from .retries import RetryPolicy
from .step import Step

__version__ = "0.1.0"

__all__ = [
    "DuplicateStepName",
    "FailureWasHandled",
    "HistoryMismatch",
    "InvalidInput",
    "InvalidName",
    "InvalidState",
    "NestedStep",
    "NonRetryableError",
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
    "StepNotRun",
    "StepsError",
    "UnknownStep",
    "UnknownWorkflow",
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
