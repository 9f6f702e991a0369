"""Options that choose runs by how they failed, and the table of all kinds of failures."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

from django.core.management.base import CommandParser
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from ..core import clock
from ..durations import to_text
from ..ledger.reports import FailureKind
from ..models.failing import at_step, with_error
from ..presentation import durations, output
from ..presentation.errors import short_types
from . import base

Q = TypeVar("Q", bound="QuerySet[Any]")


def add_arguments(parser: CommandParser) -> None:
    """`--error` and `--step`."""
    parser.add_argument(
        "--error",
        metavar="CLASS",
        help=_("Only runs that failed with this exception: its name, or its dotted path."),
    )
    parser.add_argument(
        "--step",
        metavar="PATH",
        help=_("Only runs that this step has failed: order/charge for any item of a map, order#17/charge for one."),
    )


def is_given(options: dict[str, Any]) -> bool:
    """Whether one of the options was typed."""
    return options["error"] is not None or options["step"] is not None


def narrowed(runs: Q, options: dict[str, Any]) -> Q:
    """Those of the runs that the options choose."""
    if options["error"] is not None:
        runs = with_error(runs, options["error"])
    return runs if options["step"] is None else at_step(runs, options["step"])


def as_json(kinds: Sequence[FailureKind]) -> list[dict[str, Any]]:
    """The kinds for programs."""
    return [
        {
            "workflow": kind.workflow,
            "error_type": kind.error_type,
            "failed_step": kind.failed_step,
            "runs": kind.runs,
            "last_failed_at": clock.to_datetime(kind.last).isoformat(),
        }
        for kind in kinds
    ]


def lines(kinds: Sequence[FailureKind], width: int | None) -> list[str]:
    """A table of the kinds."""
    names = short_types(kind.error_type for kind in kinds)
    header = [_("RUNS"), _("WORKFLOW"), _("ERROR"), _("STEP"), _("LAST FAILED")]
    rows = [
        [
            str(kind.runs),
            kind.workflow,
            names[kind.error_type],
            kind.failed_step or "-",
            durations.short_moment(clock.to_datetime(kind.last)),
        ]
        for kind in kinds
    ]
    return output.table(header, rows, width, shrink=3)


def how_to_retry(kind: FailureKind, since: timedelta | None) -> str:
    """What to type to retry the runs of a kind; `since`: only what failed in this time."""
    chosen = ["--workflow", kind.workflow, "--error", kind.error_type, "--step", kind.failed_step]
    if since is not None:
        chosen += ["--since", to_text(since)]
    return _("Retry the first of them:   %(manage)s retryworkflows %(chosen)s") % {
        "manage": base.manage(),
        "chosen": shlex.join(chosen),
    }
