"""The `DJANGO_STEPS` setting: defaults, and validation when a value is read.

Read lazily, so that `override_settings` works. `problems()` says which values are wrong, which the system
checks show; reading a wrong value raises `ImproperlyConfigured`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .durations import rate_interval, to_timedelta, to_timedelta_with_unit

NAME = "DJANGO_STEPS"
EXECUTORS = ("threads", "celery", "tasks")
REACTIONS = ("ignore", "warn", "fail")


def _count(minimum: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(f"must be a whole number of at least {minimum}, got {value!r}")
        return value

    return parse


def _duration(minimum: timedelta) -> Callable[[Any], timedelta]:
    def parse(value: Any) -> timedelta:
        duration = to_timedelta(value)
        if duration < minimum:
            raise ValueError(f"must be at least {minimum.total_seconds():g} seconds, got {value!r}")
        return duration

    return parse


def _retention(value: Any) -> timedelta | None:
    return None if value is None else _duration(timedelta(seconds=1))(to_timedelta_with_unit(value))


# The statuses of runs that have ended, each of which may be kept for a time of its own.
ENDS = ("succeeded", "failed", "canceled")


def to_retention(value: Any) -> dict[str, timedelta | None]:
    """How long runs that have ended are kept, by status; None: without limit. Those are left out of which nothing is said.

    `value` is a duration with a unit, for all; or a dict of durations, or None, by status. Raises `TypeError` or `ValueError`.

    >>> to_retention({"succeeded": "7d"})
    {'succeeded': datetime.timedelta(days=7)}
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return dict.fromkeys(ENDS, _retention(value))
    if unknown := [status for status in value if status not in ENDS]:
        known = ", ".join(map(repr, ENDS))
        raise ValueError(f"has a time for {unknown[0]!r}; what can be deleted are runs that have ended: {known}")
    try:
        return {status: _retention(value[status]) for status in ENDS if status in value}
    except (TypeError, ValueError) as error:
        raise type(error)(f"{value!r}: {error}") from None


def _base_url(value: Any) -> str | None:
    if value is None:
        return None
    hint = f"must be an address such as 'https://example.com', got {value!r}"
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(hint)
    try:
        parts = urlsplit(value)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or a bracket is missing
        is_address = False
    if not is_address:
        raise ValueError(hint)
    if parts.query or parts.fragment or value.endswith(("?", "#")):
        raise ValueError(f"must be an address without a query or fragment, got {value!r}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must be an address without a user name or password")
    return value.rstrip("/")


class QueueLimit(NamedTuple):
    """A limit of a queue: how many runs at once (None: any number), and the microseconds between two that begin."""

    at_once: int | None
    interval_us: int | None
    burst: int


def _queues(value: Any) -> dict[str, QueueLimit]:
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a dict of queues, got {value!r}")
    return {name: _queue(name, given) for name, given in value.items()}


def _queue(name: Any, given: Any) -> QueueLimit:
    what = f"{name!r} must be a dict such as {{'at_once': 10, 'rate': '100/m'}}, got {given!r}"
    if not isinstance(name, str) or not name or not isinstance(given, Mapping):
        raise ValueError(what)
    if not set(given) <= {"at_once", "rate", "burst"} or given.get("at_once") is given.get("rate") is None:
        raise ValueError(what)
    if "burst" in given and given.get("rate") is None:
        raise ValueError(f"{name!r}: burst goes with rate")
    try:
        at_once = None if given.get("at_once") is None else _count(1)(given["at_once"])
        interval = None if given.get("rate") is None else rate_interval(given["rate"])
        return QueueLimit(at_once, interval, _count(1)(given.get("burst", 1)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name!r}: {error}") from None


def _one_of(choices: Sequence[str]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(map(repr, choices))}, got {value!r}")
        return str(value)

    return parse


def _level(value: Any) -> int | None:
    if value is None:
        return None
    levels = logging.getLevelNamesMapping()
    if not isinstance(value, str) or not levels.get(value):  # NOTSET is none
        raise ValueError(f"must be the name of a level of logging, such as 'INFO', or None, got {value!r}")
    return levels[value]


# name: (default, parser)
_KNOWN: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "CONCURRENCY": (8, _count(1)),
    "ASYNC_CONCURRENCY": (1000, _count(1)),
    "POLL_INTERVAL": ("1s", _duration(timedelta(milliseconds=10))),
    "LEASE": ("30s", _duration(timedelta(seconds=1))),
    "INLINE_WAIT": ("1s", _duration(timedelta(0))),
    "MAX_RECOVERIES": (3, _count(0)),
    "MAX_VALUE_BYTES": (1024 * 1024, _count(1024)),
    "RETENTION": (None, to_retention),
    "BASE_URL": (None, _base_url),
    "EVENT_RETENTION": ("7d", _retention),
    "STEP_GRACE": ("30s", _duration(timedelta(0))),
    "CAPTURE_LOGS": ("INFO", _level),
    "QUEUES": ({}, _queues),
    "EXECUTOR": ("threads", _one_of(EXECUTORS)),
    "ON_CHANGED_ARGUMENTS": ("warn", _one_of(REACTIONS)),
}


