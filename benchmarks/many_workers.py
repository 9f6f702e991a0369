"""`python -m benchmarks.many_workers`: what 1, 4, 16 and 64 workers do to one PostgreSQL, idle and under a steady load.

Up to 16 are real processes of `runworkflows`. 64 processes would measure the memory and the processors of this machine. So
from 16 on they are `Worker` objects, eight in a process, each with the loop, the heartbeat, the maintenance, the threads and
the connections that it has in a process of its own: every statement is the engine's, at the engine's own times. 16 workers are
measured in both ways, which shows whether the two agree.

Prints Markdown. Ends by itself; the server is on a free port of 127.0.0.1, and gone afterwards.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from . import install, machine, report
from .lab import Lab
from .peers import OURS, Setting
from .postgres import SUPERUSER, Cluster, NoPostgres
from .processes import PeerFailed, WorkerProcess
from .targets import number

LEVELS = (1, 4, 16, 64)
_MOST_REAL = 16
_IN_A_PROCESS = 8  # simulated workers
_MEMORY_OF_ONE = 90  # MiB of a process
_PER_WORKER = 6  # connections, for the moment of a maintenance round, too
_LOOK_EVERY = 0.05
_CLIENT_STARTS_IN = 4.0  # seconds; it has to import Django first
_LONGEST_START, _LONGEST_REST = 90.0, 10.0
_TICK = os.sysconf("SC_CLK_TCK")

_WAITS = """
    SELECT COALESCE(wait_event_type, ''), COALESCE(wait_event, ''), COUNT(*) FROM pg_stat_activity
    WHERE datname = %s GROUP BY 1, 2
"""
_NOT_GRANTED = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted"
_OF_DATABASE = "SELECT xact_commit + xact_rollback, deadlocks FROM pg_stat_database WHERE datname = %s"
_STATEMENTS = """
    SELECT s.query, s.calls FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
    JOIN pg_database d ON d.oid = s.dbid WHERE s.toplevel AND r.rolname = %s AND d.datname = %s
"""
_FLUSHES = "SELECT wal_sync FROM pg_stat_wal"  # until PostgreSQL 17
_LATENCY = """
    SELECT COUNT(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), percentile_cont(0.95) WITHIN GROUP (ORDER BY ms)
    FROM (SELECT 1000 * EXTRACT(EPOCH FROM finished_at - created_at) AS ms FROM django_steps_workflowrun
          WHERE status = 'succeeded') AS finished
