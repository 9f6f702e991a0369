"""Sending an event to a run by hand: an approval, an answer, or what a webhook failed to bring.

Not here: the form itself (`forms`), and what an event does (`models`, `ledger`).
"""
