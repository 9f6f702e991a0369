"""What the garbage collector of a worker process need not look through."""

from __future__ import annotations

import gc

# How many objects come into being before the collector looks for garbage among them, and how often it looks further. Python's
# own numbers make a busy worker look through all its runs several times a second, and a run is no garbage while it is executed.
_THRESHOLDS = (20_000, 20, 20)


def spare_what_is_loaded() -> None:
    """Look for garbage only in what comes into being from now on. What a project has loaded by now stays, and looking
    through it would stop all threads for tens of milliseconds, again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
