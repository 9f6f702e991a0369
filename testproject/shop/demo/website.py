"""The shop's website for the demo, on a free port of this machine; and how somebody outside opens its pages."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from wsgiref.simple_server import WSGIRequestHandler

from django.core.servers.basehttp import ThreadedWSGIServer, get_internal_wsgi_application

_HEADING = re.compile(r"<h1>(.*?)</h1>")
_TIMEOUT = 30  # seconds


class Website:
    """Serves while it is open, in threads of this process."""

    def __init__(self) -> None:
        self._server = ThreadedWSGIServer(("127.0.0.1", 0), _QuietHandler)
        self._server.set_app(get_internal_wsgi_application())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Website:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="website").start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """The demo says what is opened."""


@dataclass
class Page:
    status: int
    heading: str


def visit(url: str, **fields: str) -> Page:
    """Opens a page as a browser does; with fields it sends them by POST, as the page's form does."""
    body = urllib.parse.urlencode(fields).encode() if fields else None
    request = urllib.request.Request(url, body, {"Accept": "text/html"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            status, content = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, content = error.code, error.read()
    found = _HEADING.search(content.decode())
    return Page(status, found[1] if found else "")
