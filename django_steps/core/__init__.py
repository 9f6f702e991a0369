"""Rules and small types without a database and without threads: names, ids, retry policies, the clock, the context.

Not here: what is recorded (`values`, `failures`) and what is written (`ledger`).
"""
