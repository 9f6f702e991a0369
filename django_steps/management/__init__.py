"""The command line: the commands in `commands`, and what they share.

Each command only reads what was typed, calls the models, the ledger or the worker, and prints. Not here: how runs, values
and durations read (`presentation`), and what a worker does (`worker`).
"""
