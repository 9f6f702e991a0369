"""What a project includes for callbacks: `path("workflows/", include("django_steps.urls"))`. Nothing else is served."""

from __future__ import annotations

from django.urls import path

from .callbacks.views import event

app_name = "django_steps"
urlpatterns = [
    path("events/<str:token>/", event, name="event"),
    # A program that cuts off the slash would be redirected, and its POST become a GET.
    path("events/<str:token>", event),
]
