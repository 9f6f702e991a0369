"""The shop's pages: what customers ask of their orders, and where the payment provider calls."""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from django_steps import RunFinished
from django_steps.models import WorkflowRun

from .payments import BadNotice, read_notice
from .workflows import take_order

# What the shop calls the provider's notices; it has no use for others.
EVENTS = {"payment.succeeded": "paid", "payment.declined": "declined"}


@require_safe
def order_status(request: HttpRequest, order_id: int) -> JsonResponse:
    """Where an order is, as its run says it."""
    run = get_object_or_404(WorkflowRun, workflow=take_order.name, key=f"order-{order_id}")
    return JsonResponse({"has_ended": run.is_finished, **run.details})


@csrf_exempt  # the signature says who calls
@require_POST
def payment_notice(request: HttpRequest) -> HttpResponse:
    """Sends a notice of the payment provider to the run of the order, whether that waits for it already, or not yet.

    The provider calls again until it gets 200, and the id of its notice makes that harmless.
    """
    try:
        notice = read_notice(request.body, request.headers.get("Payment-Signature", ""))
    except BadNotice:
        return HttpResponse(status=HTTPStatus.FORBIDDEN)
    if notice.type in EVENTS:
        # RunFinished: the order is done, and waits for nothing more. Calling again wouldn't help.
        with suppress(RunFinished):
            take_order.send_event(
                EVENTS[notice.type], {"amount": notice.amount}, key=notice.order, id=notice.id, by="payment provider"
            )
    return HttpResponse(status=HTTPStatus.OK)
