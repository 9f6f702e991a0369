"""System checks: what in the settings of a project would break a promise, each with a number and a hint.

Only settings are read, and no database is touched, except with `manage.py check --database`. How wrong values of
`DJANGO_STEPS` are found is in `conf.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.core import checks
from django.core.checks import CheckMessage, Error, Info, Tags, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader

from .conf import conf, problems
from .definitions import registered, scheduling
from .models import StepRecord, Worker, WorkflowRun
from .worker.messenger import missing_app

TAG = "django_steps"
VENDORS = ("sqlite", "postgresql", "mysql")

# Besides a worker's threads: the loop, which claims, the heartbeat, maintenance, and the two writers.
_MORE_THAN_THREADS = 5
# Where there are async workflows, the threads on which they use the ORM.
MORE_FOR_ASYNC = 4
# The size of psycopg's pool where none is given.
_DEFAULT_POOL = 4
# Python's own default for SQLite; less gives up while another process is only writing.
_SHORTEST_TIMEOUT = 5

# By which libpq notices that nothing comes from a server any more, with values to begin with.
_NOTICING_SILENCE = {"keepalives_idle": 30, "tcp_user_timeout": 30000}

_SQLITE_OPTIONS = """\
DATABASES[{alias!r}]["OPTIONS"] = {{
    "transaction_mode": "IMMEDIATE",
    "timeout": 30,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}}"""


def register() -> None:
    """Register all checks; called once, when the app is ready."""
    for check in (
        check_settings,
        check_database_settings,
        check_other_pools,
        check_router,
        check_admin,
        check_schedules,
    ):
        checks.register(check, TAG)
    checks.register(check_databases, Tags.database)


def check_settings(**options: Any) -> list[CheckMessage]:
    """E001: the `DJANGO_STEPS` setting."""
    found = problems() or list(filter(None, [missing_app(conf.executor)]))
    return [Error(problem, hint="Correct DJANGO_STEPS in your settings.", id="django_steps.E001") for problem in found]


def check_router(**options: Any) -> list[CheckMessage]:
    """W003: the runs are kept somewhere else than what steps usually write to."""
    alias = router.db_for_write(WorkflowRun)
    if alias == "default":
        return []
    return [
        Warning(
            f"Workflow runs are kept in database {alias!r}, not in 'default'.",
            hint=(
                "Starting a run in a transaction, and steps with atomic=True, keep their promises for writes to "
                f"{alias!r} only. If that is what you want, silence this check."
            ),
            id="django_steps.W003",
        )
    ]


def check_admin(**options: Any) -> list[CheckMessage]:
    """W004: the admin's filters by date come from an app that is not installed."""
    if not apps.is_installed("django.contrib.admin") or apps.is_installed("rangefilter"):
        return []
    return [
        Warning(
            "The admin can't filter workflow runs by date: the app for that is not installed.",
            hint='Add "rangefilter" to INSTALLED_APPS; it came with django_steps.',
            id="django_steps.W004",
        )
    ]


def check_schedules(**options: Any) -> list[CheckMessage]:
    """E010: a schedule of the code whose input its workflow doesn't take."""
    return [
        Error(
            f"Schedule {name!r} can't start its workflow: {what}",
            hint="Correct the Schedule in the decorator of the workflow.",
            id="django_steps.E010",
        )
        for name, what in scheduling.mistakes().items()
    ]


def check_database_settings(**options: Any) -> list[CheckMessage]:
    """E002, E003, E004, E007, E008, I001, W001, W002: the settings of the database that keeps the runs."""
    connection = _connection()
    if connection.vendor not in VENDORS:
        return [
            Error(
                f"Workflow runs can't be kept in database {connection.alias!r}: {connection.display_name} is not supported.",
                hint="Route django_steps to SQLite, PostgreSQL, MySQL or MariaDB by DATABASE_ROUTERS.",
                id="django_steps.E004",
            )
        ]
    of_vendor = {"sqlite": _check_sqlite, "postgresql": _check_postgresql, "mysql": _check_mysql_isolation}
    return [*_check_autocommit(connection), *of_vendor[connection.vendor](connection)]


def check_other_pools(**options: Any) -> list[CheckMessage]:
    """W005: pools of other databases than that of the runs."""
    concurrency = _concurrency()
    if concurrency is None:
        return []
    runs = router.db_for_write(WorkflowRun)
    sizes = {alias: _pool_size(connections[alias].settings_dict["OPTIONS"]) for alias in connections if alias != runs}
    return [
        Warning(
            f"The connection pool of database {alias!r} has {size} connections, fewer than the {concurrency} threads of a "
            "worker. Runs whose steps use it keep a connection until they end or are suspended; a step that finds none "
            "left waits, and fails when the timeout of the pool is over (30 seconds by default).",
            hint=(
                f'Set DATABASES[{alias!r}]["OPTIONS"]["pool"] = {{"max_size": {concurrency}}}, or lower '
                f"{_where_concurrency_is_set()}. If only few runs at a time use {alias!r}, silence this check."
            ),
            id="django_steps.W005",
        )
        for alias, size in sizes.items()
        if size is not None and size < concurrency
    ]


