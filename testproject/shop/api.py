"""The shop's HTTP client for the services outside: payments, the carrier, the partner's purchases, push messages.

It knows how to call them and how they fail. What the calls are good for is in `services.py`.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from django.conf import settings

TIMEOUT = 30  # seconds


class ApiError(Exception):
    """The service answered with an error, or not at all (then `status` is 0)."""

    def __init__(self, path: str, status: int) -> None:
        self.path, self.status = path, status
        super().__init__(path, status)

    def __str__(self) -> str:
        return f"{self.path} answered {self.status}" if self.status else f"{self.path} couldn't be reached"


def get(path: str) -> Any:
    return _send(path)


def post(path: str, body: dict[str, Any], *, idempotency_key: str = "") -> Any:
    """A service that has seen the idempotency key before gives its first answer again, and does nothing."""
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    return _send(path, json.dumps(body).encode(), headers)


def _send(path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(settings.SHOP_API_URL + path, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        error.close()
        raise ApiError(path, error.code) from None
    except OSError:
        raise ApiError(path, 0) from None
