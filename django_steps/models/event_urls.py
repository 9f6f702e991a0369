"""Addresses by which somebody outside sends an event to a run: made by `run.event_url()`, read by `callbacks`.

All that an address says is in its token, which is signed with the SECRET_KEY: nothing is stored. The token of the same run,
event and payload is always the same, so that every pass of a body comes to the same address.
"""

from __future__ import annotations

import base64
import binascii
import enum
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signing import BadSignature, Signer
from django.urls import NoReverseMatch, get_script_prefix, reverse

from .. import values
from ..conf import conf
from ..core.event import check_event_name
from ..core.names import MAX_LENGTH
from ..errors import ValueTooLarge

ROUTE = "django_steps:event"
# Characters: servers take request lines of at least 4,094.
LONGEST_TOKEN = 3500
_SALT = "django_steps.event_url"
_ID_BYTES = 16
_MANY, _HAS_PAYLOAD = 1, 2
_AFTER_NAME = b"\0"  # no name has it

_NO_BASE_URL = (
    'Set DJANGO_STEPS["BASE_URL"] to where the root of your URLconf is reached from outside, such as '
    '"https://example.com": run.event_url() needs it.'
)
_NO_ROUTE = (
    'Add path("workflows/", include("django_steps.urls")) to the urlpatterns of {urlconf}, outside of other namespaces: '
    "run.event_url() makes addresses of it."
)


class BadToken(Exception):
    """A token that no key of this project has signed, or that says what this version doesn't understand."""


class NotGiven(enum.Enum):
    """What stands for a payload that was not given, since None is one."""

    NOT_GIVEN = "NOT_GIVEN"

    def __repr__(self) -> str:
        return self.name


NOT_GIVEN: Final = NotGiven.NOT_GIVEN


@dataclass(frozen=True, slots=True)
class Callback:
    """What a token says. `payload_text`: the signed payload as it is recorded, or None: whoever answers gives one."""

    run_id: UUID
    event: str
    is_many: bool = False
    payload_text: str | None = None

    @property
    def event_id(self) -> str | None:
        """The id of the event that is sent, the same for all addresses of one run and event name; None: any number may come."""
        if self.is_many:
            return None
        # With the run: the runs that continue each other share a key, and so the ids of events.
        whole = f"callback:{self.run_id.hex}:{self.event}"
        if len(whole) > MAX_LENGTH:
            whole = f"callback:{self.run_id.hex}:{sha256(self.event.encode()).hexdigest()}"
        return whole

    def token(self) -> str:
        """The signed token."""
        flags = (_MANY if self.is_many else 0) | (_HAS_PAYLOAD if self.payload_text is not None else 0)
        content = bytes([flags]) + self.run_id.bytes + self.event.encode()
        if self.payload_text is not None:
            content += _AFTER_NAME + self.payload_text.encode()
        return _signer().sign(base64.urlsafe_b64encode(content).decode().rstrip("="))


def read_token(token: str) -> Callback:
    """What a token says; raises `BadToken` for one that is not signed by a key of this project."""
    try:
        text = _signer().unsign(token)
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        flags, run_id, rest = content[0], UUID(bytes=content[1 : 1 + _ID_BYTES]), content[1 + _ID_BYTES :]
        name, separator, payload = rest.partition(_AFTER_NAME)
        has_payload = bool(flags & _HAS_PAYLOAD)
        if flags & ~(_MANY | _HAS_PAYLOAD) or has_payload != bool(separator) or not name:
            raise BadToken
        return Callback(run_id, name.decode(), bool(flags & _MANY), payload.decode() if has_payload else None)
    except (BadSignature, binascii.Error, IndexError, ValueError):
        raise BadToken from None


class EventUrls:
    """The addresses of a run, as a mixin of the model."""

    if TYPE_CHECKING:
        pk: UUID

    def event_url(self, name: str, payload: Any = NOT_GIVEN, *, many: bool = False) -> str:
        """The address at which somebody outside, with nothing but it, sends the event `name` to this run.

        It is signed, nothing is stored for it, and it is the same on every pass. Opened in a browser it shows a page that asks;
        only a POST sends. With `payload` that is what is sent, readable in the address for whoever has it; without, whoever
        answers says it, in a form or as JSON.

        The first answer counts: all addresses of one run and event name are used up with it. `many=True`: any number does.
        After the end of the run they are of no use.

        Raises `ImproperlyConfigured` without `DJANGO_STEPS["BASE_URL"]` or `django_steps.urls`, `InvalidName`,
        `UnserializableValue`, and `ValueTooLarge` for a payload that makes the address longer than servers take.

        >>> run.event_url("approval", {"ok": True})  # doctest: +SKIP
        'https://example.com/workflows/events/AgGQ…/'
        """
        check_event_name(name)
        text = None if payload is NOT_GIVEN else values.encode(payload)
        token = Callback(self.pk, name, many, text).token()
        if len(token) > LONGEST_TOKEN:
            raise ValueTooLarge(
                f"The address of event {name!r} would be longer than servers take: sign less than about 2,000 bytes of "
                "payload, such as the id of a row that has the rest."
            )
        return _address(token)


def _address(token: str) -> str:
    base = conf.base_url
    if base is None:
        raise ImproperlyConfigured(_NO_BASE_URL)
    urlconf = settings.ROOT_URLCONF  # not that of a request: a worker has none
    try:
        path = reverse(ROUTE, urlconf=urlconf, args=[token])
    except NoReverseMatch:
        raise ImproperlyConfigured(_NO_ROUTE.format(urlconf=urlconf)) from None
    return f"{base}/{path.removeprefix(get_script_prefix())}"


def _signer() -> Signer:
    return Signer(salt=_SALT, sep=".")
