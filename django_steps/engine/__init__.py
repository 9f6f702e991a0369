"""One pass of one run: call the body against its history, and say how the pass ended.

Not here: threads and processes (`worker`), statements (`ledger`).
"""
