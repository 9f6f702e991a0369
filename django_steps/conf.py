"""The `DJANGO_STEPS` setting: defaults, and validation when a value is read.

Read lazily, so that `override_settings` works. `problems()` says which values are wrong, which the system
checks show; reading a wrong value raises `ImproperlyConfigured`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .durations import to_timedelta, to_timedelta_with_unit

NAME = "DJANGO_STEPS"


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


# name: (default, parser)
_KNOWN: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "CONCURRENCY": (8, _count(1)),
    "POLL_INTERVAL": ("1s", _duration(timedelta(milliseconds=10))),
    "LEASE": ("30s", _duration(timedelta(seconds=1))),
    "INLINE_WAIT": ("1s", _duration(timedelta(0))),
    "MAX_RECOVERIES": (3, _count(0)),
    "MAX_VALUE_BYTES": (1024 * 1024, _count(1024)),
    "RETENTION": (None, _retention),
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
    def retention(self) -> timedelta | None:
        value: timedelta | None = _read("RETENTION")
        return value


conf = Conf()
