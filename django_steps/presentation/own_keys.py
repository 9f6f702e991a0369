"""The keys that the admin's pages give to runs themselves, so that pressing a button twice starts one run.

They say nothing of what a run is about, so they are left out where keys are shown.
"""

from __future__ import annotations

import re
from uuid import UUID

_RESTART, _PRESS = "restart", "start"
_OWN = re.compile(rf"(?:{_RESTART}|{_PRESS})-[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}")


def of_restart(last_run: UUID) -> str:
    """The key of the restart that follows this run."""
    return f"{_RESTART}-{last_run}"


def of_press(press: UUID) -> str:
    """The key of the run that is started by one press of the form's button."""
    return f"{_PRESS}-{press}"


def is_own(key: str) -> bool:
    """Whether these pages made the key."""
    return _OWN.fullmatch(key) is not None
