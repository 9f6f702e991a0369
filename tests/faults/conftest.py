"""What the fault tests share: worker processes, the evidence they leave, a seed that can be given, and figures to report.

`FAULTS_SEED` repeats the random choices of an earlier run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from . import bouncers, brokers, evidence
from .expectations import Started
from .fleets import Fleet
from .processes import Workers

FIGURES = Path(settings.BASE_DIR) / "build" / "faults"
_SEED = pytest.StashKey[int]()

HAS_COMPILER = shutil.which("cc") is not None

# What needs a server that can be reached, restarted or cut off is no question to SQLite, and the other way round.
collect_ignore = {
    "sqlite": ["test_network.py", "test_clocks.py", "test_restarts.py", "test_bouncer.py"],
    "postgresql": ["test_sqlite_full.py", "test_sqlite_locked.py"],
    "mysql": ["test_sqlite_full.py", "test_sqlite_locked.py", "test_restarts.py", "test_bouncer.py"],
}[settings.DATABASE]
if not HAS_COMPILER:
    collect_ignore.append("test_clocks.py")
if not bouncers.PROGRAM:
    collect_ignore.append("test_bouncer.py")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SEED] = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(1_000_000))


def pytest_report_header(config: pytest.Config) -> str:
    clocks = "" if HAS_COMPILER else "; no C compiler here, so that clocks that are apart are not tested"
    is_missed = settings.DATABASE == "postgresql" and not bouncers.PROGRAM
    bouncer = "; no PgBouncer here, so that workers behind it are not tested" if is_missed else ""
    return f"faults: FAULTS_SEED={config.stash[_SEED]}{clocks}{bouncer}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this session; a failing test shows it."""
    value = request.config.stash[_SEED]
    print(f"FAULTS_SEED={value}")
    return value


@pytest.fixture
def chance(seed: int) -> random.Random:
    """Random choices that the seed decides."""
    return random.Random(seed)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the evidence goes. Not `tmp_path`, which other test runs may clear away during a long one."""
    with tempfile.TemporaryDirectory(prefix="django-steps-faults-") as path:
        yield Path(path)


@pytest.fixture
def workers(transactional_db: None, directory: Path) -> Iterator[Workers]:
    """Worker processes on the test database."""
    started = Workers(directory)
    yield started
    started.end()
    print(started.log()[-5000:])


@pytest.fixture
def started(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> Started:
    """Runs whose evidence the workers leave, or this process."""
    for name, value in evidence.environment(workers.evidence).items():
        monkeypatch.setenv(name, value)
    return Started(workers.evidence)


@pytest.fixture
def report(seed: int) -> Callable[..., None]:
    """Keep figures of a long test for `report.py`: `report("campaign", kills=100, runs=200)`."""

    def keep(test: str, **figures: Any) -> None:
        print(f"{test}: {figures}")
        FIGURES.mkdir(parents=True, exist_ok=True)
        figures = {"version": version(), "seed": seed, **figures}
        (FIGURES / f"{test}-{settings.DATABASE}.json").write_text(json.dumps(figures))

    return keep


def version() -> str:
    """The database and its version."""
    if connection.vendor == "sqlite":
        return f"SQLite {connection.Database.sqlite_version}"
    major, minor, *_ = connection.get_database_version()
    return f"{connection.display_name} {major}.{minor}"


@pytest.fixture
def fleet(workers: Workers, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Celery workers and dispatchers; on Redis, unless the test says otherwise."""
    broker = getattr(request, "param", "redis")
    with brokers.queue_on(broker) as environment:
        started = Fleet(workers, broker, environment)
        yield started
        workers.end()
        started.close()
