"""What was measured: one line of JSON for each measurement, written at once, so that an interruption costs only one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .plan import Measurement

Line = dict[str, Any]


class Store:
    """The lines of one run in a file: those of an earlier run are gone, unless it is to be resumed.

    `sizes` names the scale of the run; what was measured at another one is not mixed with it.
    """

    def __init__(self, path: Path, *, resume: bool, sizes: str) -> None:
        self._path, self._sizes = path, sizes
        path.parent.mkdir(parents=True, exist_ok=True)
        if not resume:
            path.unlink(missing_ok=True)
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.lines: list[Line] = list({_key(line): line for line in lines if line["sizes"] == sizes}.values())

    def has(self, measurement: Measurement) -> bool:
        """Whether it has been measured, without an error."""
        return any(_key(line) == measurement.key and "error" not in line for line in self.lines)

    def add(self, measurement: Measurement, line: Line) -> None:
        """Keep what was measured, in the place of an earlier failure."""
        workload, peer, setting, number = measurement.key
        line = {"workload": workload, "peer": peer, "setting": setting, "round": number, "sizes": self._sizes, **line}
        self.lines = [other for other in self.lines if _key(other) != measurement.key] + [line]
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _key(line: Line) -> tuple[str, str, str, int]:
    return (line["workload"], line["peer"], line["setting"], line["round"])
