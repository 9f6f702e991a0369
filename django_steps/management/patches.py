"""The table of patches: which way runs go, and whether the line can be taken out of the body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..ledger.patches import PatchUse
from ..presentation import output


def as_json(uses: Sequence[PatchUse]) -> list[dict[str, Any]]:
    """The patches for programs."""
    return [{**use._asdict(), "is_needed": use.is_needed} for use in uses]


def lines(uses: Sequence[PatchUse], width: int | None) -> list[str]:
    """The patches for people."""
    header = [_("WORKFLOW"), _("PATCH"), _("NEW WAY"), _("OLD WAY"), _("NOT THERE YET"), _("MAY GO")]
    rows = [[use.workflow, use.name, str(use.new), str(use.old), str(use.open), _may_go(use)] for use in uses]
    return output.table(header, rows, width, shrink=1)


def _may_go(use: PatchUse) -> str:
    if use.is_needed:
        return _("not yet")
    if use.ended:
        text = ngettext(
            "yes, unless %(count)d ended run is retried", "yes, unless %(count)d ended runs are retried", use.ended
        )
        return text % {"count": use.ended}
    return _("yes")
