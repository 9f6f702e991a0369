"""Who carries out the effects that the cores of operations yield: `threads` on the calling thread.

Not here: what an operation decides (`engine/operations/`).
"""
