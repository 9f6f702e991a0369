"""Who carries out the effects that the cores of operations yield: `threads` on the calling thread, `side_by_side` the units
of a group on as many threads as there are.

Not here: what an operation decides (`engine/operations/`), and which unit comes next (`engine/groups.py`).
"""
