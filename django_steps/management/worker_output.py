"""What `runworkflows` prints: the greeting, a line for each finished run, a line for each step with `-v 2`, logs.

Signals come in the worker's threads, so each line is written whole.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import OutputWrapper
from django.core.management.color import Style
from django.db.backends.base.base import BaseDatabaseWrapper
from django.dispatch import Signal
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import signals
from ..definitions import registered
from ..models import WorkflowRun
from ..presentation import durations, errors, output, text
from ..worker import Worker
from .streams import discard

_LONGEST_NAME = 30  # columns for the name of a workflow
_ENGINES = {"celery": "Celery", "tasks": "django.tasks"}  # as people call them
_LINE = 100  # columns of the greeting, where the terminal isn't narrower


class WorkerOutput:
    """The lines of one worker. With `verbosity` 0 there are none, with 2 there is one for each step, too."""

    def __init__(self, stdout: OutputWrapper, style: Style, verbosity: int) -> None:
        self._stdout, self._style, self._verbosity = stdout, style, verbosity
        self._lock = threading.Lock()
        names = [len(item.name) for item in registered()]
        self._name_width = min(max(names, default=0), _LONGEST_NAME)
        self.finished: Counter[str] = Counter()

    def say(self, *lines: str) -> None:
        """Print lines, together."""
        if self._verbosity < 1:
            return
        with self._lock:
            try:
                self._stdout.write("\n".join(lines))
                self._stdout.flush()
            except OSError:  # whoever read it has gone, or the terminal has: work goes on
                self._verbosity = 0
                discard()

    def greet(self, database: BaseDatabaseWrapper, worker: Worker, processes: int | None = None) -> None:
        """Say what is served, and how to stop; `processes` is how many such workers this is the supervisor of."""
        engine = _ENGINES.get(worker.executor)
        title = _title(engine, processes)
        workflows = [item.name + (f" ({item.version})" if item.version else "") for item in registered()]
        if engine is None:
            at_a_time = _at_a_time(worker, processes)
        else:
            at_a_time = _("up to %(count)d claimed runs wait for %(engine)s")
            at_a_time %= {"count": worker.concurrency, "engine": engine}
        values = [
            (_("database"), f"{database.display_name}, {database.alias!r}: {database.settings_dict['NAME']}"),
            (_("queues"), ", ".join(worker.queues) or _("all")),
            (_("concurrency"), at_a_time),
            (_("workflows"), f"{len(workflows)}: {', '.join(workflows)}" if workflows else "0"),
        ]
        width = min(output.width_of(self._stdout) or _LINE, _LINE)
        lines = [f"  {line}" for line in output.pairs(values, width - 2)]
        if not workflows:
            lines.append(self._style.WARNING(_no_workflows()))
        stop = _("Ctrl-C or SIGTERM ends it when its running steps have ended; a second one ends it at once.")
        if engine is not None:
            stop = _("Ctrl-C or SIGTERM ends it; runs that no process executes yet are released.")
        self.say(self._style.MIGRATE_HEADING(title), *lines, stop, "")

    @contextmanager
    def following(self) -> Iterator[None]:
        """Print a line for whatever ends in this process meanwhile."""
        if self._verbosity < 1:
            yield
            return
        receivers: list[tuple[Signal, Any]] = [
            (signals.run_succeeded, self._run_ended),
            (signals.run_failed, self._run_ended),
            (signals.run_canceled, self._run_ended),
        ]
        if self._verbosity > 1:
            receivers += [(signals.step_succeeded, self._step_succeeded), (signals.step_failed, self._step_failed)]
        for signal, receiver in receivers:
            signal.connect(receiver, sender=WorkflowRun)
        try:
            yield
        finally:
            for signal, receiver in receivers:
                signal.disconnect(receiver, sender=WorkflowRun)

    def summary(self) -> str:
        """How many runs ended in which way: `12 succeeded, 1 failed`."""
        statuses = WorkflowRun.Status
        return ", ".join(f"{self.finished[status]} {statuses(status).label}" for status in self.finished) or _("none")

    # -- Receivers ------------------------------------------------------------------------------

    def _run_ended(self, run: WorkflowRun, **_kwargs: Any) -> None:
        self.finished[run.status] += 1
        unknown = run.get_deferred_fields()
        ended = timezone.now() if "finished_at" in unknown else run.finished_at
        took = "" if "started_at" in unknown else durations.duration(durations.between(run.started_at, ended))
        detail = output.one_line(errors.line(run.error)) if run.status == WorkflowRun.Status.FAILED else ""
        if "continued_as_id" not in unknown and run.continued_as_id is not None:
            detail = _("continued as %(run)s") % {"run": run.continued_as_id}
        self._line(run, run.status, f"{took:>8}{output.GAP}{detail}")

    def _step_succeeded(self, run: WorkflowRun, step: str, **_kwargs: Any) -> None:
        self._line(run, "", f"{step}: {_('succeeded')}")

    def _step_failed(self, run: WorkflowRun, step: str, **_kwargs: Any) -> None:
        self._line(run, "", f"{step}: {_('failed')}")

    def _line(self, run: WorkflowRun, status: str, rest: str) -> None:
        style = {"succeeded": self._style.SUCCESS, "failed": self._style.ERROR, "canceled": self._style.WARNING}
        shown = f"{WorkflowRun.Status(status).label if status else _('step'):<9}"
        name = text.clipped(run.workflow, self._name_width).ljust(self._name_width)
        cells = [
            durations.short_moment(timezone.now()),
            style[status](shown) if status else shown,
            name,
            str(run.pk),
            rest,
        ]
        self.say(output.GAP.join(cells).rstrip())


def _title(engine: str | None, processes: int | None) -> str:
    if engine is not None and processes is None:
        return _("django_steps dispatcher to %(engine)s, process %(pid)d") % {"engine": engine, "pid": os.getpid()}
    if engine is not None:
        return _("django_steps: %(count)d dispatchers to %(engine)s") % {"engine": engine, "count": processes}
    if processes is None:
        return _("django_steps worker, process %(pid)d") % {"pid": os.getpid()}
    text = ngettext("django_steps: %(count)d worker process", "django_steps: %(count)d worker processes", processes)
    return text % {"count": processes}


def _at_a_time(worker: Worker, processes: int | None) -> str:
    count = worker.concurrency
    if processes is None:
        at_a_time = ngettext("%(count)d run at a time", "%(count)d runs at a time", count)
    else:
        at_a_time = ngettext(
            "%(count)d run at a time in each process", "%(count)d runs at a time in each process", count
        )
    at_a_time %= {"count": count}
    if any(item.is_async for item in registered()):
        at_a_time += _(", and %(count)d of async workflows") % {"count": worker.async_concurrency}
    return at_a_time


def _no_workflows() -> str:
    return _(
        "No workflows were found, so nothing will be executed. Decorate functions with @workflow in a module named "
        "`workflows` of an installed app, such as shop/workflows.py."
    )


@contextmanager
def logging_to_stderr(verbosity: int) -> Iterator[None]:
    """Log to stderr meanwhile, if the project's LOGGING says nothing of `django_steps`."""
    logger = logging.getLogger("django_steps")
    if logger.hasHandlers():
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    # Of each run that ends there is a line, or none was asked for.
    handler.addFilter(lambda record: not getattr(record, "is_end_of_run", False))
    handler.setFormatter(logging.Formatter("%(asctime)s  %(levelname)-9s  %(name)s: %(message)s", "%H:%M:%S"))
    level = logger.level
    handler.setLevel(
        logging.INFO if verbosity else logging.WARNING
    )  # not the logger's, whose lines are also kept with runs
    logger.addHandler(handler)
    if level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
