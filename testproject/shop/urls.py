"""The shop's own addresses."""

from django.urls import path

from .views import order_status, payment_notice

urlpatterns = [
    path("orders/<int:order_id>/", order_status, name="order_status"),
    path("payments/", payment_notice, name="payment_notice"),
]
