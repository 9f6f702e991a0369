"""Runs the tests on every supported pair of Python and Django, on SQLite: `python -m tests.matrix [pytest arguments]`.

The pairs are in `tox.ini`. Interpreters are looked for on the PATH and among pyenv's versions; those that are not found
are named in one line at the end. CORNERS=1 tests two of the pairs only: the newest Python that is found, with the oldest
and the newest Django, without the pages of the documentation, whose commands are a process each. The exit code is 0 if
every pair that could be tested passed.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Pair = tuple[str, str]


def main(pytest_arguments: list[str]) -> int:
    found = {version: interpreter(version) for version in sorted({python for python, _ in pairs()}, key=number)}
    directories = dict.fromkeys(str(Path(path).parent) for path in found.values() if path)
    testable = [pair for pair in pairs() if found[pair[0]]]
    if os.environ.get("CORNERS") == "1":
        testable = corners(testable)
        pytest_arguments = ["--ignore", "tests/docs/test_examples.py", *pytest_arguments]
    environments = [f"py{python}-django{django}" for python, django in testable]
    parallel = ["run-parallel", "--parallel", str(os.cpu_count() or 1)]
    command = [sys.executable, "-m", "tox", *parallel, "-e", ",".join(environments), "--", *pytest_arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PATH": os.pathsep.join([os.environ.get("PATH", ""), *directories])},
        check=False,
    )
    missing = [version for version, path in found.items() if not path]
    if missing:
        print(f"Not tested, because not found: Python {', '.join(missing)}")
    return done.returncode


def pairs() -> list[Pair]:
    """The pairs of Python and Django in `tox.ini`, such as `("3.12", "6.0")`."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "tox.ini")
    names = [name for line in config["tox"]["env_list"].split() for name in expand(line)]
    found = [re.fullmatch(r"py([\d.]+)-django([\d.]+)", name) for name in names]
    return sorted({(match[1], match[2]) for match in found if match}, key=lambda pair: [number(part) for part in pair])


def corners(testable: list[Pair]) -> list[Pair]:
    """The newest Python with the oldest and the newest Django. `make test` itself has most often an older Python."""
    of_newest = [pair for pair in testable if pair[0] == testable[-1][0]]
    return list(dict.fromkeys([of_newest[0], of_newest[-1]]))


def expand(name: str) -> list[str]:
    """`py3.{12,13}` as `["py3.12", "py3.13"]`."""
    parts = [part.split(",") for part in re.split(r"[{}]", name)]
    return ["".join(chosen) for chosen in product(*parts)]


def number(version: str) -> tuple[int, ...]:
    """A version to compare by: 3.9 is before 3.11, and 6.1 before 2028.1."""
    return tuple(map(int, version.split(".")))


def interpreter(version: str) -> str | None:
    """The path of `python3.12`, on the PATH or of pyenv."""
    name = f"python{version}"
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(name), *map(str, sorted(versions.glob(f"{version}.*/bin/{name}"), reverse=True))]
    return next((path for path in candidates if path and runs(path, version)), None)


def runs(path: str, version: str) -> bool:
    """Whether it is that interpreter: a shim of pyenv may find none behind it."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == version


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
