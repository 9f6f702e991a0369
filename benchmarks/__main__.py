"""`python -m benchmarks`: measure, print, and write RESULTS.md.

Each measurement is kept at once (build/benchmarks/results.jsonl). Ctrl-C, or the time limit, ends it early with a report
of what there is; `--resume` goes on from there.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import install, machine, report
from .lab import Lab
from .mariadb import MariaDB, NoMariaDB
from .peers import PEERS, Peer, Setting
from .plan import WORKLOADS, Measurement, measurements
from .postgres import Cluster, NoPostgres
from .scale import FULL, QUICK, Scale
from .store import Store
from .targets import number

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "benchmarks"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.report:
        return _report_only()
    for signum in _SIGNALS:
        signal.signal(signum, _interrupt)
    peers = chosen_peers(options)
    with ExitStack() as stack:
        cluster = _cluster(stack, peers)
        if cluster is None:
            peers = [peer for peer in peers if peer.database != "postgresql"]
        mariadb, without = _mariadb(stack, peers)
        if mariadb is None:
            peers = [peer for peer in peers if peer.database != "mysql"]
        installed = install.prepare(options.home, peers, _say)
        peers = [peer for peer in peers if peer.package in installed.versions]
        lab = Lab(stack.enter_context(_scratch()), cluster, installed.runtimes, mariadb, installed.versions)
        store = Store(BUILD / "results.jsonl", resume=options.resume, sizes="quick" if options.quick else "full")
        about = machine.describe(installed, cluster, mariadb)
        deadline = time.monotonic() + 60 * options.minutes
        plan = list(measurements(options.workloads, peers, options.rounds))
        try:
            is_complete = _measure_all(plan, lab, options.scale, store, deadline)
        except KeyboardInterrupt:
            is_complete = False
        text = report.markdown(store.lines, _about(about, options, is_complete), {**without, **installed.missing})
    (BUILD / "results.md").write_text(text)
    options.output.write_text(text)
    _say("\n" + text.partition("\nThe plans of")[0])
    _say(
        f"Written to {options.output}."
        if is_complete
        else f"Not complete; written to {options.output}. Go on: --resume"
    )
    return 0 if is_complete else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `workloads` and `peers` become lists, `scale` the sizes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    names = [workload.name for workload in WORKLOADS]
    peers = list(dict.fromkeys(peer.name for peer in PEERS))
    add("--workloads", type=_list_of(names), default=names, help=f"some of {', '.join(names)}")
    add("--peers", type=_list_of(peers), default=peers, help=f"some of {', '.join(peers)}")
    databases = ["postgresql", "sqlite", "mysql"]
    add("--databases", type=_list_of(databases), default=databases, help=f"some of {', '.join(databases)}")
    add("--rounds", type=int, default=3, help="how often to measure what doesn't take long (default: 3)")
    add("--minutes", type=float, help="start no further measurement after so many (default: 35; quick: 7)")
    add("--quick", action="store_true", help="small sizes, one round, on SQLite ours only: is it working?")
    add("--resume", action="store_true", help="go on with the last run instead of beginning anew")
    add("--best", type=int, metavar="N", help="another number of threads for our best setting")
    add("--home", type=Path, default=BUILD / "peers", help="where the alternatives are, or will be, installed")
    add(
        "--output",
        type=Path,
        help="where to write the results (default: RESULTS.md here; not for a quick or partial run)",
    )
    add("--report", action="store_true", help="only print the last report again")
    options = parser.parse_args(arguments)
    options.scale = QUICK if options.quick else FULL
    if options.quick:
        options.rounds = 1
    if options.minutes is None:
        options.minutes = 7 if options.quick else 35
    is_everything = options.workloads == names and options.peers == peers and not options.quick
    options.output = options.output or (
        HERE / "RESULTS.md" if is_everything or options.resume else BUILD / "results.md"
    )
    return options


def chosen_peers(options: argparse.Namespace) -> list[Peer]:
    """The peers that are asked for, with the settings that are asked for."""
    peers = [
        peer
        for peer in PEERS
        if peer.name in options.peers
        and peer.database in options.databases
        and not (options.quick and peer.name != "ours" and peer.database == "sqlite")
    ]
    if options.best is None:
        return peers
    best = Setting(f"{options.best} threads", {"concurrency": options.best})
    full = replace(best, name=f"{options.best} threads, synchronous=FULL", synchronous="FULL")
    return [
        replace(peer, best=best, more=(full,) if peer.more else ()) if peer.name == "ours" else peer for peer in peers
    ]


def _measure_all(plan: Sequence[Measurement], lab: Lab, scale: Scale, store: Store, deadline: float) -> bool:
    """Measure what isn't measured yet; whether there is a whole round of it by the end."""
    for position, measurement in enumerate(plan, 1):
        if store.has(measurement):
            continue
        if time.monotonic() > deadline:
            _say(f"The time is over; {len(plan) - position + 1} of {len(plan)} measurements are left out.")
            return measurement.round > 1
        line = _measure(measurement, lab, scale)
        store.add(measurement, line)
        _say(f"{position:3}/{len(plan)} {_short(measurement, line)}")
    return True


