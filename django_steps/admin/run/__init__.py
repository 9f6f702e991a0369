"""The page of a run: its summary, its timeline, its table of steps, its values.

Not here: what its buttons lead to (`actions`), and how a step or a value reads (`presentation`).
"""
