"""The process that executes runs: it claims them, hands them to threads, renews their leases, and stops cleanly.

Not here: what a pass does (`engine`), and the command line (`management`).
"""

from .loop import Worker

__all__ = ["Worker"]