def _measure(measurement: Measurement, lab: Lab, scale: Scale) -> dict[str, Any]:
    peer, setting = measurement.peer, measurement.setting
    before = _probe(lab, peer, setting, scale)
    began = time.monotonic()
    try:
        figures = measurement.measure(lab, peer, setting, scale)
    except Exception as error:  # the others are measured all the same
        figures = {"error": f"{type(error).__name__}: {error}"}
    took = time.monotonic() - began
    after = _probe(lab, peer, setting, scale)
    raw = {name: statistics.mean((before[name], after[name])) for name in before}
    return {**raw, "raw_before": before.get("raw"), "raw_after": after.get("raw"), "took": round(took, 1), **figures}


def _probe(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> dict[str, float]:
    """The raw limits now."""
    found = {"raw": lab.raw(scale.probe)}
    if peer.database == "sqlite":
        found["raw_sqlite"] = lab.raw_sqlite(setting.synchronous, scale.probe / 2)
    if peer.database == "mysql":
        found["raw_mysql"] = lab.raw_mysql(scale.probe)
    return {name: value for name, value in found.items() if value is not None}


def _short(measurement: Measurement, line: dict[str, Any]) -> str:
    figures = [
        f"{heading} {number(line[name])}" for heading, name in report.columns(measurement.workload) if name in line
    ]
    what = line["error"].splitlines()[0][:150] if "error" in line else ", ".join(figures[:4])
    return f"{measurement.workload:5}{measurement.peer.key:16} {measurement.setting.name}: {what}  [{line['took']} s]"


def _about(about: Sequence[str], options: argparse.Namespace, is_complete: bool) -> list[str]:
    notes = []
    if options.quick:
        notes.append("a quick run with small sizes: good for seeing that it works, not for comparing")
    if not is_complete:
        notes.append("not complete: ended early")
    return [*about, *notes]


def _cluster(stack: ExitStack, peers: Sequence[Peer]) -> Cluster | None:
    """PostgreSQL, also where only SQLite is measured: the raw limit is its."""
    try:
        return stack.enter_context(Cluster())
    except NoPostgres as error:
        _say(f"Nothing is measured on PostgreSQL: {error}")
        return None


def _mariadb(stack: ExitStack, peers: Sequence[Peer]) -> tuple[MariaDB | None, dict[str, str]]:
    """The MariaDB, if any peer is measured on it; or why there is none, for the report."""
    if all(peer.database != "mysql" for peer in peers):
        return None, {}
    try:
        return stack.enter_context(MariaDB()), {}
    except NoMariaDB as error:
        _say(f"Nothing is measured on MariaDB: {error}")
        return None, {"MariaDB": str(error)}


@contextmanager
def _scratch() -> Iterator[Path]:
    BUILD.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=BUILD))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _report_only() -> int:
    path = BUILD / "results.md"
    if not path.exists():
        _say("Nothing has been measured yet.")
        return 1
    _say(path.read_text())
    return 0


def _list_of(known: Sequence[str]) -> Any:
    def parse_list(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return [name for name in known if name in names]

    return parse_list


def _interrupt(signum: int, frame: Any) -> None:
    for signum in _SIGNALS:  # what follows is tidying up, which is not to be interrupted
        signal.signal(signum, signal.SIG_IGN)
    _say("Ending.")
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
