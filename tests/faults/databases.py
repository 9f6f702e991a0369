"""Databases made for one test: the default one of this process, and of the workers that it starts, for that time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from django.core.management import call_command
from django.db import connections


@contextlib.contextmanager
def default_database(**settings: Any) -> Iterator[None]:
    """Change the settings of the default database, and create the tables there."""
    connections["default"].close()
    current = connections.databases["default"]
    before = dict(current)
    current.update(settings)
    try:
        call_command("migrate", verbosity=0, interactive=False, run_syncdb=True)
        yield
    finally:
        connections["default"].close()
        current.update(before)
