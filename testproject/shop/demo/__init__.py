"""The parts of `manage.py demo`: the story it tells, the worker processes it tells it with, and how it is shown."""
