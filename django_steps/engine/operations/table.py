"""Which operation carries out which request."""

from __future__ import annotations

from typing import Any

from ...definitions.requests import RunStep, Sleep
from .base import Operation
from .sleep import SleepOperation
from .step import StepOperation

OPERATIONS: dict[type, Operation[Any]] = {
    RunStep: StepOperation(),
    Sleep: SleepOperation(),
}
