"""`manage.py demo`: the shop's workflows with real workers, two kills, a retry, 200 async runs at once, and an approval.

It wants an empty database of its own; `make demo` makes one.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from django_steps.models import WorkflowRun

from ...demo.display import choose_display
from ...demo.story import Story
from ...demo.website import Website
from ...flaky_api import FlakyApi
from ...models import Customer


class Command(BaseCommand):
    help = "Shows the shop's workflows in action, on an empty database: failures, killed workers, an approval."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--logs", type=Path, default=Path(), help="Where the workers' logs go (default: here).")

    def handle(self, *args: Any, logs: Path, **options: Any) -> None:
        began = time.monotonic()
        call_command("migrate", verbosity=0)
        if WorkflowRun.objects.exists() or Customer.objects.exists():
            raise CommandError("The demo wants an empty database, and this one holds data. Use `make demo`.")

        display = choose_display()
        display.heading("django_steps: the workflows of a small shop")
        display.say(f"Database: {connection.display_name} {connection.settings_dict['NAME']}")
        try:
            with FlakyApi() as api, Website() as website:
                settings.SHOP_API_URL, settings.SHOP_URL = api.url, website.url
                settings.DJANGO_STEPS = {**settings.DJANGO_STEPS, "BASE_URL": website.url}
                broken = Story(display, api, logs).tell()
        except KeyboardInterrupt:
            raise CommandError("Interrupted.") from None
        finally:
            display.close()

        seconds = time.monotonic() - began
        if broken:
            raise CommandError(f"After {seconds:.0f} s, this did not hold: {'; '.join(broken)}")
        self.stdout.write(f"\nEverything held ({seconds:.0f} s).")
