"""What all commands share: bad input ends in one clear line and exit code 1, never in a traceback.

What a command does is in its own module; how things look is in `presentation/output.py`.
"""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser, DjangoHelpFormatter
from django.db import DatabaseError, InterfaceError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext as _

from ..definitions import registered
from ..errors import StepsError
from ..models import WorkflowRun
from ..models.querysets import WorkflowRunQuerySet
from ..models.tagging import having
from ..monitoring import health
from ..presentation import json as run_json
from ..presentation.output import one_line
from . import arguments
from .streams import forgiving_streams


class _HelpFormatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the lines of examples as they are written."""


class WorkflowCommand(BaseCommand):
    """A command on the database of the runs. Subclasses say what it does in `carry_out`."""

    # Texts that are translated when they are shown.
    help: Any = ""
    epilog: Any = ""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        self.help = str(self.help)
        kwargs.setdefault("formatter_class", _HelpFormatter)
        kwargs.setdefault("allow_abbrev", False)  # `--all` is not to mean `--all-failed`
        if self.epilog:
            kwargs.setdefault("epilog", str(self.epilog))
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        if parser.called_from_command_line:
            parser.error = partial(self._refuse, parser)  # type: ignore[method-assign]
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        with forgiving_streams():
            super().run_from_argv(argv)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self.carry_out(**options)
        except (StepsError, ImproperlyConfigured) as error:
            raise CommandError(one_line(error)) from error
        except (DatabaseError, InterfaceError) as error:
            raise CommandError(explain(error)) from error

    def carry_out(self, **options: Any) -> None:
        """Do what was asked; errors of django_steps and of the database become one line."""
        raise NotImplementedError

    def write_json(self, shown: Any, indent: int | None = 2) -> None:
        """Print JSON, in ASCII where the encoding of stdout has not everything."""
        self.stdout.write(run_json.dumps(shown, indent, encoding=getattr(self.stdout, "encoding", None)))

    def _refuse(self, parser: CommandParser, message: str) -> NoReturn:
        parser.exit(1, self.style.ERROR(f"CommandError: {message}") + "\n")


def connection() -> BaseDatabaseWrapper:
    """This thread's connection to the database of the runs."""
    found: BaseDatabaseWrapper = connections[router.db_for_write(WorkflowRun)]
    return found


def add_tag(parser: CommandParser, help: str) -> None:
    """The option `--tag NAME=VALUE`, which may be repeated."""
    parser.add_argument("--tag", action="append", default=[], type=arguments.tag, metavar="NAME=VALUE", help=help)


def with_tags(
    runs: WorkflowRunQuerySet[WorkflowRun], tags: Sequence[tuple[str, str]]
) -> WorkflowRunQuerySet[WorkflowRun]:
    """Those of the runs that have all of these tags."""
    for name, value in tags:
        runs = runs.filter(pk__in=having(name, value))
    return runs


def manage() -> str:
    """How the user called Django, for hints at what to type next."""
    name = Path(sys.argv[0]).name
    return "python manage.py" if name in ("manage.py", "") else "django-admin"


def refuse_unknown_workflow(name: str) -> None:
    """`CommandError` if neither the code nor any run has a workflow of this name, so that nothing can be found."""
    known = sorted({item.name for item in registered()})
    if name in known or WorkflowRun.objects.using(connection().alias).filter(workflow=name).exists():
        return
    text = _("Unknown workflow %(name)r, and no run has that name. Known are: %(known)s.")
    raise CommandError(text % {"name": name, "known": ", ".join(known) or _("none")})


def explain(error: Exception) -> str:
    """What is wrong with the database, in one line that says what to do."""
    return database_problem() or health.refused(error)


def database_problem() -> str | None:
    """Why nothing can be done with the database, in one line: it can't be reached, or isn't migrated."""
    return health.database_problem(connection(), manage())
