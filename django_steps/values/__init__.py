"""Python values ⇄ JSON text, faithfully. `codec` is the way in; each other module knows one family of values.

Not here: exceptions (`failures`), and how people read a value (`presentation`).
"""

from .codec import decode, encode
from .search import masked, searchable

__all__ = ["decode", "encode", "masked", "searchable"]
