"""What to do about a value that can't be recorded: one sentence for each kind that people run into.

Whether a value can be recorded is decided elsewhere.
"""

from __future__ import annotations

import inspect
import io
import pathlib
from collections import deque
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.core.files import File
from django.db.models import Manager, Model, QuerySet
from django.http import HttpResponseBase, QueryDict
from django.utils.functional import LazyObject, Promise

_ADVICE: list[tuple[Any, str]] = [
    (QuerySet, "it is a query, not its rows: use list(queryset.values(…)), or the primary keys."),
    (Manager, "use the rows or their primary keys."),
    (type, "a class is code: use its name."),
    (Promise, "it is a lazy translation, read anew in each language: use str(value)."),
    (Model, "use its values."),
    (BaseException, "raise it, or use str(error)."),
    (QueryDict, "use value.dict(), or dict(value.lists())."),
    (HttpResponseBase, "use what you need of it: the status code, the content."),
    ((File, io.IOBase), "store it, and use its name."),
    (pathlib.PurePath, "use str(path)."),
    ((bytearray, memoryview), "use bytes(value)."),
    (str, "it is a subclass of str: use str(value), or value.value of an enum."),
    (int, "it is a subclass of int: use int(value)."),
    (float, "it is a subclass of float: use float(value)."),
    (Decimal, "it is a subclass of Decimal: use Decimal(value)."),
    (Mapping, "use dict(value)."),
    (list, "it is a subclass of list: use list(value)."),
    (tuple, "it is a subclass of tuple: use tuple(value)."),
    ((set, frozenset), "it is a subclass of a set: use set(value)."),
    ((range, deque, KeysView, ValuesView, ItemsView), "use list(value)."),
    (datetime, "it is a subclass of datetime: use datetime.fromisoformat(value.isoformat())."),
    ((date, timedelta), "it is a subclass: use the plain type of the standard library."),
    (complex, "use (value.real, value.imag)."),
    (Iterator, "it can be read only once: use list(value)."),
]
_OTHERWISE = "use plain data (a dict, a dataclass …), or store it and use a reference such as a primary key."


def advice(value: Any) -> str:
    """What to use instead of the value, as the end of a sentence."""
    if issubclass(type(value), LazyObject):  # isinstance() on others would evaluate it
        return "it is a lazy object: use what it stands for."
    if inspect.isawaitable(value):
        return "it was never awaited: await it first."
    if inspect.isroutine(value):
        return "a function is code: use what it returns."
    return next((text for kinds, text in _ADVICE if isinstance(value, kinds)), _OTHERWISE)
