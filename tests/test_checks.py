"""The system checks: each is found by its number, has a hint, and is silent where all is well."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.apps import apps
from django.core.checks import ERROR, INFO, WARNING, Tags, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder
from django.db.utils import ConnectionHandler
from psycopg import IsolationLevel

from django_steps import checks, workflow
from django_steps.conf import conf
from django_steps.definitions import registry
from django_steps.worker.executors import event_loop

SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": "shop.sqlite3",
    "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 30, "init_command": "PRAGMA journal_mode=WAL;"},
}
POSTGRESQL = {"ENGINE": "django.db.backends.postgresql", "NAME": "shop"}


@pytest.fixture(autouse=True)
def no_workflows(monkeypatch):
    """The test project has async workflows, for which a worker needs more connections."""
    monkeypatch.setattr(registry, "_registry", {})


def found(databases=()):
    """The messages of this app's checks; each has a hint."""
    messages = run_checks(tags=[checks.TAG])
    if databases:
        of_databases = run_checks(tags=[Tags.database], databases=databases)
        messages += [message for message in of_databases if message.id.startswith("django_steps.")]
    assert all(message.hint for message in messages)
    return messages


def ids(databases=()):
    return [message.id for message in found(databases)]


@pytest.fixture
def use_database(monkeypatch):
    """Let the checks see other database settings: `use_database(SQLITE, OPTIONS={})`."""

    def use(settings, **changes):
        monkeypatch.setattr(checks, "connections", ConnectionHandler({"default": {**settings, **changes}}))

    return use


@pytest.fixture
def use_mysql(monkeypatch):
    """The same for MySQL; its driver can't be built everywhere, and these checks only read settings."""

    def use(**options):
        wrapper = SimpleNamespace(
            alias="default", vendor="mysql", settings_dict={"AUTOCOMMIT": True, "OPTIONS": options}
        )
        monkeypatch.setattr(checks, "connections", {"default": wrapper})

    return use


class TestThisProject:
    def test_nothing_is_found_and_no_database_is_touched(self):
        assert found() == []  # without the db fixture, a query would be an error

    @pytest.mark.django_db
    def test_nothing_is_found_in_its_database(self):
        call_command("check", databases=["default"], fail_level="WARNING")


class TestSettings:
    def test_unknown_key_and_bad_value_are_told_one_by_one(self, settings):
        settings.DJANGO_STEPS = {"LEASES": "30s", "CONCURRENCY": 0}
        unknown, bad = found()
        assert (unknown.id, bad.id) == ("django_steps.E001", "django_steps.E001")
        assert "'LEASES'" in unknown.msg
        assert "LEASE, MAX_RECOVERIES" in unknown.msg  # the known ones
        assert "'CONCURRENCY'" in bad.msg

    def test_something_else_than_a_dict(self, settings):
        settings.DJANGO_STEPS = ["LEASE"]
        assert [message.msg for message in found()] == ["DJANGO_STEPS must be a dict, got list."]

    def test_good_values_are_fine(self, settings):
        settings.DJANGO_STEPS = {"CONCURRENCY": 4, "LEASE": "1m", "RETENTION": "30d"}
        assert ids() == []

    @pytest.mark.parametrize("executor", ["celery", "tasks"])
    def test_executor_whose_app_is_not_installed(self, settings, executor):
        settings.DJANGO_STEPS = {"EXECUTOR": executor}
        (error,) = found()
        assert error.id == "django_steps.E001"
        assert f"needs 'django_steps.contrib.{executor}' in INSTALLED_APPS" in error.msg

    def test_executor_that_nobody_knows(self, settings):
        settings.DJANGO_STEPS = {"EXECUTOR": "huey"}
        (error,) = found()
        assert "must be one of 'threads', 'celery', 'tasks', got 'huey'" in error.msg


