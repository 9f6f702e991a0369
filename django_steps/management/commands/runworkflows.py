"""`manage.py runworkflows`: a worker, or several under a supervisor.

Parses, greets, prints what ends. The work is in `worker/loop.py`, the processes are in `worker/supervisor.py`.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections
from django.utils.autoreload import get_child_arguments
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...conf import EXECUTORS, conf
from ...worker import Worker
from ...worker.pulse import Gathered, touch
from ...worker.stopping import STUCK, StopSignals, end_at_once
from ...worker.supervisor import HEARTBEAT_FILE, SUPERVISED, PythonFiles, Supervisor
from .. import arguments, base, left_over
from ..garbage import spare_what_is_loaded
from ..queries_log import keep_few_queries
from ..worker_output import WorkerOutput, logging_to_stderr


class Command(base.WorkflowCommand):
    help = gettext_lazy("Execute the runs of workflows until stopped.")
    is_command_line = False  # rather than called by other code
    concurrency: int | None = None  # as the options say
    epilog = gettext_lazy(
        "SIGTERM, SIGHUP or Ctrl-C stops it cleanly: it claims nothing more, lets running steps end, and releases the runs.\n"
        "A repeated SIGTERM or Ctrl-C, or --shutdown-timeout, ends it at once; other workers execute running steps again when\n"
        "the lease ends.\n"
        "\n"
        "exit codes: 0 stopped cleanly or nothing left to do (also if runs failed), 1 ended at once or could not start,\n"
        "75 a step could not be interrupted: start it again (--processes does)\n"
        "verbosity:  -v 0 prints nothing, -v 1 a line for each finished run, -v 2 a line for each step, too\n"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--queue", action="append", default=[], metavar="NAME", help=_("Serve this queue only; may be repeated."))
        add(
            "--concurrency",
            type=arguments.count,
            metavar="N",
            help=_(
                "How many runs to execute at a time (default: the setting CONCURRENCY); of a dispatcher, how many claimed "
                "runs may wait for the other engine (default: 100)."
            ),
        )
        add(
            "--executor",
            choices=EXECUTORS,
            help=_(
                "Who executes the runs: threads of this process, or the processes of Celery or django.tasks, to which this "
                "one then dispatches them (default: the setting EXECUTOR)."
            ),
        )
        add(
            "--async-concurrency",
            type=arguments.count,
            metavar="N",
            help=_("How many runs of async workflows to execute at a time (default: the setting ASYNC_CONCURRENCY)."),
        )
        add(
            "--processes",
            type=arguments.count,
            default=1,
            metavar="N",
            help=_("How many worker processes to keep going; those that die are replaced (default: 1)."),
        )
        add(
            "--until-idle",
            action="store_true",
            help=_("End when nothing is left to do; runs that sleep for longer are left sleeping."),
        )
        add(
            "--max-runs",
            type=arguments.count,
            metavar="N",
            help=_("End after having claimed so many runs (in each process)."),
        )
        add(
            "--poll-interval",
            type=arguments.positive_seconds,
            metavar="S",
            help=_("Seconds between two looks for work at most (default: the setting POLL_INTERVAL)."),
        )
        add(
            "--lease",
            type=arguments.lease,
            metavar="S",
            help=_("Seconds after which the runs of a dead worker are recovered (default: the setting LEASE)."),
        )
        add(
            "--shutdown-timeout",
            type=arguments.seconds,
            metavar="S",
            help=_("Seconds that running steps have to end when stopped (default: as long as they take)."),
        )
        add(
            "--heartbeat-file",
            type=Path,
            metavar="PATH",
            help=_(
                "Touch this file each second while the worker works, with --processes while all of them do: for a probe that "
                "restarts the container."
            ),
        )
        add("--reload", action="store_true", help=_("Restart when a Python file changes. For development."))

    def run_from_argv(self, argv: list[str]) -> None:
        self.is_command_line = True
        super().run_from_argv(argv)

    def get_check_kwargs(self, options: dict[str, Any]) -> Any:
        executes_here = (options["executor"] or conf.executor) == "threads"
        self.concurrency = options["concurrency"] if executes_here else None  # a dispatcher's is no number of threads
        return super().get_check_kwargs(options)

    def check(self, *args: Any, **kwargs: Any) -> None:
        # A pool that is too small for the setting may be large enough for this worker, and the other way around.
        with conf.given(concurrency=self.concurrency):
            super().check(*args, **kwargs)

    def carry_out(self, **options: Any) -> None:
        # Whatever a step starts is not supervised.
        is_supervised = os.environ.pop(SUPERVISED, "") == "1"
        if own_file := os.environ.pop(HEARTBEAT_FILE, ""):
            options["heartbeat_file"] = Path(own_file)
        if (options["processes"] > 1 or options["reload"]) and not is_supervised:
            self.supervise(options)
        else:
            self.work(options, is_supervised)

    def work(self, options: dict[str, Any], is_supervised: bool) -> None:
        """Be a worker."""
        self.refuse_transaction()
        self.refuse_unwritable(options["heartbeat_file"])
        worker = Worker(
            queues=options["queue"],
            concurrency=options["concurrency"],
            async_concurrency=options["async_concurrency"],
            lease=options["lease"],
            poll_interval=options["poll_interval"],
            until_idle=options["until_idle"],
            max_runs=options["max_runs"],
            shutdown_timeout=options["shutdown_timeout"],
            executor=options["executor"],
            heartbeat_file=options["heartbeat_file"],
        )
        lines = WorkerOutput(self.stdout, self.style, options["verbosity"])

        def stop() -> None:
            worker.stop()
            self.say_stopping(worker, lines)

        with StopSignals(stop, is_supervised=is_supervised) as signals:
            if is_supervised:
                signals.stop_when_closed(sys.stdin.fileno())
            else:
                self.refuse_unusable_database()
                lines.greet(base.connection(), worker)
            if self.is_command_line:  # this process is a worker's alone
                spare_what_is_loaded()
                keep_few_queries()
            with logging_to_stderr(options["verbosity"]), lines.following():
                is_clean = worker.run()
        if not is_clean:
            lines.say(
                _("The shutdown timeout is over. The steps that still run are executed again when their leases end.")
            )
            end_at_once()
        if worker.is_stuck:
            self.end_stuck(lines, is_supervised=is_supervised)
        if not is_supervised:
            ended = _("Ended.")  # a dispatcher doesn't see what finishes
            if worker.executor == "threads":
                ended = _("Ended. Finished runs: %(summary)s.") % {"summary": lines.summary()}
            self.say_ended(lines, ended, options, is_idle=options["until_idle"] and not signals.is_stopping)

    def end_stuck(self, lines: WorkerOutput, *, is_supervised: bool) -> None:
        """End this process although a thread of it goes on. A supervisor starts another one."""
        if not is_supervised:
            text = _(
                "Ended with exit code %(code)d: a step has not ended after its timeout, and can't be interrupted. Start the"
                " worker again."
            )
            lines.say(text % {"code": STUCK})
        if not self.is_command_line:
            sys.exit(STUCK)
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        end_at_once(STUCK)

    def supervise(self, options: dict[str, Any]) -> None:
        """Keep workers going that execute this same command line."""
        if not self.is_command_line:
            raise CommandError(
                _("--processes and --reload start this command in new processes: use them on a command line.")
            )
        try:
            command = [str(argument) for argument in get_child_arguments()]
        except RuntimeError as error:
            raise CommandError(
                _("The command can't be started in new processes: %(error)s") % {"error": error}
            ) from None
        heartbeat = None
        if path := options["heartbeat_file"]:
            heartbeat = Gathered(path, options["processes"])
            self.refuse_unwritable(path, *heartbeat.paths)
        self.refuse_unusable_database()
        lines = WorkerOutput(self.stdout, self.style, options["verbosity"])
        defaults = Worker(
            queues=options["queue"],
            concurrency=options["concurrency"],
            async_concurrency=options["async_concurrency"],
            executor=options["executor"],
        )
        lines.greet(base.connection(), defaults, options["processes"])
        connections.close_all()
        supervisor = Supervisor(
            command,
            options["processes"],
            say=lines.say,
            ends_by_itself=options["until_idle"] or options["max_runs"] is not None,
            files=PythonFiles() if options["reload"] else None,
            shutdown_timeout=options["shutdown_timeout"],
            heartbeat=heartbeat,
        )
        code = supervisor.run()
        self.say_ended(lines, _("Ended."), options, is_idle=options["until_idle"] and not supervisor.is_stopping)
        if code:
            sys.exit(1)

    def say_ended(self, lines: WorkerOutput, ended: str, options: dict[str, Any], *, is_idle: bool) -> None:
        """The last lines; of a worker that was idle also what is left."""
        says_more = is_idle and options["verbosity"] > 0
        lines.say(ended, *(left_over.lines(options["queue"]) if says_more else ()))

    def refuse_transaction(self) -> None:
        """A worker has connections of its own: they would wait for the transaction, or not see what it has written."""
        if base.connection().in_atomic_block:
            raise CommandError(
                _(
                    "runworkflows can't work inside a transaction (atomic(), TestCase): its threads don't see what the "
                    "transaction has written. In tests use TransactionTestCase, or drain() of django_steps.testing."
                )
            )

    def refuse_unusable_database(self) -> None:
        if problem := base.database_problem():
            raise CommandError(problem)

    def refuse_unwritable(self, *paths: Path | None) -> None:
        """The files are made here, so that a probe that comes early finds them."""
        for path in filter(None, paths):
            try:
                touch(path)
            except (OSError, ValueError) as error:
                text = _(
                    "--heartbeat-file: %(path)s can't be written: %(error)s. Give a file in a directory that exists and that "
                    "this user may write to."
                )
                reason = getattr(error, "strerror", None) or error
                raise CommandError(text % {"path": path, "error": reason}) from None

    def say_stopping(self, worker: Worker, lines: WorkerOutput) -> None:
        steps = [f"  {claim.workflow}  {claim.run_id}  {step}".rstrip() for claim, step in worker.in_progress()]
        if not steps:
            lines.say(_("Stopping."))
            return
        text = ngettext(
            "Stopping when %(count)d run has ended its step; once more ends at once:",
            "Stopping when %(count)d runs have ended their steps; once more ends at once:",
            len(steps),
        )
        lines.say(text % {"count": len(steps)}, *steps)
