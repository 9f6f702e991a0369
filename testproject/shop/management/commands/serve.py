"""`manage.py serve`: the shop on this machine, with sample data, a worker and the admin, until Ctrl-C.

For looking around locally, and nothing else: everybody may log in as admin.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_steps.models import WorkflowSchedule

from ... import samples
from ...flaky_api import FlakyApi
from ...models import Customer, Service
from ...workflows import onboard_user


class Command(BaseCommand):
    help = "Serves the shop's admin on this machine, with sample data and a worker. Only for local use (DEBUG=1)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, port: int, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("This creates a user admin with the password admin, so it runs only with DEBUG=1.")
        refuse_taken(port)
        call_command("migrate", verbosity=0)
        if not get_user_model().objects.filter(username="admin").exists():
            get_user_model().objects.create_superuser("admin", "admin@example.com", "admin")

        with FlakyApi() as api:
            if not Customer.objects.exists():
                self.start_samples(api)
            start_schedules()
            self.stdout.write(f"http://127.0.0.1:{port}/admin/   user admin, password admin   (Ctrl-C ends it)")
            self.run_servers(port, api)

    def start_samples(self, api: FlakyApi) -> None:
        """Runs of every kind; the mail service is off and a parcel is refused, so that there are failed ones to retry."""
        samples.create_catalogue()
        samples.switch(Service.Name.MAIL, on=False)
        samples.switch(Service.Name.PUSH, on=True)
        ada, grace, *_ = Customer.objects.order_by("pk")
        api.fail("/jobs/stocktaking", times=2)
        samples.start_order(ada)
        samples.start_order(grace, quantity=20)
        samples.start_sale(ada)  # waits for its payment
        samples.start_sale(grace, "samovar-1", quantity=1)  # waits for an approval
        samples.start_notifications()
        samples.start_others(ada, grace)
        samples.start_shipping(ada, *(f"A-{number}" for number in range(1, 25)))
        api.fail("/parcels/G-3", times=2)  # as often as it is tried: a retry of the run succeeds
        samples.start_shipping(grace, *(f"G-{number}" for number in range(1, 7)))
        samples.start_restocking("mug-1", *samples.stickers()[:3], delivery="10m")
        onboard_user.start({"user_id": grace.pk})

    def run_servers(self, port: int, api: FlakyApi) -> None:
        manage = [sys.executable, str(settings.BASE_DIR / "manage.py")]
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the servers, too
        environment = {**os.environ, "SHOP_API_URL": api.url, "SHOP_URL": f"http://127.0.0.1:{port}"}
        servers = [
            subprocess.Popen([*manage, "runworkflows"], env=environment),
            subprocess.Popen([*manage, "runserver", "--noreload", f"127.0.0.1:{port}"], env=environment),
        ]
        code = 0
        try:
            code = servers[1].wait()
        except KeyboardInterrupt:
            self.stdout.write("Stopping")
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait()
        if code:
            sys.exit(1)


def start_schedules() -> None:
    """A schedule to watch, one for the night, and one that somebody has paused."""
    made = WorkflowSchedule.objects
    if made.exists():
        return
    made.create(name="look for files", workflow="import_nightly", every="10s", missed="skip")
    made.create(
        name="import_nightly", workflow="import_nightly", cron="30 2 * * *", timezone="Europe/Berlin", spread="10m"
    )
    paused = made.create(
        name="import on Mondays", workflow="import_nightly", cron="0 7 * * 1", timezone="Australia/Sydney"
    )
    paused.pause("the supplier is on holiday", by="eve")


def refuse_taken(port: int) -> None:
    """`CommandError` if somebody else listens on the port: said before anything is set up."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            hint = f"Is this running already? Otherwise say --port {port + 1}."
            raise CommandError(f"Port {port} of 127.0.0.1 can't be used ({error.strerror}). {hint}") from None