class TestDatabaseSettings:
    @pytest.mark.parametrize("engine", ["sqlite3", "postgresql"])
    def test_autocommit_off(self, use_database, engine):
        settings = {"sqlite3": SQLITE, "postgresql": POSTGRESQL}[engine]
        use_database(settings, AUTOCOMMIT=False)
        assert ids() == ["django_steps.E002"]

    def test_unsupported_database(self, use_database):
        use_database({"ENGINE": "django.db.backends.dummy"})
        (message,) = found()
        assert (message.id, message.level) == ("django_steps.E004", ERROR)

    def test_complete_sqlite_options_are_fine(self, use_database):
        use_database(SQLITE)
        assert ids() == []

    def test_sqlite_in_memory_needs_no_options(self, use_database):
        use_database(SQLITE, NAME=":memory:", OPTIONS={})
        assert ids() == []

    @pytest.mark.parametrize(
        ("changes", "missing"),
        [
            ({"transaction_mode": "DEFERRED"}, "transaction_mode IMMEDIATE"),
            ({"transaction_mode": None}, "transaction_mode IMMEDIATE"),
            ({"init_command": "PRAGMA synchronous=NORMAL;"}, "write-ahead logging (WAL)"),
            ({"timeout": 1}, "a timeout of 5 seconds or more"),
        ],
    )
    def test_each_missing_sqlite_option_is_named(self, use_database, changes, missing):
        use_database(SQLITE, OPTIONS={**SQLITE["OPTIONS"], **changes})
        (message,) = found()
        assert (message.id, message.level) == ("django_steps.W001", WARNING)
        assert f": {missing}. Expect" in message.msg

    def test_the_sqlite_hint_can_be_pasted_and_silences_the_check(self, use_database):
        use_database(SQLITE, OPTIONS={})
        (message,) = found()
        project = {"DATABASES": {"default": {**SQLITE, "OPTIONS": {}}}}
        exec(message.hint.partition("\n")[2], project)
        use_database(project["DATABASES"]["default"])
        assert ids() == []

    @pytest.mark.parametrize("level", ["repeatable read", "serializable", None])
    def test_mysql_isolation_level(self, use_mysql, level):
        use_mysql(isolation_level=level)
        assert ids() == ["django_steps.W002"]

    @pytest.mark.parametrize("options", [{}, {"isolation_level": "READ COMMITTED"}])
    def test_mysql_with_the_right_isolation_level_is_fine(self, use_mysql, options):
        use_mysql(**options)
        assert ids() == []

    @pytest.mark.parametrize("pool", [True, {}, {"min_size": 2, "max_size": 10}, {"min_size": 10}])
    def test_pool_smaller_than_a_worker_needs(self, use_database, settings, pool):
        settings.DJANGO_STEPS = {"CONCURRENCY": 8}
        use_database(POSTGRESQL, OPTIONS={"pool": pool or {"min_size": 1}})
        (message,) = found()
        assert message.id == "django_steps.E003"
        assert '{"max_size": 13}' in message.hint
        assert message.hint.endswith('or lower DJANGO_STEPS["CONCURRENCY"].')

    @pytest.mark.parametrize("pool", [False, None, {"max_size": 13}, {"min_size": 13}])
    def test_pool_that_is_large_enough_or_none(self, use_database, settings, pool):
        settings.DJANGO_STEPS = {"CONCURRENCY": 8}
        use_database(POSTGRESQL, OPTIONS={"pool": pool})
        assert ids() == []

    def test_pool_has_room_for_async_workflows_where_there_are_some(self, use_database, settings):
        settings.DJANGO_STEPS = {"CONCURRENCY": 8}
        use_database(POSTGRESQL, OPTIONS={"pool": {"max_size": 13}})
        assert ids() == []

        @workflow
        async def waits() -> None:
            pass

        assert ids() == ["django_steps.E003"]
        use_database(POSTGRESQL, OPTIONS={"pool": {"max_size": 13 + event_loop.MOST_ORM_THREADS}})
        assert ids() == []

    def test_pool_is_judged_by_what_the_command_line_of_a_worker_says(self, use_database, settings):
        settings.DJANGO_STEPS = {"CONCURRENCY": 8}
        use_database(POSTGRESQL, OPTIONS={"pool": {"max_size": 13}})
        with conf.given(concurrency=9):
            (message,) = found()
        assert message.id == "django_steps.E003" and "a concurrency of 9 may need 14" in message.msg
        assert message.hint.endswith("or lower --concurrency.")
        use_database(POSTGRESQL, OPTIONS={"pool": {"max_size": 7}})
        with conf.given(concurrency=2):
            assert ids() == []

    def test_command_line_with_more_threads_than_its_pool_has_connections_is_refused(self, use_database, settings):
        settings.DJANGO_STEPS = {"CONCURRENCY": 2}
        use_database(POSTGRESQL, OPTIONS={"pool": {"max_size": 7}})
        with pytest.raises(SystemCheckError, match=r"django_steps\.E003"):
            call_command("runworkflows", concurrency=3, skip_checks=False)

    @pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE, "serializable"])
    def test_postgresql_isolation_level_under_which_long_atomic_steps_never_commit(self, use_database, level):
        use_database(POSTGRESQL, OPTIONS={"isolation_level": level})
        (message,) = found()
        assert (message.id, message.level) == ("django_steps.E007", ERROR)
        assert str(getattr(level, "name", level)).replace("_", " ") in message.msg

    @pytest.mark.parametrize("level", [IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED])
    def test_postgresql_with_the_right_isolation_level_is_fine(self, use_database, level):
        use_database(POSTGRESQL, OPTIONS={"isolation_level": level})
        assert ids() == []

    def test_postgresql_through_psycopg2_is_refused(self, use_database, monkeypatch):
        use_database(POSTGRESQL, OPTIONS={"isolation_level": IsolationLevel.SERIALIZABLE})
        monkeypatch.setattr(checks.connections["default"], "Database", SimpleNamespace(__name__="psycopg2"))
        (message,) = found()
        assert (message.id, message.level) == ("django_steps.E008", ERROR)
        assert "needs psycopg 3" in message.msg


class ToAnotherDatabase:
    """A router that keeps the runs in a database of their own."""

    def db_for_write(self, model, **hints):
        return "runs" if model._meta.app_label == "django_steps" else None


