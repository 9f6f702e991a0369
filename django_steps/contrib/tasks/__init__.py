"""Executes runs by `django.tasks`: `runworkflows --executor tasks` claims them, and a task executes their passes.

On Django 5.2, which has no such module, by the backport `django-tasks`.

- `tasks`: the task
- `messenger`: sends claims by a backend

Not here: what is sent when (`worker/executors/dispatch.py`), and how a claim is adopted (`worker/receiver.py`).
"""
