"""The controls as pages: retry, cancel, restart and delete, for one run and for a selection, each asked for first.

Not here: what a control does to the rows (`models`, `ledger`), and who may use it (`base`).
"""
