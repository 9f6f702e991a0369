"""Keeps several worker processes going: starts them, starts others for those that died, passes signals on.

It executes no runs itself and doesn't touch the database. Workers are started with the command line again and not
forked, so that each has connections of its own. Any signal becomes a SIGHUP to them: one that is still starting up
ends by it without a traceback, and the others don't take it for the repetition of a signal that they got themselves.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from django.apps import apps
from django.utils.autoreload import StatReloader
from django.utils.translation import gettext as _

from .pulse import Gathered
from .stopping import STUCK, Repetition, restore_handlers, stop_signals

# Set in the environment of a worker that has a supervisor; its stdin is a pipe that closes when the supervisor is gone.
SUPERVISED = "DJANGO_STEPS_SUPERVISED"
# The heartbeat file of that worker, if there is one.
HEARTBEAT_FILE = "DJANGO_STEPS_HEARTBEAT_FILE"

_TICK = 0.1  # seconds between two looks at the workers
_FIRST_BACK_OFF, _LAST_BACK_OFF = 1.0, 30.0
_LIVED_WELL = 60.0  # seconds after which a death counts as the first one
_LOOK_AT_FILES = 1.0
# With a signal: it had not got as far as handling it.
_ENDED_WELL = {0, STUCK, *(-signum for signum in stop_signals(is_supervised=True))}
_GRACE = 5.0  # seconds that workers have beyond their own shutdown timeout


@dataclass
class _Slot:
    """The place of one worker: its process, or when to start the next one."""

    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float | None = 0.0  # None: not before the files have changed; nothing more to do in `is_done`
    deaths: int = 0
    is_reloading: bool = False
    is_done: bool = False


class Supervisor:
    """Runs `processes` workers of the command line `command` until they are done or a signal stops it.

    - `say` is called with lines for people.
    - `ends_by_itself`: a worker that ended well is done; otherwise another one is started in its place.
    - `files`: restart the workers when one of these has changed.
    - `shutdown_timeout`: seconds that the workers have to end; None: as long as it takes.
    - `heartbeat`: the file that is touched while all of them work.
    """

    def __init__(
        self,
        command: Sequence[str],
        processes: int,
        *,
        say: Callable[[str], None],
        ends_by_itself: bool = False,
        files: PythonFiles | None = None,
        shutdown_timeout: float | None = None,
        heartbeat: Gathered | None = None,
    ) -> None:
        self._heartbeat = heartbeat
        self._command, self._say, self._files = list(command), say, files
        self._ends_by_itself, self._shutdown_timeout = ends_by_itself, shutdown_timeout
        self._slots = [_Slot() for _ in range(processes)]
        self._repetition = Repetition()
        self._signals: queue.SimpleQueue[bool] = queue.SimpleQueue()  # whether it is repeated
        self.is_stopping = False  # by a signal, not because all workers are done
        self._deadline: float | None = None
        self._exit_code = 0

    def run(self) -> int:
        """Supervise in the main thread; returns the exit code: 0 if all workers that had to end ended well."""
        before = {signum: signal.signal(signum, self._receive) for signum in stop_signals()}
        try:
            while self._is_anything_left():
                self._start_due()
                self._look_at_files()
                self._wait()
                self._bury()
                self._reload_if_changed()
        finally:
            self._kill()
            restore_handlers(before, is_ending=self.is_stopping)
        return self._exit_code

    def _is_anything_left(self) -> bool:
        if self.is_stopping:
            return any(slot.process for slot in self._slots)
        return not all(slot.is_done for slot in self._slots)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self._signals.put(self._repetition.is_repeated(signum))

    def _wait(self) -> None:
        """Wait a moment, less if a signal comes."""
        try:
            is_repeated = self._signals.get(timeout=_TICK)
        except queue.Empty:
            if self._deadline is not None and time.monotonic() > self._deadline:
                self._kill()
            return
        if is_repeated:
            self._kill()
        if self.is_stopping:
            return
        self.is_stopping = True
        if self._shutdown_timeout is not None:
            self._deadline = time.monotonic() + self._shutdown_timeout + _GRACE
        for slot in self._slots:
            if slot.process is not None:
                _ask_to_end(slot.process)

    # -- Workers --------------------------------------------------------------------------------

    def _start_due(self) -> None:
        for number, slot in enumerate(self._slots):
            is_due = slot.start_at is not None and time.monotonic() >= slot.start_at
            if slot.process is None and is_due and not slot.is_done and not self.is_stopping:
                slot.started_at = time.monotonic()
                slot.process = self._start(number)

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        heartbeat = {} if self._heartbeat is None else {HEARTBEAT_FILE: str(self._heartbeat.paths[number])}
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            env={**os.environ, SUPERVISED: "1", **heartbeat},
            # A group of its own: Ctrl-C in the terminal is for the supervisor, which passes it on.
            process_group=0,
        )

    def _look_at_files(self) -> None:
        """Touch the heartbeat file if all workers that there should be touch theirs."""
        if self._heartbeat is not None:
            wanted = [not (slot.is_done or (self.is_stopping and slot.process is None)) for slot in self._slots]
            self._heartbeat.look([number for number, is_wanted in enumerate(wanted) if is_wanted])

    def _bury(self) -> None:
        """See which workers have ended, and decide what comes after them."""
        for slot in self._slots:
            code = None if slot.process is None else slot.process.poll()
            if slot.process is None or code is None:
                continue
            pid = slot.process.pid
            _close(slot.process)
            slot.process = None
            if self.is_stopping:
                # One that the signal killed had not got as far as handling it, and executed nothing.
                self._exit_code = self._exit_code if code in _ENDED_WELL else 1
            elif slot.is_reloading:
                slot.is_reloading, slot.deaths, slot.start_at = False, 0, 0.0
            elif code == STUCK:
                slot.deaths, slot.start_at = 0, 0.0
                text = _("Worker %(pid)d had a step that can't be interrupted. Another one is started.")
                self._say(text % {"pid": pid})
            elif code == 0 and self._ends_by_itself:
                slot.is_done = True
            else:
                self._replace(slot, pid, code)

    def _replace(self, slot: _Slot, pid: int, code: int) -> None:
        how = {"pid": pid, "how": _how(code)}
        if self._files is not None and code > 0:
            slot.start_at = None
            self._say(_("Worker %(pid)d %(how)s. It is restarted when a Python file changes.") % how)
            return
        lived = time.monotonic() - slot.started_at
        slot.deaths = 1 if lived > _LIVED_WELL else slot.deaths + 1
        back_off = min(_FIRST_BACK_OFF * 2 ** (slot.deaths - 1), _LAST_BACK_OFF)
        slot.start_at = time.monotonic() + back_off
        text = _("Worker %(pid)d %(how)s. Another one is started in %(seconds)g s.")
        self._say(text % {**how, "seconds": back_off})

    def _kill(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
                slot.process.wait()
                _close(slot.process)
                slot.process = None
                self._exit_code = self._exit_code or 1

    # -- Changed files --------------------------------------------------------------------------

    def _reload_if_changed(self) -> None:
        changed = None if self._files is None or self.is_stopping else self._files.changed()
        if changed is None:
            return
        file = changed.relative_to(Path.cwd()) if changed.is_relative_to(Path.cwd()) else changed
        self._say(_("%(file)s changed: the workers are restarted.") % {"file": file})
        for slot in self._slots:
            slot.start_at, slot.deaths = 0.0, 0
            if slot.process is not None and not slot.is_reloading:
                slot.is_reloading = True
                _ask_to_end(slot.process)


class PythonFiles:
    """The Python files that a worker may use: all loaded modules, and everything in the apps of the project."""

    def __init__(self) -> None:
        self._reloader = StatReloader()
        for config in apps.get_app_configs():
            if "site-packages" not in Path(config.path).parts:
                self._reloader.watch_dir(config.path, "**/*.py")
        self._looked_at = 0.0
        self._seen = self._look()

    def changed(self) -> Path | None:
        """A file that was changed, added or removed since the last call; looks once a second at most."""
        if time.monotonic() - self._looked_at < _LOOK_AT_FILES:
            return None
        before, self._seen = self._seen, self._look()
        if before == self._seen:
            return None
        return min(path for path in before.keys() | self._seen.keys() if before.get(path) != self._seen.get(path))

    def _look(self) -> dict[Path, float]:
        self._looked_at = time.monotonic()
        return dict(self._reloader.snapshot_files())


def _how(code: int) -> str:
    if code < 0:
        return _("was killed by %(signal)s") % {"signal": signal.Signals(-code).name}
    return _("ended with exit code %(code)d") % {"code": code}


def _ask_to_end(process: subprocess.Popen[bytes]) -> None:
    """Let a worker end well. The pipe is for one that is starting up and ignores the signal, because of `nohup`."""
    process.send_signal(signal.SIGHUP)
    _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
