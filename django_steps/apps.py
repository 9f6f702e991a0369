"""The app: finds the `workflows` modules of all installed apps and registers the checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class DjangoStepsConfig(AppConfig):
    """django_steps."""

    name = "django_steps"
    verbose_name = _("Workflows")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks

        checks.register()
        autodiscover_modules("workflows")
