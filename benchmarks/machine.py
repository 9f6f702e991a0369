"""What a result is worth little without: the machine, the systems and their versions, the date."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import django

from .install import Installed
from .mariadb import MariaDB
from .postgres import Cluster


def describe(installed: Installed, cluster: Cluster | None, mariadb: MariaDB | None = None) -> list[str]:
    """Lines that say where, when and with what."""
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {_commit()}",
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {_memory()}, {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}, Django {django.get_version()}, SQLite {sqlite3.sqlite_version}"
        + (f", PostgreSQL {cluster.version()} (fsync and synchronous_commit on)" if cluster else "")
        + (f", {mariadb.version()}" if mariadb else ""),
        ", ".join(f"{package} {version}" for package, version in sorted(installed.versions.items())),
    ]


def _commit() -> str:
    with suppress(OSError):
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        return f"commit {git.stdout.strip()}" if git.returncode == 0 else "outside a repository"
    return "outside a repository"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