def check_databases(*, databases: Sequence[str] | None = None, **options: Any) -> list[CheckMessage]:
    """E005, E006, E007, E009, W002: the database itself. Only where `check --database` asks for it."""
    connection = _connection()
    # `migrate` runs these checks too, and is what helps.
    if connection.alias not in (databases or ()) or sys.argv[1:2] == ["migrate"]:
        return []
    try:
        connection.ensure_connection()
    except (DatabaseError, InterfaceError) as error:
        reason = " ".join(str(error).split())
        return [Error(f"Database {connection.alias!r} can't be reached: {reason}", id="django_steps.E009")]
    return [*_check_tables(connection), *_check_skip_locked(connection), *_check_level_of_server(connection)]


# -- Settings of the database --------------------------------------------------------------------


def _connection() -> BaseDatabaseWrapper:
    return connections[router.db_for_write(WorkflowRun)]


def _check_autocommit(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    if connection.settings_dict["AUTOCOMMIT"]:
        return []
    return [
        Error(
            f"AUTOCOMMIT is off for database {connection.alias!r}, so no step would be committed when it is done.",
            hint="Remove AUTOCOMMIT from DATABASES, or route django_steps to another database.",
            id="django_steps.E002",
        )
    ]


def _check_sqlite(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    if connection.is_in_memory_db():  # type: ignore[attr-defined]
        return []
    given = connection.settings_dict["OPTIONS"]
    missing = []
    if str(given.get("transaction_mode") or "").upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        missing.append("transaction_mode IMMEDIATE")
    if "journal_mode=wal" not in str(given.get("init_command", "")).lower().replace(" ", ""):
        missing.append("write-ahead logging (WAL)")
    if given.get("timeout", _SHORTEST_TIMEOUT) < _SHORTEST_TIMEOUT:
        missing.append(f"a timeout of {_SHORTEST_TIMEOUT} seconds or more")
    if not missing:
        return []
    return [
        Warning(
            f"SQLite database {connection.alias!r} lacks what keeps its users out of each other's way: "
            f'{", ".join(missing)}. Expect "database is locked" while a worker is running.',
            hint="Put this into your settings:\n" + _SQLITE_OPTIONS.format(alias=connection.alias),
            id="django_steps.W001",
        )
    ]


def _check_mysql_isolation(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    level = connection.settings_dict["OPTIONS"].get("isolation_level", "read committed")
    if str(level).lower() == "read committed":
        return []
    return [_locks_more(connection, level or "of the server")]


def _locks_more(connection: BaseDatabaseWrapper, level: str) -> CheckMessage:
    return Warning(
        f"Database {connection.alias!r} uses the isolation level {level!r}. Steps and starts lock more rows than they write "
        "then, and wait for each other.",
        hint=f'Set DATABASES[{connection.alias!r}]["OPTIONS"]["isolation_level"] = "read committed", Django\'s default.',
        id="django_steps.W002",
    )


def _check_postgresql(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    driver = connection.Database  # type: ignore[attr-defined]
    if driver.__name__ != "psycopg":
        return [
            Error(
                f"Database {connection.alias!r} is used through {driver.__name__}; django_steps needs psycopg 3.",
                hint="Install it: pip install 'django-steps[postgresql]'. Django prefers it to psycopg2 where it finds both.",
                id="django_steps.E008",
            )
        ]
    return [
        *_check_postgresql_isolation(connection, driver.IsolationLevel),
        *_check_pool(connection),
        *_check_silence(connection),
    ]


def _check_postgresql_isolation(connection: BaseDatabaseWrapper, levels: Any) -> list[CheckMessage]:
    # READ UNCOMMITTED is another name for READ COMMITTED there.
    fine = (levels.READ_UNCOMMITTED, levels.READ_COMMITTED)
    level = connection.settings_dict["OPTIONS"].get("isolation_level", levels.READ_COMMITTED)
    if level in fine:
        return []
    name = levels(level).name.replace("_", " ") if level in list(levels) else repr(level)
    hint = (
        f'Remove "isolation_level" from DATABASES[{connection.alias!r}]["OPTIONS"] (READ COMMITTED is Django\'s '
        "default), or route django_steps to another alias of the same database."
    )
    return [_never_commits(connection, name, hint)]


def _never_commits(connection: BaseDatabaseWrapper, level: str, hint: str) -> CheckMessage:
    return Error(
        f"Database {connection.alias!r} uses the isolation level {level}. A step with atomic=True that takes longer than "
        "the renewal of its lease could never commit then.",
        hint=hint,
        id="django_steps.E007",
    )


def _check_silence(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    """Only a note: what is missing has a default, which is 2 hours in Linux."""
    given, options = connection.settings_dict, connection.settings_dict["OPTIONS"]
    host = str(options.get("host") or given["HOST"] or "")
    is_local = host.startswith(("/", "@")) or host in ("", "localhost", "127.0.0.1", "::1")
    missing = [name for name in _NOTICING_SILENCE if name not in options]
    if is_local or "service" in options or not missing:
        return []
    return [
        Info(
            f"Database {connection.alias!r} is reached by a network, and {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set: a step on a connection that goes silent hangs for a long time.",
            hint=(
                f'Set them in DATABASES[{connection.alias!r}]["OPTIONS"], for example '
                f"{', '.join(f'{name!r}: {value}' for name, value in _NOTICING_SILENCE.items())} (seconds, milliseconds)."
            ),
            id="django_steps.I001",
        )
    ]


def _check_pool(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    size, concurrency = _pool_size(connection.settings_dict["OPTIONS"]), _concurrency()
    if size is None or concurrency is None:
        return []
    needed = concurrency + _MORE_THAN_THREADS
    if any(workflow.is_async for workflow in registered()):
        needed += MORE_FOR_ASYNC
    if size >= needed:
        return []
    return [
        Error(
            f"The connection pool of database {connection.alias!r} has {size} connections; "
            f"a worker with a concurrency of {concurrency} may need {needed}.",
            hint=(
                f'Set DATABASES[{connection.alias!r}]["OPTIONS"]["pool"] = {{"max_size": {needed}}}, or lower '
                f"{_where_concurrency_is_set()}."
            ),
            id="django_steps.E003",
        )
    ]


def _concurrency() -> int | None:
    """How many threads a worker has; None if the setting is wrong, which E001 tells."""
    try:
        return conf.concurrency_given or conf.concurrency
    except ImproperlyConfigured:
        return None


def _where_concurrency_is_set() -> str:
    return 'DJANGO_STEPS["CONCURRENCY"]' if conf.concurrency_given is None else "--concurrency"


def _pool_size(options: dict[str, Any]) -> int | None:
    """How many connections psycopg's pool has at most; None if there is no pool. Oracle's names its sizes otherwise."""
    pool = options.get("pool")
    if not pool:
        return None
    sizes = pool if isinstance(pool, dict) else {}
    size: int = sizes.get("max_size") or sizes.get("max") or sizes.get("min_size", _DEFAULT_POOL)
    return size


# -- The database itself -------------------------------------------------------------------------


def _check_tables(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    wanted = {model._meta.db_table for model in (WorkflowRun, StepRecord, Worker)}
    missing = sorted(wanted.difference(connection.introspection.table_names()))
    loader = MigrationLoader(connection)
    migrations = {key for key in loader.disk_migrations if key[0] == WorkflowRun._meta.app_label}
    unapplied = sorted(name for _, name in migrations.difference(loader.applied_migrations))
    if not missing and not unapplied:
        return []
    what = f"tables {', '.join(missing)}" if missing else f"migrations {', '.join(unapplied)}"
    return [
        Error(
            f"Database {connection.alias!r} lacks the {what} of django_steps.",
            hint=f"Run manage.py migrate --database {connection.alias}",
            id="django_steps.E005",
        )
    ]


def _check_skip_locked(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    if connection.vendor == "sqlite" or connection.features.has_select_for_update_skip_locked:
        return []
    return [
        Error(
            f"The server of database {connection.alias!r} has no SELECT … FOR UPDATE SKIP LOCKED, by which workers claim.",
            hint="Use MariaDB 10.6 or later, MySQL 8.0.11 or later, or PostgreSQL.",
            id="django_steps.E006",
        )
    ]


def _check_level_of_server(connection: BaseDatabaseWrapper) -> list[CheckMessage]:
    """The level that a session has, where the settings say nothing else."""
    if connection.vendor == "sqlite" or _says_level(connection):
        return []
    with connection.cursor() as cursor:
        cursor.execute(_LEVEL_OF_SESSION[connection.vendor])
        level = str(cursor.fetchone()[-1]).replace("-", " ").upper()
    if level == "READ COMMITTED":
        return []
    if connection.vendor == "mysql":
        return [_locks_more(connection, level.lower())]
    if level == "READ UNCOMMITTED":
        return []
    hint = (
        "Set default_transaction_isolation to 'read committed' for the server, the database or the role, or for Django: "
        f'DATABASES[{connection.alias!r}]["OPTIONS"]["isolation_level"] = IsolationLevel.READ_COMMITTED, from psycopg.'
    )
    return [_never_commits(connection, level, hint)]


def _says_level(connection: BaseDatabaseWrapper) -> bool:
    """Whether a check of the settings has said it already."""
    found = _check_mysql_isolation(connection) if connection.vendor == "mysql" else _check_postgresql(connection)
    return any(message.id in ("django_steps.E007", "django_steps.E008", "django_steps.W002") for message in found)


# The name of the variable differs between MySQL and MariaDB.
_LEVEL_OF_SESSION = {
    "postgresql": "SHOW transaction_isolation",
    "mysql": "SHOW VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')",
}
