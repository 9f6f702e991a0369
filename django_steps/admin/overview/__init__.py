"""The state of everything: runs by status, the last 24 hours, waiting and unknown runs, the workers.

Not here: the queries over the whole table (`ledger.reports`), and when a worker counts as dead (`models.diagnosis`).
"""
