"""Runs every check and the test suite on each database that can be reached: `python -m tests.run [pytest arguments]`.

SQLite is always there; PostgreSQL and MariaDB/MySQL are looked for where `testproject/settings.py` expects them, Redis where
`tests/faults/brokers.py` does. One that isn't reached is named at the end, and is a failure if REQUIRE_DATABASES=1 is set.
The exit code is 0 if all passed. The databases are tested side by side, since most of the time is waiting; JOBS=1 does one
after the other and shows the output at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
PRINTING = threading.Lock()
CHECKS = {
    "ruff check": ["-m", "ruff", "check", "--quiet", "."],
    "ruff format": ["-m", "ruff", "format", "--quiet", "--check", "."],
    "system checks": ["manage.py", "check", "--fail-level", "WARNING"],
    "migrations": ["manage.py", "makemigrations", "--check", "--dry-run"],
}
# Each connects to the server, not to a database of ours: those are made by the test run.
PROBES = {
    "postgresql": """
import os, psycopg
psycopg.connect(
    host=os.environ.get("POSTGRES_HOST", "127.0.0.1"), port=os.environ.get("POSTGRES_PORT", "5432"),
    user=os.environ.get("POSTGRES_USER", "postgres"), password=os.environ.get("POSTGRES_PASSWORD", ""),
    dbname="postgres", connect_timeout=3,
).close()
""",
    "mysql": """
import os, MySQLdb
MySQLdb.connect(
    host=os.environ.get("MYSQL_HOST", "127.0.0.1"), port=int(os.environ.get("MYSQL_PORT", "3306")),
    user=os.environ.get("MYSQL_USER", "root"), password=os.environ.get("MYSQL_PASSWORD", ""), connect_timeout=3,
).close()
""",
}
# Without it the tests of Celery are left out.
BROKER_PROBE = """
import sys
from tests.faults import brokers
sys.exit(brokers.why_unreachable(brokers.BROKERS["redis"]))
"""


@dataclass
class Job:
    name: str
    command: list[str]  # for the Python interpreter
    environment: dict[str, str]


@dataclass
class Outcome:
    name: str
    passed: bool
    seconds: float


def main(pytest_arguments: list[str]) -> int:
    unreached = {database: problem for database in PROBES if (problem := probe(PROBES[database]))}
    databases = ["sqlite", *(database for database in PROBES if database not in unreached)]

    if problem := probe(BROKER_PROBE):
        unreached["redis"] = problem

    with tempfile.TemporaryDirectory(prefix="django-steps-") as directory:
        outcomes = [run(Job(name, command, environment("sqlite", directory))) for name, command in CHECKS.items()]
        command = ["-m", "pytest", "--create-db", *pytest_arguments]
        jobs = [Job(f"tests on {database}", command, environment(database, directory)) for database in databases]
        if len(jobs) == 1 or os.environ.get("JOBS") == "1":
            outcomes += [run(job) for job in jobs]
        else:
            outcomes += run_side_by_side(jobs)

    report(outcomes, unreached)
    if unreached and os.environ.get("REQUIRE_DATABASES") == "1":
        return 1
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def probe(script: str) -> str:
    """Why a server can't be reached, in one line; empty if it can."""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if "Error: " in line]
    return errors[-1].strip() if errors else done.stderr.strip()


def environment(database: str, directory: str) -> dict[str, str]:
    """Each run has databases of its own, so that two can run beside each other."""
    name = f"{directory}/shop.sqlite3" if database == "sqlite" else f"steps_{os.getpid()}"
    outer = dict(os.environ)
    # Hundreds of processes are started, and each would compile every module anew: a second of CPU.
    outer.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**outer, "DATABASE": database, "DATABASE_NAME": name, "PYTHONUNBUFFERED": "1"}


def run(job: Job) -> Outcome:
    print(f"\n== {job.name} ==", flush=True)
    return execute(job, output=None)


def run_side_by_side(jobs: list[Job]) -> list[Outcome]:
    """Shows the output of each when it has ended, so that the lines of two never mix."""
    print(f"\n== {', '.join(job.name for job in jobs)}: side by side, the output of each follows when it ends ==")
    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run_quietly, jobs))


def run_quietly(job: Job) -> Outcome:
    with tempfile.TemporaryFile("w+") as output:
        outcome = execute(job, output)
        output.seek(0)
        with PRINTING:
            print(f"\n== {job.name} ==\n{output.read()}", end="", flush=True)
    return outcome


def execute(job: Job, output: IO[str] | None) -> Outcome:
    started = time.monotonic()
    command = [sys.executable, *job.command]
    done = subprocess.run(
        command, cwd=ROOT, env=job.environment, stdout=output, stderr=output and subprocess.STDOUT, check=False
    )
    return Outcome(job.name, done.returncode == 0, time.monotonic() - started)


def report(outcomes: list[Outcome], unreached: dict[str, str]) -> None:
    print()
    for outcome in outcomes:
        print(f"{outcome.name:<22} {'passed' if outcome.passed else 'FAILED':<8} {outcome.seconds:6.1f} s")
    if unreached:
        print("Not reached: " + "; ".join(f"{database} ({problem})" for database, problem in unreached.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
