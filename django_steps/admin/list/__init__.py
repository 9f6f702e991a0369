"""The list of runs: its query, columns, filters and search, and what a run is about in a few words.

Not here: the actions for a selection (`actions`), and the counts above the list (`overview`).
"""
