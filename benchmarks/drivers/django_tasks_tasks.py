"""The task that django-tasks-db executes; a module of its own, because it is imported by name."""

from django_tasks import task


@task()
def do_nothing(number):
    return {"number": number, "ok": True}