def _given() -> Mapping[str, Any]:
    given = getattr(settings, NAME, {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"{NAME} must be a dict, got {type(given).__name__}.")
    return given


def _read(name: str) -> Any:
    default, parse = _KNOWN[name]
    try:
        return parse(_given().get(name, default))
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{NAME}[{name!r}]: {error}") from None


def problems() -> list[str]:
    """Everything that is wrong with the setting, a line each; empty where all is well."""
    try:
        given = _given()
    except ImproperlyConfigured as error:
        return [str(error)]
    known = ", ".join(sorted(_KNOWN))
    found = [f"{NAME} has an unknown key {key!r}; the known ones are {known}." for key in given if key not in _KNOWN]
    for name in _KNOWN:
        try:
            _read(name)
        except ImproperlyConfigured as error:
            found.append(str(error))
    return found


class Conf:
    """The values in force now; see the reference for what each means.

    `concurrency_given`: what the command line of this process says instead of the setting, while that is checked.
    """

    concurrency_given: int | None = None

    @contextmanager
    def given(self, *, concurrency: int | None) -> Iterator[None]:
        """Let the system checks look at what the command line of a worker says; None leaves it to the setting."""
        before, self.concurrency_given = self.concurrency_given, concurrency
        try:
            yield
        finally:
            self.concurrency_given = before

    @property
    def concurrency(self) -> int:
        return int(_read("CONCURRENCY"))

    @property
    def async_concurrency(self) -> int:
        return int(_read("ASYNC_CONCURRENCY"))

    @property
    def poll_interval(self) -> timedelta:
        value: timedelta = _read("POLL_INTERVAL")
        return value

    @property
    def lease(self) -> timedelta:
        value: timedelta = _read("LEASE")
        return value

    @property
    def inline_wait(self) -> timedelta:
        value: timedelta = _read("INLINE_WAIT")
        return value

    @property
    def max_recoveries(self) -> int:
        return int(_read("MAX_RECOVERIES"))

    @property
    def max_value_bytes(self) -> int:
        return int(_read("MAX_VALUE_BYTES"))

    @property
    def retention(self) -> dict[str, timedelta | None]:
        """How long finished runs are kept, by status; without those that nothing is said of."""
        value: dict[str, timedelta | None] = _read("RETENTION")
        return value

    @property
    def base_url(self) -> str | None:
        """Without a slash at its end."""
        value: str | None = _read("BASE_URL")
        return value

    @property
    def step_grace(self) -> timedelta:
        value: timedelta = _read("STEP_GRACE")
        return value

    @property
    def capture_logs(self) -> int | None:
        """The level from which log lines are kept with their runs; None: none are."""
        value: int | None = _read("CAPTURE_LOGS")
        return value

    @property
    def event_retention(self) -> timedelta | None:
        value: timedelta | None = _read("EVENT_RETENTION")
        return value

    @property
    def queues(self) -> dict[str, QueueLimit]:
        """The limits of queues, by their names; most projects have none."""
        if "QUEUES" not in _given():  # asked at each start
            return {}
        value: dict[str, QueueLimit] = _read("QUEUES")
        return value

    @property
    def executor(self) -> str:
        """One of `EXECUTORS`."""
        return str(_read("EXECUTOR"))

    @property
    def on_changed_arguments(self) -> str:
        """One of `REACTIONS`."""
        return str(_read("ON_CHANGED_ARGUMENTS"))


conf = Conf()
