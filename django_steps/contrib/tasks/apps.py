"""The app: what is missing shows when it is loaded."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DjangoStepsTasksConfig(AppConfig):
    """django_steps.contrib.tasks."""

    name = "django_steps.contrib.tasks"
    label = "django_steps_tasks"
    verbose_name = _("Workflows on django.tasks")

    def ready(self) -> None:
        from . import tasks  # noqa: F401