"""
_ARE_HERE = "SELECT COUNT(*) FROM django_steps_worker"


@dataclass(frozen=True)
class Level:
    """So many workers, as processes or as objects in a few of them."""

    workers: int
    is_real: bool

    @property
    def how(self) -> str:
        return "processes" if self.is_real else "simulated"


@dataclass
class Figures:
    """What was seen of one level, idle or under load."""

    level: Level
    load: float
    values: dict[str, float]
    waits: Counter[str]
    statements: Counter[str]


# -- The story ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    found: list[Figures] = []
    notes: list[str] = []
    deadline = time.monotonic() + 60 * options.minutes
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(Cluster(connections=_PER_WORKER * max(options.levels) + 20))
        except NoPostgres as error:
            print(f"Nothing is measured: {error}")
            return 1
        installed = install.prepare(Path(tempfile.gettempdir()), [OURS], print)
        lab = Lab(stack.enter_context(_scratch()), cluster, installed.runtimes)
        about = machine.describe(installed, cluster)
        try:
            for level in _levels(options.levels, notes):
                if time.monotonic() > deadline:
                    notes.append(f"The time was over before {level.workers} workers ({level.how}).")
                    continue
                print(f"{level.workers} workers, {level.how}", file=sys.stderr, flush=True)
                try:
                    found += _measure(lab, level, options)
                except PeerFailed as error:
                    notes.append(f"{level.workers} workers ({level.how}): {error}")
        except KeyboardInterrupt:
            notes.append("Ended early.")
    print("\n".join(_markdown(found, about, notes)))
    return 0 if found else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_workers", description=__doc__)
    add = parser.add_argument
    add("--levels", type=_numbers, default=list(LEVELS), help="how many workers, by commas (default: 1,4,16,64)")
    add("--idle", type=float, default=15, help="seconds of idleness to look at (default: 15, a round of maintenance)")
    add("--rate", type=float, default=200, help="starts a second, in all (default: 200)")
    add("--load", type=float, default=10, help="seconds of load (default: 10)")
    add("--minutes", type=float, default=4, help="begin no further level after so many (default: 4)")
    return parser.parse_args(arguments)


def _levels(counts: Sequence[int], notes: list[str]) -> Iterator[Level]:
    available = _available_memory()
    real = [count for count in counts if count <= _MOST_REAL]
    for count in real:
        if available is not None and count * _MEMORY_OF_ONE > available:
            notes.append(f"{count} processes need more memory than the {available:,.0f} MiB that are free.")
        else:
            yield Level(count, is_real=True)
    for count in counts:
        if count > _MOST_REAL or count == max(real):
            yield Level(count, is_real=False)


def _measure(lab: Lab, level: Level, options: argparse.Namespace) -> list[Figures]:
    lab.reset(OURS)
    with ExitStack() as stack:
        workers = _start(stack, lab, level)
        look = stack.enter_context(_Look.of(lab, workers))
        look.wait_until_here(level.workers)
        time.sleep(2)
        idle = look.during(options.idle, level, load=0)
        begin_at = time.time() + _CLIENT_STARTS_IN
        client = stack.enter_context(ThreadPoolExecutor(1))
        starts: Future[dict[str, float]] = client.submit(
            lab.call,
            OURS,
            OURS.default,
            "start_steadily",
            rate=options.rate,
            seconds=options.load,
            begin_at=begin_at,
        )
        time.sleep(max(0.0, begin_at - time.time()))
        loaded = look.during(options.load, level, load=options.rate)
        done = starts.result()
        loaded.values |= {"reached": done["started"] / done["seconds"], **look.latency(done["started"])}
        return [idle, loaded]


def _start(stack: ExitStack, lab: Lab, level: Level) -> list[WorkerProcess]:
    if level.is_real:
        return stack.enter_context(lab.workers(OURS, Setting("default"), level.workers))
    left, processes = level.workers, []
    while left > 0:
        count = min(left, _IN_A_PROCESS)
        command = lab.driver(OURS, "workers", count=count)
        processes.append(stack.enter_context(lab.process(OURS, OURS.default, command, {})))
        left -= count
    return processes


# -- Looking ------------------------------------------------------------------------------------


class _Counts(NamedTuple):
    """What has been counted until a moment; processor time in seconds."""

    at: float
    transactions: float
    deadlocks: float
    flushes: float | None
    server: float
    workers: float
    machine: float


class _Look:
    """Looks at the server and at the processes of the workers: during a measurement from another database (`beside`), so that
    nothing of it is counted."""

    def __init__(self, connection: Any, beside: Any, cluster: Cluster, workers: Sequence[WorkerProcess]) -> None:
        self._connection, self._beside, self._cluster, self._workers = connection, beside, cluster, workers
        self._own = {int(its.execute("SELECT pg_backend_pid()").fetchone()[0]) for its in (connection, beside)}

    @staticmethod
    @contextmanager
    def of(lab: Lab, workers: Sequence[WorkerProcess]) -> Iterator[_Look]:
        assert lab.cluster is not None
        with lab.cluster.connect(OURS.key) as connection, lab.cluster.connect("postgres") as beside:
            yield _Look(connection, beside, lab.cluster, workers)

    def wait_until_here(self, count: int) -> None:
        deadline = time.monotonic() + _LONGEST_START
        while (here := self._connection.execute(_ARE_HERE).fetchone()[0]) < count:
            if time.monotonic() > deadline:
                raise PeerFailed(f"Only {here} of {count} workers were there after {_LONGEST_START:.0f} s.")
            for worker in self._workers:
                if not worker.is_alive:
                    raise PeerFailed(f"A worker died: {worker.tail()}")
            time.sleep(0.2)

    def during(self, seconds: float, level: Level, load: float) -> Figures:
        """What happens in so many seconds."""
        if self._cluster.counts_statements:
            self._ask("SELECT pg_stat_statements_reset()")
        before = self._counts()
        connections: list[int] = []
        locked: list[int] = []
        refused: list[int] = []
        waits: Counter[str] = Counter()
        while time.monotonic() - before.at < seconds:
            rows = self._ask(_WAITS, OURS.key)
            connections.append(sum(count for _, _, count in rows) - 1)  # without the harness's
            locked.append(sum(count for kind, _, count in rows if kind == "Lock"))
            refused.append(self._ask(_NOT_GRANTED)[0][0])
            waits.update({f"{kind}:{event}": count for kind, event, count in rows if kind not in ("Client", "")})
            time.sleep(_LOOK_EVERY)
        after = self._counts()
        statements = self._statements()
        took = after.at - before.at
        values = {
            "statements": statements.total() / took,
            "transactions": (after.transactions - before.transactions) / took,
            "connections": max(connections),
            "locked": statistics.mean(locked),
            "refused": max(refused),
            "deadlocks": after.deadlocks - before.deadlocks,
            "server": (after.server - before.server) / took,
            "workers": (after.workers - before.workers) / took,
            "machine": (after.machine - before.machine) / took,
        }
        if not self._cluster.counts_statements:
            del values["statements"]
        if after.flushes is not None and before.flushes is not None:
            values["flushes"] = (after.flushes - before.flushes) / took
        looks = len(connections)
        return Figures(
            level,
            load,
            values,
            Counter({event: round(1000 * count / looks) for event, count in waits.items()}),
            Counter({query: round(calls / took) for query, calls in statements.items()}),
        )

    def latency(self, started: float) -> dict[str, float]:
        """Once all runs have ended, or some time is over: from a start to the end of its run, by the database's times."""
        deadline = time.monotonic() + _LONGEST_REST
        while (done := self._connection.execute(_LATENCY).fetchone())[0] < started and time.monotonic() < deadline:
            time.sleep(0.2)
        finished, median, late = done
        found = {"unfinished": started - finished}
        return found if median is None else {**found, "p50": float(median), "p95": float(late)}

    def _counts(self) -> _Counts:
        transactions, deadlocks = self._ask(_OF_DATABASE, OURS.key)[0]
        flushes = None
        with suppress(Exception):
            flushes = float(self._ask(_FLUSHES)[0][0])
        return _Counts(
            time.monotonic(),
            float(transactions),
            float(deadlocks),
            flushes,
            _cpu_of_server(self._cluster.pid, without=self._own),
            sum(worker.cpu() or 0.0 for worker in self._workers),
            _cpu_of_machine(),
        )

    def _statements(self) -> Counter[str]:
        if not self._cluster.counts_statements:
            return Counter()
        found: Counter[str] = Counter()
        for query, calls in self._ask(_STATEMENTS, SUPERUSER, OURS.key):
            found[" ".join(query.split())] += calls
        return found

    def _ask(self, query: str, *parameters: Any) -> list[Any]:
        return list(self._beside.execute(query, parameters).fetchall())


