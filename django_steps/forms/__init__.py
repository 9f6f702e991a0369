"""Forms that are made from a type: a field for each member that a person can type, JSON with its schema for the rest.

From below: `members`, `schemas` < `fields` < `look`, `checking` < `waits`, `event`. They work without `django.contrib.admin`.

Not here: pages (`admin`, `callbacks`), and validating a value against its type (`definitions.inputs`).
"""
