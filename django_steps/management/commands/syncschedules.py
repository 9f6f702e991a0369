"""`manage.py syncschedules`: writes the schedules of the code into the database, as workers do when they start."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...definitions import scheduling
from .. import base


class Command(base.WorkflowCommand):
    help = gettext_lazy(
        "Write the schedules of the code into the database. Workers do so when they start; this brings back an earlier"
        " definition, too."
    )
    epilog = gettext_lazy(
        "A schedule that somebody has paused stays paused. A schedule that the code has no more is disabled once no live\n"
        "worker has it either.\n"
        "exit codes: 0 written, 1 a schedule is wrong, or its name is taken by a row of the database\n"
    )

    def carry_out(self, **options: Any) -> None:
        synced = scheduling.sync(base.connection().alias, also_old=True)
        synced.disabled = scheduling.disable_unknown(base.connection().alias)
        words = {
            "created": _("created"),
            "changed": _("changed"),
            "enabled": _("enabled again"),
            "disabled": _("disabled"),
        }
        for kind, word in words.items():
            for name in getattr(synced, kind):
                self.stdout.write(f"{name}: {word}")
        if not any(getattr(synced, kind) for kind in words):
            self.stdout.write(_("Nothing has changed."))
        problems = [f"{name}: {what}" for name, what in synced.invalid.items()]
        problems += [_("%(name)s: the name is taken by a row of the database") % {"name": n} for n in synced.taken]
        if problems:
            raise CommandError("\n".join(problems))
