"""Django's settings for the drivers of alternatives that are Django apps."""

from __future__ import annotations

from typing import Any

import django
import protocol
from django.conf import settings


def set_up(apps: list[str], backend: dict[str, Any]) -> None:
    """Configure a project with these apps and this backend of tasks."""
    place = protocol.database()
    database: dict[str, Any] = (
        {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": place["path"],
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 30,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
        if "path" in place
        else {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": place["host"],
            "PORT": place["port"],
            "USER": place["user"],
            "NAME": place["name"],
            "CONN_MAX_AGE": None,
        }
    )
    settings.configure(
        SECRET_KEY="only-for-benchmarks",
        USE_TZ=True,
        ROOT_URLCONF=None,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DATABASES={"default": database},
        INSTALLED_APPS=apps,
        TASKS={"default": backend},
    )
    django.setup()
