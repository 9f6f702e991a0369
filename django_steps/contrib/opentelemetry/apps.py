"""The app: from when it is loaded on, the runs that this process starts carry its traces, and passes have spans."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _


class DjangoStepsOpenTelemetryConfig(AppConfig):
    """django_steps.contrib.opentelemetry."""

    name = "django_steps.contrib.opentelemetry"
    label = "django_steps_opentelemetry"
    verbose_name = _("Traces of workflows")

    def ready(self) -> None:
        try:
            import opentelemetry.trace  # noqa: F401
        except ModuleNotFoundError as error:
            raise ImproperlyConfigured(
                f"{self.name} needs the package opentelemetry-api: pip install 'django-steps[opentelemetry]'"
            ) from error
        from . import tracing

        tracing.install()
