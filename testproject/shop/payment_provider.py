"""What a payment provider does besides answering: it calls the shop when a customer has paid, and more than once.

Its own address is that of `FlakyApi`, where the shop opens a checkout. It is for the demo, the tests and trying things
out locally.
"""

from __future__ import annotations

import itertools
import json
import time
import urllib.error
import urllib.request
from http import HTTPStatus

from .flaky_api import FlakyApi
from .payments import sign

_TIMEOUT = 30  # seconds


class PaymentProvider:
    """Calls the address that a checkout names, over HTTP:

        provider = PaymentProvider(api)
        assert provider.pay("order-7") == 200       # the customer pays, and the provider calls the shop
        assert provider.call_again("order-7") == 200    # it saw no answer, and says the same once more

    What is returned is the status of the shop's answer.
    """

    def __init__(self, api: FlakyApi) -> None:
        self._api = api
        self._numbers = itertools.count(1)
        self._said: dict[str, bytes] = {}

    def open_checkout(self, order: str, amount: str, notify: str) -> None:
        """What the shop does over HTTP: for a checkout that was opened before the shop knew of the order."""
        self._api.answer(f"/checkouts/{order}", "", {"amount": amount, "notify": notify})

    def pay(self, order: str) -> int:
        """The customer of this checkout pays."""
        return self._say(order, "payment.succeeded")

    def decline(self, order: str) -> int:
        """The customer's bank declines."""
        return self._say(order, "payment.declined")

    def call_again(self, order: str) -> int:
        """Says what was said last of this checkout, with the same id."""
        return self._call(order, self._said[order])

    def _say(self, order: str, what: str) -> int:
        amount = self._api.body(f"/checkouts/{order}")["amount"]
        notice = {"id": f"evt_{next(self._numbers)}", "type": what, "order": order, "amount": amount}
        self._said[order] = json.dumps(notice).encode()
        return self.call_again(order)

    def _call(self, order: str, body: bytes) -> int:
        url = self._api.body(f"/checkouts/{order}")["notify"]
        headers = {"Content-Type": "application/json", "Payment-Signature": sign(body, int(time.time()))}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=_TIMEOUT) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return HTTPStatus.SERVICE_UNAVAILABLE  # the shop can't be reached
