"""`manage.py backfillschedule`: starts the runs of a schedule that are missing for a time in the past."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import datetime
from itertools import islice, takewhile
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...core import clock, schedules
from ...core.schedules import Timing, slot_key
from ...definitions import scheduling
from ...ledger import database, inserts
from ...ledger import schedules as ledger
from ...models import WorkflowSchedule
from .. import base

_MOST = 10_000
_CHUNK = 500


class Command(base.WorkflowCommand):
    help = gettext_lazy("Start the runs of a schedule that are missing for a time in the past.")
    epilog = gettext_lazy(
        "examples:\n"
        "  backfillschedule nightly --from 2026-11-01 --to 2026-11-08 --dry-run\n"
        "  backfillschedule hourly --from 2026-11-07T12:00 --to 2026-11-07T18:00\n"
        "\n"
        "Times are those of the schedule's time zone. A time that has a run gets no second one. The runs begin at once, as\n"
        "far as workers and limits allow; each says by scheduled_for which time it is for.\n"
        "exit codes: 0 started, or nothing was missing; 1 not found, disabled, or a time is wrong\n"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help=_("The schedule."))
        parser.add_argument(
            "--from", dest="start", type=moment, required=True, metavar="TIME", help=_("The first time, included.")
        )
        parser.add_argument(
            "--to", dest="end", type=moment, required=True, metavar="TIME", help=_("The end, excluded.")
        )
        parser.add_argument("--dry-run", action="store_true", help=_("Only show what would be started."))

    def carry_out(self, **options: Any) -> None:
        connection = base.connection()
        row = ledger.read(connection, options["name"])
        found = WorkflowSchedule.objects.using(connection.alias).filter(name=options["name"]).first()
        if row is None or found is None:
            raise CommandError(_("There is no schedule with the name %(name)r.") % {"name": options["name"]})
        if found.is_disabled:
            raise CommandError(
                _("Schedule %(name)r is disabled: %(reason)s") % {"name": found.name, "reason": found.disabled_reason}
            )
        timing = row.timing()
        zone = schedules.zone_of(timing.zone)
        start, end = (_in_zone(options[name], zone) for name in ("start", "end"))
        if end > database.read_clock(connection):
            raise CommandError(_("--to lies in the future: what is to come, the schedule starts by itself."))
        slots = _slots(timing, start, end)
        keys = {slot_key(row.name, slot): slot for slot in slots}
        taken = inserts.ids_by_key(connection, row.workflow, list(keys))
        missing = [(slot, key) for key, slot in keys.items() if key not in taken]
        if not options["dry_run"]:
            target = scheduling.targets().get(row.workflow)
            for first in range(0, len(missing), _CHUNK):
                chunk = missing[first : first + _CHUNK]
                ledger.start(connection, [row.new_run(slot, target, key=key) for slot, key in chunk])
        self.show(slots, {slot for slot, _key in missing}, zone, is_dry=options["dry_run"])

    def show(self, slots: list[int], missing: set[int], zone: Any, *, is_dry: bool) -> None:
        done = _("would be started") if is_dry else _("started")
        for slot in slots:
            text = done if slot in missing else _("has a run")
            self.stdout.write(f"{schedules.moment(slot, zone):%Y-%m-%d %H:%M:%S %Z}  {text}")
        text = _("%(count)d of %(all)d: %(done)s.") % {"count": len(missing), "all": len(slots), "done": done}
        self.stdout.write(text)


def moment(text: str) -> datetime:
    """A day or a time, with a zone or without."""
    try:
        found = parse_datetime(text)
        day = parse_date(text) if found is None else None
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    if day is not None:
        found = datetime(day.year, day.month, day.day)
    if found is None:
        raise ArgumentTypeError(_("%(text)r is no time; write 2026-11-01 or 2026-11-01T02:30") % {"text": text})
    return found


def _in_zone(value: datetime, zone: Any) -> int:
    aware = value if timezone.is_aware(value) else value.replace(tzinfo=zone)
    return clock.aware_to_microseconds(aware)


def _slots(timing: Timing, start: int, end: int) -> list[int]:
    found = list(islice(takewhile(lambda slot: slot < end, timing.slots(start - 1)), _MOST + 1))
    if len(found) > _MOST:
        raise CommandError(_("These are more than %(most)d times. Give a shorter time.") % {"most": _MOST})
    return found
