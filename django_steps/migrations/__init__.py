"""How the tables come into being. Applied while workers are running: they add, and rewrite no rows.

Not here: what the columns mean (`models`).
"""
