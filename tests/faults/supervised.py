"""One worker under a supervisor: `python -m tests.faults.supervised`."""

from __future__ import annotations

import sys

import django

COMMAND = ["manage.py", "runworkflows", "--concurrency", "8", "--poll-interval", "0.2", "--lease", "5"]


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    django.setup()

    from django_steps.worker.supervisor import Supervisor

    sys.exit(Supervisor([sys.executable, *COMMAND], 1, say=say).run())
