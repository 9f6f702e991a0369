"""Limits as a worker writes them when it starts."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from django_steps.worker.registration import write_limits

from .limited import NARROW


@pytest.fixture
def limits_are_written(pass_time: Any) -> None:
    write_limits(connection)


@pytest.fixture
def narrow() -> Any:
    """The queue `narrow` takes one run at once."""
    with override_settings(DJANGO_STEPS=NARROW):
        write_limits(connection)
        yield
