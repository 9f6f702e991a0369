"""Statements that PostgreSQL prepares, and the literals that they are executed with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum
from uuid import UUID

import pytest
from django.conf import settings
from django.db import DataError, connection, transaction

pytestmark = pytest.mark.django_db(transaction=True)

if settings.DATABASE == "postgresql":
    from psycopg import ConnectionInfo

    from django_steps.ledger.postgresql import prepared
    from django_steps.ledger.postgresql.literals import literals
    from django_steps.ledger.postgresql.prepared import Statement
    from tests.app.workflows import tiny

    ECHO = Statement("SELECT %s || 'x', %s + 1", ["text", "int"])
    VALUES = [
        None,
        True,
        False,
        0,
        -(1 << 63),
        UUID("12345678-1234-5678-1234-567812345678"),
        datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
    ]
    TEXTS = [
        "",
        "plain",
        "it's 'quoted' ''twice''",
        "back\\slash \\' at the end\\",
        '{"json": "a\\"b", "percent": "100 %s %(name)s %%"}',
        "$1 $$ ; DROP TABLE x; -- /* */ :name ?",
        "new\nline\ttab\r",
        "ünï © 漢字 🐍 \u2028",
        "E'\\x41'",
    ]

    def ask(statement, parameters=None):
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchone()

    def execute(*parameters):
        with connection.cursor() as cursor:
            prepared.execute(connection, cursor, ECHO, parameters)
            return cursor.fetchone()

    def is_prepared():
        return ask("SELECT COUNT(*) FROM pg_prepared_statements WHERE name = %s", [ECHO.name]) == (1,)

    @pytest.fixture(autouse=True)
    def a_new_connection(transactional_db):
        connection.close()
        yield
        connection.close()

    @pytest.mark.parametrize("value", VALUES, ids=str)
    def test_a_value_as_a_literal_is_the_value(value):
        (literal,) = literals(connection, [value])
        # Through a column's type, which is what gives a literal its own.
        types = {type(None): "text", bool: "boolean", int: "bigint", UUID: "uuid", datetime: "timestamptz"}
        assert ask(f"SELECT ({literal})::{types[type(value)]}") == (value,)

    @pytest.mark.parametrize("conforming", ["on", "off"])
    @pytest.mark.parametrize("text", TEXTS)
    def test_a_text_as_a_literal_is_the_text(text, conforming):
        with connection.cursor() as cursor:
            cursor.execute(f"SET standard_conforming_strings = {conforming}")
            cursor.execute(f"SELECT ({literals(connection, [text])[0]})::text")
            assert cursor.fetchone() == (text,)

    def test_a_text_with_nul_is_refused_and_not_cut_off():
        with pytest.raises(DataError, match="NUL"):
            literals(connection, ["before\0after"])

    def test_a_statement_is_prepared_when_it_is_used_for_the_third_time():
        states = []
        for number in range(4):
            assert execute("it's ", number) == ("it's x", number + 1)
            states.append(is_prepared())
        assert states == [False, False, True, True]

    def test_a_new_connection_knows_nothing():
        for number in range(3):
            execute("a", number)
        connection.close()
        assert execute("b", 1) == ("bx", 2)
        assert not is_prepared()

    def test_a_statement_that_the_server_has_forgotten_is_sent_as_it_is_and_prepared_again_later():
        """Behind a pooler the next statement may go to another connection to the server."""
        for number in range(3):
            execute("a", number)
        with connection.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")
        states = []
        for number in range(4):
            assert execute("b", number) == ("bx", number + 1)
            states.append(is_prepared())
        assert states == [False, False, False, True]

    def test_a_statements_text_as_others_see_it_holds_no_values():
        """Monitoring keeps the text, and must not keep what `mask=` hides."""
        seen = []

        def watch(run, statement, parameters, many, context):
            seen.append((statement, parameters))
            return run(statement, parameters, many, context)

        with connection.execute_wrapper(watch):
            for number in range(4):
                execute("secret", number)
            tiny.start_many([{"card": "secret"}] * 3)
            tiny.start({"card": "secret"})
        assert any("EXECUTE" not in text and "secret" in parameters for text, parameters in seen)
        assert not [text for text, _ in seen if "secret" in text]

    def test_values_of_subclasses_are_taken():
        class Priority(IntEnum):
            HIGH = 7

        class Moment(datetime):
            pass

        moment = Moment(2026, 1, 2, tzinfo=UTC)
        assert literals(connection, [Priority.HIGH, moment]) == ["7", "'2026-01-02T00:00:00+00:00'"]
        with pytest.raises(TypeError, match="No literal"):
            literals(connection, [object()])

    def test_a_statement_that_the_server_knows_already_is_used():
        """Behind a pooler somebody else may have prepared it on this connection to the server."""
        with connection.cursor() as cursor:
            cursor.execute(ECHO.preparation)
        for number in range(4):
            assert execute("a", number) == ("ax", number + 1)

    def test_behind_a_pooler_nothing_is_prepared_and_that_is_found_out_once(monkeypatch):
        """The process of the server is another one than the client was told of."""
        statements = []

        def watch(run, statement, *others):
            statements.append(statement)
            return run(statement, *others)

        monkeypatch.setattr(ConnectionInfo, "backend_pid", 1)
        with connection.execute_wrapper(watch):
            for number in range(5):
                assert execute("a", number) == ("ax", number + 1)
        assert not is_prepared()
        assert statements == [ECHO.text, ECHO.text, "SELECT pg_backend_pid()", ECHO.text, ECHO.text, ECHO.text]

    def test_inside_a_transaction_nothing_is_prepared():
        """An unknown name would break the transaction off."""
        for number in range(3):
            execute("a", number)
        with connection.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")
        with transaction.atomic():
            assert execute("b", 1) == ("bx", 2)
            assert ask("SELECT 1") == (1,)
        assert not is_prepared()

    def test_with_autocommit_switched_off_nothing_is_prepared():
        for number in range(3):
            execute("a", number)
        with connection.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")
        connection.set_autocommit(False)
        try:
            assert execute("b", 1) == ("bx", 2)
            assert ask("SELECT 1") == (1,)
        finally:
            connection.rollback()
            connection.set_autocommit(True)

else:

    def test_other_databases_get_the_statement_as_it_is(django_assert_num_queries):
        from django_steps.ledger.postgresql import prepared
        from django_steps.ledger.postgresql.prepared import Statement

        statement = Statement("SELECT %s", ["int"])
        for number in range(4):
            with django_assert_num_queries(1), connection.cursor() as cursor:
                prepared.execute(connection, cursor, statement, [number])
                assert int(cursor.fetchone()[0]) == number
