"""The app: finds the `workflows` modules of all installed apps and registers the checks."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig, apps
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import module_has_submodule
from django.utils.translation import gettext_lazy as _


class DjangoStepsConfig(AppConfig):
    """django_steps."""

    name = "django_steps"
    verbose_name = _("Workflows")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks

        checks.register()
        for config in apps.get_app_configs():
            if config.module is not None and module_has_submodule(config.module, "workflows"):
                _import(f"{config.name}.workflows")


def _import(module: str) -> None:
    try:
        import_module(module)
    except Exception as error:
        raise ImproperlyConfigured(f"{module} can't be imported: {type(error).__name__}: {error}") from error
