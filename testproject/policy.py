"""A strict Content-Security-Policy for the shop, so that its admin is always seen under one.

Django 6 brings a middleware for it; this one does the same for Django 5.2, with the nonce where `django-csp` has it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

POLICY = {
    "default-src": ["'self'"],
    "script-src": ["'self'", "<CSP_NONCE_SENTINEL>"],
    "style-src": ["'self'", "<CSP_NONCE_SENTINEL>"],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "frame-ancestors": ["'none'"],
    "form-action": ["'self'"],
}


def strict_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        request.csp_nonce = nonce = secrets.token_urlsafe(16)  # type: ignore[attr-defined]
        response = get_response(request)
        policy = "; ".join(f"{directive} {' '.join(sources)}" for directive, sources in POLICY.items())
        response.headers["Content-Security-Policy"] = policy.replace("<CSP_NONCE_SENTINEL>", f"'nonce-{nonce}'")
        return response

    return middleware
