"""Disks that fill up: a file system of a few megabytes where one can be mounted, and a limit on file sizes where not."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from .processes import Workers


class Disk(Protocol):
    """Where the database is; `fill` and `free` say whether there is room for more."""

    directory: Path

    def fill(self, workers: Workers) -> None: ...

    def free(self, workers: Workers) -> None: ...


class SmallFileSystem:
    """A tmpfs that something else fills up: writes fail with ENOSPC. Only root can mount one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fill(self, workers: Workers) -> None:
        with (self.directory / "something-else").open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12):
                while True:
                    try:
                        file.write(bytes(size))
                    except OSError:
                        break

    def free(self, workers: Workers) -> None:
        (self.directory / "something-else").unlink()


class LimitedFiles:
    """The workers may not write beyond the start of a file: writes to the database fail with EFBIG."""

    _START = 96 * 1024  # the evidence has to stay below that

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fill(self, workers: Workers) -> None:
        self._limit(workers, self._START)

    def free(self, workers: Workers) -> None:
        self._limit(workers, resource.RLIM_INFINITY)

    def _limit(self, workers: Workers, size: int) -> None:
        for pid in workers.running():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextmanager
def small_file_system(directory: Path) -> Iterator[Disk]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(directory)], check=True)
    try:
        yield SmallFileSystem(directory)
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@contextmanager
def limited_files(directory: Path) -> Iterator[Disk]:
    yield LimitedFiles(directory)


# An ordinary user can't mount anything.
DISKS = [limited_files, small_file_system] if os.geteuid() == 0 else [limited_files]
