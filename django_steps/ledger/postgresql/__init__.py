"""What only PostgreSQL has: statements that it prepares, and values as its literals.

Not here: the statements themselves, which are beside those for the other databases (`ledger`).
"""
