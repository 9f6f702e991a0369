"""What a project includes for its monitoring: `path("monitoring/", include("django_steps.monitoring.urls"))`."""

from __future__ import annotations

from django.urls import path

from .views import health, metrics

app_name = "django_steps_monitoring"
urlpatterns = [
    path("health/", health, name="health"),
    path("metrics/", metrics, name="metrics"),
]
