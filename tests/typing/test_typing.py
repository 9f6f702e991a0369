"""What mypy and pyright make of code that uses django_steps: they accept what is right, and report what is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RIGHT, WRONG = HERE / "workflows_typed.py", HERE / "workflows_mistyped.py"

Reports = dict[str, dict[int, list[str]]]  # by file name and line


def checker(*command: str | Path, cwd: Path = ROOT) -> str:
    finished = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode in (0, 1), finished.stdout + finished.stderr
    return finished.stdout


def mypy() -> Reports:
    reports: Reports = {}
    for line in checker("mypy", "--config-file", HERE / "mypy.ini", "--no-error-summary", RIGHT, WRONG).splitlines():
        found = re.match(r"(?P<path>[^:]+):(?P<line>\d+): error: (?P<message>.*)", line)
        if found:
            lines = reports.setdefault(Path(found["path"]).name, {})
            lines.setdefault(int(found["line"]), []).append(found["message"])
    return reports


def pyright() -> Reports:
    reports: Reports = {}
    output = checker("pyright", "--outputjson", "--pythonpath", sys.executable, "--project", HERE)
    for report in json.loads(output)["generalDiagnostics"]:
        if report["severity"] == "error":
            lines = reports.setdefault(Path(report["file"]).name, {})
            lines.setdefault(report["range"]["start"]["line"] + 1, []).append(report["message"])
    return reports


@pytest.fixture(scope="module", params=[mypy, pyright], ids=["mypy", "pyright"])
def reports(request: pytest.FixtureRequest) -> Reports:
    found: Reports = request.param()
    return found


def test_what_is_right_is_accepted(reports: Reports) -> None:
    assert reports.get(RIGHT.name, {}) == {}


def test_what_is_wrong_is_reported_and_nothing_else(reports: Reports) -> None:
    expected = {number for number, line in enumerate(WRONG.read_text().splitlines(), 1) if line.endswith("# error")}
    found = reports.get(WRONG.name, {})
    assert len(expected) > 20
    assert sorted(found) == sorted(expected), found


def test_the_package_itself_passes_mypy_strict() -> None:
    assert checker("mypy", "--no-error-summary") == ""
