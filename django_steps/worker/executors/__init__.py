"""Who executes the runs that a worker's loop has claimed: `threads` of this process.

Not here: claiming and waiting for work (`worker/loop.py`), and what a pass does (`engine/`).
"""