class TestProject:
    def test_runs_in_another_database_than_default(self, settings, monkeypatch):
        settings.DATABASE_ROUTERS = [ToAnotherDatabase()]
        monkeypatch.setattr(checks, "connections", ConnectionHandler({"default": SQLITE, "runs": SQLITE}))
        (message,) = found()
        assert (message.id, message.level) == ("django_steps.W003", WARNING)
        assert "'runs'" in message.msg

    @pytest.mark.parametrize(("pool", "size"), [(True, 4), ({"max_size": 7}, 7), ({"min_size": 2}, 2)])
    def test_pool_of_another_database_that_is_smaller_than_the_concurrency(self, settings, monkeypatch, pool, size):
        settings.DJANGO_STEPS = {"CONCURRENCY": 8}
        databases = {"default": SQLITE, "reports": {**POSTGRESQL, "OPTIONS": {"pool": pool}}}
        monkeypatch.setattr(checks, "connections", ConnectionHandler(databases))
        (message,) = found()
        assert (message.id, message.level) == ("django_steps.W005", WARNING)
        assert f"database 'reports' has {size} connections, fewer than the 8 threads" in message.msg
        assert '{"max_size": 8}' in message.hint
        with conf.given(concurrency=size):
            assert ids() == []

    def test_pool_of_another_database_with_room_for_all_threads(self, settings, monkeypatch):
        settings.DJANGO_STEPS = {"CONCURRENCY": 8}
        databases = {"default": SQLITE, "reports": {**POSTGRESQL, "OPTIONS": {"pool": {"max_size": 8}}}}
        monkeypatch.setattr(checks, "connections", ConnectionHandler(databases))
        assert ids() == []

    def test_rangefilter_not_installed(self, settings):
        settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "rangefilter"]
        assert ids() == ["django_steps.W004"]

    def test_rangefilter_is_not_needed_without_the_admin(self, monkeypatch):
        # Without the admin app, modules that others have imported by now would not be importable: only this check is asked.
        needless = ("admin", "rangefilter")
        left = {label: config for label, config in apps.app_configs.items() if label not in needless}
        monkeypatch.setattr(apps, "app_configs", left)
        assert checks.check_admin() == []


@pytest.mark.django_db
class TestDatabase:
    def test_missing_tables_are_found_only_when_asked_for(self, monkeypatch):
        monkeypatch.setattr(connection.introspection, "table_names", lambda *args: ["auth_user"])
        assert ids() == []
        (message,) = found(databases=["default"])
        assert message.id == "django_steps.E005"
        assert "django_steps_steprecord, django_steps_worker, django_steps_workflowrun" in message.msg
        assert "migrate --database default" in message.hint

    def test_unapplied_migration(self):
        MigrationRecorder(connection).record_unapplied("django_steps", "0001_initial")
        (message,) = found(databases=["default"])
        assert message.id == "django_steps.E005"
        assert "migrations 0001_initial" in message.msg

    def test_a_database_that_does_not_keep_runs_is_not_looked_at(self):
        MigrationRecorder(connection).record_unapplied("django_steps", "0001_initial")
        assert checks.check_databases(databases=["replica"]) == []

    def test_migrate_is_not_kept_from_helping(self, monkeypatch):
        MigrationRecorder(connection).record_unapplied("django_steps", "0001_initial")
        monkeypatch.setattr("sys.argv", ["manage.py", "migrate"])
        assert ids(databases=["default"]) == []

    def test_server_without_skip_locked(self, monkeypatch):
        monkeypatch.setattr(connections["default"].features, "has_select_for_update_skip_locked", False)
        expected = [] if connection.vendor == "sqlite" else ["django_steps.E006"]
        assert ids(databases=["default"]) == expected


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one level")
@pytest.mark.django_db(transaction=True)
def test_level_that_the_server_gives_to_sessions_is_seen_in_the_database():
    """Or a receiver of `connection_created`: the settings say nothing of it."""
    assert ids(databases=["default"]) == []
    as_transactions = " CHARACTERISTICS AS" if connection.vendor == "postgresql" else ""
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION{as_transactions} TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert ids() == []
        (message,) = found(databases=["default"])
    finally:
        connection.close()
    assert message.id == ("django_steps.E007" if connection.vendor == "postgresql" else "django_steps.W002")
    assert "repeatable read" in message.msg.lower()


class TestSilence:
    """Of a server behind a network."""

    def test_what_notices_it_is_missing(self, use_database):
        use_database(POSTGRESQL, HOST="db.example.com")
        (message,) = found()
        assert (message.id, message.level) == ("django_steps.I001", INFO)
        assert "keepalives_idle and tcp_user_timeout are not set" in message.msg
        assert "'tcp_user_timeout': 30000" in message.hint

    @pytest.mark.parametrize("host", ["", "localhost", "127.0.0.1", "::1", "/var/run/postgresql"])
    def test_server_on_this_machine(self, use_database, host):
        use_database(POSTGRESQL, HOST=host)
        assert ids() == []

    def test_both_are_set(self, use_database):
        use_database(POSTGRESQL, HOST="db.example.com", OPTIONS={"keepalives_idle": 10, "tcp_user_timeout": 20000})
        assert ids() == []