def _cpu_of_server(pid: int, without: Collection[int]) -> float:
    """Processor time of a server and of all its children, those that have ended among them; seconds."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            its, _, rest = path.read_text().partition(" ")
            fields = rest.rpartition(")")[2].split()
            if int(its) == pid:
                total += sum(map(int, fields[11:15]))
            elif int(fields[1]) == pid and int(its) not in without:
                total += sum(map(int, fields[11:13]))
    return total / _TICK


def _cpu_of_machine() -> float:
    """Processor time that was not idle, of everything on this machine; seconds."""
    with suppress(OSError):
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return (sum(fields) - fields[3] - fields[4]) / _TICK
    return 0.0


def _available_memory() -> float | None:
    """MiB; None where nobody says."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    return None


# -- Telling ------------------------------------------------------------------------------------

_COLUMNS = (
    ("reached", "reached"),
    ("statements/s", "statements"),
    ("transactions/s", "transactions"),
    ("log flushes/s", "flushes"),
    ("connections", "connections"),
    ("waiting for a lock, mean", "locked"),
    ("locks not granted, most", "refused"),
    ("deadlocks", "deadlocks"),
    ("server CPU, cores", "server"),
    ("workers CPU, cores", "workers"),
    ("machine busy, cores", "machine"),
    ("p50 ms", "p50"),
    ("p95 ms", "p95"),
    ("unfinished", "unfinished"),
)
_MOST_STATEMENTS = 12
_LONGEST_STATEMENT = 110


def _markdown(found: Sequence[Figures], about: Sequence[str], notes: Sequence[str]) -> Iterator[str]:
    yield from (f"- {line}" for line in (*about, *notes))
    yield ""
    columns = [column for column in _COLUMNS if any(column[1] in figures.values for figures in found)]
    yield from report.table(
        ("workers", "", "starts/s", *(heading for heading, _ in columns)),
        [
            (
                str(figures.level.workers),
                figures.level.how,
                number(figures.load),
                *(number(figures.values.get(name)) for _, name in columns),
            )
            for figures in found
        ],
    )
    for figures in found:
        if figures.load and figures.waits:
            told = ", ".join(f"{event} {count / 1000:.3g}" for event, count in figures.waits.most_common(5))
            yield f"\n{figures.level.workers} workers ({figures.level.how}) under load, mean of backends that wait for: {told}"
    loaded = [figures for figures in found if figures.load and figures.statements]
    if loaded:
        yield from _statement_table(loaded)


def _statement_table(found: Sequence[Figures]) -> Iterator[str]:
    """Which statements grow with the workers, and which with the load."""
    most = found[-1].statements
    yield "\nStatements a second under load:\n"
    yield from report.table(
        ("", *(f"{figures.level.workers} {figures.level.how}" for figures in found)),
        [
            (
                f"`{query[:_LONGEST_STATEMENT]}`".replace("|", "/"),
                *(f"{figures.statements[query]:,}" for figures in found),
            )
            for query, _ in most.most_common(_MOST_STATEMENTS)
        ],
    )


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="django-steps-workers-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _numbers(text: str) -> list[int]:
    counts = sorted({int(part) for part in text.split(",")})
    if counts[0] < 1:
        raise argparse.ArgumentTypeError("one worker at least")
    return counts


def _interrupt(signum: int, frame: Any) -> NoReturn:
    signal.signal(signum, signal.SIG_IGN)  # what follows is tidying up
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
