"""The kinds of functions that can be bodies, for type checkers: one for each choice of input, step, logger and run.

Parameters go by name, so their order is free, and a checker reads off the types of the input and of the result. A union of
these would not be solved for them, hence one overload each. Nothing of this is used at runtime.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar, Unpack, overload

from ..models import WorkflowRun
from .async_step import AsyncStep
from .logger import WorkflowLogger
from .options import WorkflowOptions
from .step import Step
from .workflow import AsyncWorkflow, Workflow

I = TypeVar("I", contravariant=True)  # noqa: E741
R = TypeVar("R", covariant=True)


class TakesInputStepLoggerRun(Protocol[I, R]):
    def __call__(self, *, input: I, step: Step, logger: WorkflowLogger, run: WorkflowRun[Any]) -> R: ...


class TakesInputStepLogger(Protocol[I, R]):
    def __call__(self, *, input: I, step: Step, logger: WorkflowLogger) -> R: ...


class TakesInputStepRun(Protocol[I, R]):
    def __call__(self, *, input: I, step: Step, run: WorkflowRun[Any]) -> R: ...


class TakesInputLoggerRun(Protocol[I, R]):
    def __call__(self, *, input: I, logger: WorkflowLogger, run: WorkflowRun[Any]) -> R: ...


class TakesStepLoggerRun(Protocol[R]):
    def __call__(self, *, step: Step, logger: WorkflowLogger, run: WorkflowRun[Any]) -> R: ...


class TakesInputStep(Protocol[I, R]):
    def __call__(self, *, input: I, step: Step) -> R: ...


class TakesInputLogger(Protocol[I, R]):
    def __call__(self, *, input: I, logger: WorkflowLogger) -> R: ...


class TakesInputRun(Protocol[I, R]):
    def __call__(self, *, input: I, run: WorkflowRun[Any]) -> R: ...


class TakesStepLogger(Protocol[R]):
    def __call__(self, *, step: Step, logger: WorkflowLogger) -> R: ...


class TakesStepRun(Protocol[R]):
    def __call__(self, *, step: Step, run: WorkflowRun[Any]) -> R: ...


class TakesLoggerRun(Protocol[R]):
    def __call__(self, *, logger: WorkflowLogger, run: WorkflowRun[Any]) -> R: ...


class TakesInput(Protocol[I, R]):
    def __call__(self, *, input: I) -> R: ...


class TakesStep(Protocol[R]):
    def __call__(self, *, step: Step) -> R: ...


class TakesLogger(Protocol[R]):
    def __call__(self, *, logger: WorkflowLogger) -> R: ...


class TakesRun(Protocol[R]):
    def __call__(self, *, run: WorkflowRun[Any]) -> R: ...


class TakesNothing(Protocol[R]):
    def __call__(self) -> R: ...


class AsyncTakesInputStepLoggerRun(Protocol[I, R]):
    def __call__(
        self, *, input: I, step: AsyncStep, logger: WorkflowLogger, run: WorkflowRun[Any]
    ) -> Coroutine[Any, Any, R]: ...


class AsyncTakesInputStepLogger(Protocol[I, R]):
    def __call__(self, *, input: I, step: AsyncStep, logger: WorkflowLogger) -> Coroutine[Any, Any, R]: ...


class AsyncTakesInputStepRun(Protocol[I, R]):
    def __call__(self, *, input: I, step: AsyncStep, run: WorkflowRun[Any]) -> Coroutine[Any, Any, R]: ...


class AsyncTakesInputLoggerRun(Protocol[I, R]):
    def __call__(self, *, input: I, logger: WorkflowLogger, run: WorkflowRun[Any]) -> Coroutine[Any, Any, R]: ...


class AsyncTakesStepLoggerRun(Protocol[R]):
    def __call__(self, *, step: AsyncStep, logger: WorkflowLogger, run: WorkflowRun[Any]) -> Coroutine[Any, Any, R]: ...


class AsyncTakesInputStep(Protocol[I, R]):
    def __call__(self, *, input: I, step: AsyncStep) -> Coroutine[Any, Any, R]: ...


class AsyncTakesInputLogger(Protocol[I, R]):
    def __call__(self, *, input: I, logger: WorkflowLogger) -> Coroutine[Any, Any, R]: ...


class AsyncTakesInputRun(Protocol[I, R]):
    def __call__(self, *, input: I, run: WorkflowRun[Any]) -> Coroutine[Any, Any, R]: ...


class AsyncTakesStepLogger(Protocol[R]):
    def __call__(self, *, step: AsyncStep, logger: WorkflowLogger) -> Coroutine[Any, Any, R]: ...


class AsyncTakesStepRun(Protocol[R]):
    def __call__(self, *, step: AsyncStep, run: WorkflowRun[Any]) -> Coroutine[Any, Any, R]: ...


class AsyncTakesLoggerRun(Protocol[R]):
    def __call__(self, *, logger: WorkflowLogger, run: WorkflowRun[Any]) -> Coroutine[Any, Any, R]: ...


class AsyncTakesInput(Protocol[I, R]):
    def __call__(self, *, input: I) -> Coroutine[Any, Any, R]: ...


class AsyncTakesStep(Protocol[R]):
    def __call__(self, *, step: AsyncStep) -> Coroutine[Any, Any, R]: ...


class AsyncTakesLogger(Protocol[R]):
    def __call__(self, *, logger: WorkflowLogger) -> Coroutine[Any, Any, R]: ...


class AsyncTakesRun(Protocol[R]):
    def __call__(self, *, run: WorkflowRun[Any]) -> Coroutine[Any, Any, R]: ...


class AsyncTakesNothing(Protocol[R]):
    def __call__(self) -> Coroutine[Any, Any, R]: ...


class Decorator(Protocol):
    """`@workflow`: takes a body, or options and then a body.

    Async bodies come first: what they return fits the plain ones too.
    """

    @overload
    def __call__(self, function: AsyncTakesInputStepLoggerRun[I, R], /) -> AsyncWorkflow[I, R]: ...
    @overload
    def __call__(self, function: AsyncTakesInputStepLogger[I, R], /) -> AsyncWorkflow[I, R]: ...
    @overload
    def __call__(self, function: AsyncTakesInputStepRun[I, R], /) -> AsyncWorkflow[I, R]: ...
    @overload
    def __call__(self, function: AsyncTakesInputLoggerRun[I, R], /) -> AsyncWorkflow[I, R]: ...
    @overload
    def __call__(self, function: AsyncTakesStepLoggerRun[R], /) -> AsyncWorkflow[Any, R]: ...
    @overload
    def __call__(self, function: AsyncTakesInputStep[I, R], /) -> AsyncWorkflow[I, R]: ...
    @overload
    def __call__(self, function: AsyncTakesInputLogger[I, R], /) -> AsyncWorkflow[I, R]: ...
    @overload
    def __call__(self, function: AsyncTakesInputRun[I, R], /) -> AsyncWorkflow[I, R]: ...
    @overload
    def __call__(self, function: AsyncTakesStepLogger[R], /) -> AsyncWorkflow[None, R]: ...
    @overload
    def __call__(self, function: AsyncTakesStepRun[R], /) -> AsyncWorkflow[Any, R]: ...
    @overload
    def __call__(self, function: AsyncTakesLoggerRun[R], /) -> AsyncWorkflow[Any, R]: ...
    @overload
    def __call__(self, function: AsyncTakesInput[I, R], /) -> AsyncWorkflow[I, R]: ...
    @overload
    def __call__(self, function: AsyncTakesStep[R], /) -> AsyncWorkflow[None, R]: ...
    @overload
    def __call__(self, function: AsyncTakesLogger[R], /) -> AsyncWorkflow[None, R]: ...
    @overload
    def __call__(self, function: AsyncTakesRun[R], /) -> AsyncWorkflow[Any, R]: ...
    @overload
    def __call__(self, function: AsyncTakesNothing[R], /) -> AsyncWorkflow[None, R]: ...
    @overload
    def __call__(self, function: TakesInputStepLoggerRun[I, R], /) -> Workflow[I, R]: ...
    @overload
    def __call__(self, function: TakesInputStepLogger[I, R], /) -> Workflow[I, R]: ...
    @overload
    def __call__(self, function: TakesInputStepRun[I, R], /) -> Workflow[I, R]: ...
    @overload
    def __call__(self, function: TakesInputLoggerRun[I, R], /) -> Workflow[I, R]: ...
    @overload
    def __call__(self, function: TakesStepLoggerRun[R], /) -> Workflow[Any, R]: ...
    @overload
    def __call__(self, function: TakesInputStep[I, R], /) -> Workflow[I, R]: ...
    @overload
    def __call__(self, function: TakesInputLogger[I, R], /) -> Workflow[I, R]: ...
    @overload
    def __call__(self, function: TakesInputRun[I, R], /) -> Workflow[I, R]: ...
    @overload
    def __call__(self, function: TakesStepLogger[R], /) -> Workflow[None, R]: ...
    @overload
    def __call__(self, function: TakesStepRun[R], /) -> Workflow[Any, R]: ...
    @overload
    def __call__(self, function: TakesLoggerRun[R], /) -> Workflow[Any, R]: ...
    @overload
    def __call__(self, function: TakesInput[I, R], /) -> Workflow[I, R]: ...
    @overload
    def __call__(self, function: TakesStep[R], /) -> Workflow[None, R]: ...
    @overload
    def __call__(self, function: TakesLogger[R], /) -> Workflow[None, R]: ...
    @overload
    def __call__(self, function: TakesRun[R], /) -> Workflow[Any, R]: ...
    @overload
    def __call__(self, function: TakesNothing[R], /) -> Workflow[None, R]: ...
    @overload
    def __call__(self, **options: Unpack[WorkflowOptions]) -> Decorator: ...
