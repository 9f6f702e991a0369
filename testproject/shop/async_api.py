"""The client of `api.py` for code on an event loop: a call that waits for its answer holds a socket, and no thread.

It is plain asyncio, so that the shop needs no further package. With httpx it would be `await client.get(url)`.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from .api import TIMEOUT, ApiError


async def get(path: str) -> Any:
    return await _send("GET", path)


async def post(path: str, body: dict[str, Any], *, idempotency_key: str = "") -> Any:
    """As `api.post()`."""
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    return await _send("POST", path, json.dumps(body).encode(), headers)


async def _send(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
    url = urlsplit(settings.SHOP_API_URL)
    fields = {"Host": url.netloc, "Content-Length": str(len(body)), **(headers or {})}
    lines = [f"{method} {path} HTTP/1.0", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    try:
        async with asyncio.timeout(TIMEOUT):
            answer = await _exchange(url.hostname or "", url.port or 80, "\r\n".join(lines).encode() + body)
    except OSError:  # TimeoutError is one
        raise ApiError(path, 0) from None
    head, _, content = answer.partition(b"\r\n\r\n")
    if not head:
        raise ApiError(path, 0)
    status = int(head.split()[1])
    if status != HTTPStatus.OK:
        raise ApiError(path, status)
    return json.loads(content)


async def _exchange(host: str, port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        return await reader.read()  # to the end: the server closes the connection after its answer
    finally:
        writer.close()
