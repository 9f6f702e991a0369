"""Executes runs on Celery workers: `runworkflows --executor celery` claims them, and a task of Celery executes their passes.

- `tasks`: the task
- `messenger`: sends claims by the broker
- `process`: how passes hear of the end of a Celery worker

Not here: what is sent when (`worker/executors/dispatch.py`), and how a claim is adopted (`worker/receiver.py`).
"""
