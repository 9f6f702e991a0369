"""The nonce of a Content-Security-Policy for the one filter that has its script and style inline."""

from __future__ import annotations

from django.http import HttpRequest


def lend_nonce(request: HttpRequest) -> None:
    """Give `rangefilter` the nonce of Django's middleware where it looks for that of `django-csp`."""
    if hasattr(request, "csp_nonce"):
        return
    try:
        from django.middleware.csp import get_nonce
    except ImportError:  # Django 5.2 has no such middleware
        return
    nonce = get_nonce(request)
    if nonce is not None:
        request.csp_nonce = nonce  # type: ignore[attr-defined]
