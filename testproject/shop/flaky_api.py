"""The services outside, as a real HTTP server on localhost that fails when it is told to.

It stands for a payment provider, a carrier, a partner's API and a push service, and counts what it was asked and what it did.
It is for the demo, the tests and trying things out locally; it keeps everything in memory and protects nothing.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FlakyApi:
    """Serves while it is open; every path is a key of its own.

        with FlakyApi() as api:
            api.fail("/purchases/7", times=2, status=503)   # the first two calls fail, then it works
            ...
            assert api.calls("/purchases/7") == 3

    `GET /purchases/<customer>` answers that customer's purchases; `/demand/<product>` how many of it are wanted,
    `/offers/<supplier>/<product>` and `/prices/<product>` what it costs. A `POST` to any path takes effect once per
    `Idempotency-Key` header (each time without one): `/charges/<order>`, `/checkouts/<order>`, `/parcels/<code>`,
    `/push/<device>`, `/jobs/<name>`, `/purchase-orders/<product>`. (`payment_provider.py` calls back for a checkout.)
    """

    def __init__(self, port: int = 0) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._failures: dict[str, list[int]] = {}
        self._held: dict[str, Hold] = {}
        self._answers: dict[tuple[str, str], Any] = {}
        self._effects: Counter[str] = Counter()
        self._bodies: dict[str, Any] = {}
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.api = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FlakyApi:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="flaky-api").start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for hold in list(self._held.values()):
            hold.release()
        self._server.shutdown()
        self._server.server_close()

    def fail(self, path: str, times: int, status: int = 503) -> None:
        """The next `times` calls of `path` are answered with `status` and have no effect."""
        with self._lock:
            self._failures[path] = [status] * times

    def hold(self, path: str) -> Hold:
        """The next call of `path` takes effect, but its answer waits until the returned object is released."""
        with self._lock:
            self._held[path] = Hold()
            return self._held[path]

    def calls(self, path: str) -> int:
        """How often `path` was called, failed calls included."""
        with self._lock:
            return self._calls[path]

    def effects(self, path: str) -> int:
        """How often a call of `path` did something: a second one with the same idempotency key doesn't."""
        with self._lock:
            return self._effects[path]

    def body(self, path: str) -> Any:
        """What the last `POST` to `path` that took effect has sent."""
        with self._lock:
            return self._bodies[path]

    def answer(self, path: str, idempotency_key: str | None, sent: Any = None) -> tuple[int, Any]:
        """Status and body for one call. `idempotency_key` is None for a GET, and "" for a POST without one."""
        with self._lock:
            self._calls[path] += 1
            if failures := self._failures.get(path):
                return failures.pop(), {"error": "try again later"}
            body = self._found(path) if idempotency_key is None else self._take_effect(path, idempotency_key, sent)
            hold = self._held.get(path)
            if hold and not hold.take():
                hold = None
        if hold:
            hold.wait()
        return 200, body

    def _found(self, path: str) -> Any:
        kind, first, *_ = path.strip("/").split("/")
        if kind == "demand":
            return {"pieces": 20}
        if kind == "offers":
            return {"price": f"{3 + int(first) % 3}.50"}
        if kind == "prices":
            return {"price": "9.00"}
        return [
            {"ref": f"P-{first}-{number}", "sum": f" {number}0.50 EUR", "day": f"2026-0{1 + number // 2}-15"}
            for number in (1, 2, 3)
        ]

    def _take_effect(self, path: str, idempotency_key: str, sent: Any) -> Any:
        known = self._answers.get((path, idempotency_key)) if idempotency_key else None
        if known:
            return known
        self._effects[path] += 1
        self._bodies[path] = sent
        answer = {"id": f"{path.strip('/').replace('/', '-')}-{self._effects[path]}"}
        self._answers[path, idempotency_key] = answer
        return answer


class Hold:
    """One answer that is waiting to be sent."""

    def __init__(self) -> None:
        self._arrived, self._released = threading.Event(), threading.Event()

    @property
    def has_call(self) -> bool:
        return self._arrived.is_set()

    def wait_for_call(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds for the call to arrive, and says whether it did."""
        return self._arrived.wait(timeout)

    def take(self) -> bool:
        """Whether this call is the first, the one to be held."""
        is_first = not self.has_call
        self._arrived.set()
        return is_first

    def wait(self) -> None:
        self._released.wait(timeout=60)

    def release(self) -> None:
        self._released.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # calls that come at once
    block_on_close = False
    api: FlakyApi


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._send(*self.server.api.answer(self.path, None))

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        self._send(*self.server.api.answer(self.path, self.headers.get("Idempotency-Key", ""), sent))

    def _send(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            self.close_connection = True  # the caller was killed while it waited for the answer

    def log_message(self, format: str, *args: Any) -> None:
        """The counters tell more than lines on stderr would."""
