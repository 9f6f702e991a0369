"""The test project's pages: the admin, and what others outside answer by."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("shop/", include("testproject.shop.urls")),
    path("workflows/", include("django_steps.urls")),
    path("monitoring/", include("django_steps.monitoring.urls")),
]
