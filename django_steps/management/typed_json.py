"""JSON that was typed on the command line, or that stdin holds."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _


def read(text: str | None) -> Any:
    """The value of a JSON text, `-` for that of stdin, None for none; `CommandError` says where it is malformed."""
    if text is None:
        return None
    try:
        return json.loads(sys.stdin.read() if text == "-" else text)
    except json.JSONDecodeError as error:
        message = _("The input is no valid JSON: %(problem)s (line %(line)d, column %(column)d)")
        place = {"problem": error.msg, "line": error.lineno, "column": error.colno}
        raise CommandError(f"{message % place}. {_advice()}") from None
    except (ValueError, RecursionError) as error:
        raise CommandError(_("The input can't be read: %(error)s") % {"error": error}) from None


def _advice() -> str:
    return _(
        """Put texts into double quotes, and the whole into single ones for the shell: '{"ok": true}', '"a text"'. """
        """Or write it to a file, and give - for it."""
    )
