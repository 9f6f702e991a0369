"""What the body of a request says: JSON, or the fields of a form. No more of it than allowed is ever read.

The bytes are read here and not by `request.POST`, which has other limits, writes uploads to files, and knows no JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest, QueryDict
from django.http.multipartparser import MultiPartParser, MultiPartParserError
from django.http.request import UnreadablePostError
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _

FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")


class Refused(Exception):
    """A body that can't be taken: the status of the answer, and what is wrong."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass(frozen=True, slots=True)
class Body:
    """What was sent. `fields`: those of a form, or None; then `value` is what the JSON says, None if nothing was sent."""

    value: Any = None
    fields: Any = None


def read(request: HttpRequest, most: int) -> Body:
    """What the request brings, in at most so many bytes. Raises `Refused`: 400, 413, 415."""
    content = _bytes(request, most)
    if not content:
        return Body()
    content_type = (request.content_type or "").lower()
    if content_type == FORM_TYPES[0]:
        return Body(fields=_parsed(lambda: QueryDict(content, encoding="utf-8")))
    if content_type == FORM_TYPES[1]:
        fields = _parsed(lambda: _multipart(request, content))
        return Body(fields=fields) if fields else Body()
    if content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    ):
        return Body(_json(content))
    raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, _("Send JSON (application/json) or a form."))


def plain(fields: Any) -> dict[str, Any]:
    """The fields of a form that nobody has described: a text each, or a list of those that came more than once."""
    return {name: found[0] if len(found) == 1 else found for name, found in fields.lists()}


def _bytes(request: HttpRequest, most: int) -> bytes:
    announced = _announced(request)
    if announced > most:
        raise _too_large(most)
    try:
        content = request.read(most + 1)
    except UnreadablePostError:
        raise Refused(HTTPStatus.BAD_REQUEST, _("The body could not be read to its end.")) from None
    if len(content) > most:
        raise _too_large(most)
    if len(content) < announced:  # the connection has ended; or a middleware has read it, and kept it to itself
        raise Refused(HTTPStatus.BAD_REQUEST, _("The body could not be read to its end."))
    return content


def _announced(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, _("The Content-Length is no number.")) from None


def _too_large(most: int) -> Refused:
    text = _("The body may have at most %(bytes)d bytes.") % {"bytes": most}
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)


def _parsed(parse: Any) -> Any:
    try:
        return parse()
    except (MultiPartParserError, SuspiciousOperation, ValueError):
        raise Refused(HTTPStatus.BAD_REQUEST, _("The form can't be read.")) from None


def _multipart(request: HttpRequest, content: bytes) -> MultiValueDict[str, Any]:
    meta = {**request.META, "CONTENT_LENGTH": str(len(content))}
    fields, _files = MultiPartParser(meta, BytesIO(content), [_NoFiles()], "utf-8").parse()
    boundary = (request.content_params or {}).get("boundary", "")
    if not fields and boundary.encode() not in content:
        raise MultiPartParserError
    return fields


class _NoFiles(FileUploadHandler):
    """Uploads go nowhere."""

    def new_file(self, *arguments: Any, **options: Any) -> None:
        raise Refused(HTTPStatus.BAD_REQUEST, _("A form with files is not taken."))

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        return None

    def file_complete(self, file_size: int) -> None:
        return None


def _json(content: bytes) -> Any:
    try:
        return json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused(HTTPStatus.BAD_REQUEST, _("The body is no JSON.")) from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON
