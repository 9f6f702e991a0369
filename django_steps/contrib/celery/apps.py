"""The app: registers the task with the current Celery app."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DjangoStepsCeleryConfig(AppConfig):
    """django_steps.contrib.celery."""

    name = "django_steps.contrib.celery"
    label = "django_steps_celery"
    verbose_name = _("Workflows on Celery")

    def ready(self) -> None:
        from . import process, tasks  # noqa: F401  (the import registers the task)

        process.connect()
