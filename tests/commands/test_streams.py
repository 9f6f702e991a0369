"""Real processes whose output goes where not every character and not every line can go; and workers with DEBUG."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created

from django_steps.management import queries_log
from tests.app.workflows import returns_input, tiny
from tests.conftest import ROOT, process_environment

pytestmark = pytest.mark.django_db(transaction=True)
BROKEN = [["showworkflows"], ["showworkflows", "--json"], ["pruneworkflows", "--older-than", "1s", "--dry-run"]]
TEXT = "Grüße \N{SNOWMAN} \N{GRINNING FACE}"


def manage(*arguments, **environment):
    return [sys.executable, "manage.py", *arguments], {"cwd": ROOT, "env": {**process_environment(), **environment}}


@pytest.mark.processes
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.any_database
def test_every_line_is_printed_in_any_encoding(encoding):
    run = returns_input.start(TEXT, key=TEXT)
    command, options = manage("runworkflows", "--until-idle", "-v", "2", PYTHONIOENCODING=encoding)
    printed = subprocess.run(command, **options, capture_output=True, check=True)
    assert f"{run.pk}".encode() in printed.stdout and b"Ended." in printed.stdout
    assert b"Error" not in printed.stderr
    for arguments in (["showworkflows"], ["showworkflows", str(run.pk)]):
        command, options = manage(*arguments, PYTHONIOENCODING=encoding)
        assert str(run.pk).encode() in subprocess.run(command, **options, capture_output=True, check=True).stdout


@pytest.mark.processes
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.any_database
def test_json_stays_json_in_any_encoding(encoding):
    run = returns_input.start(TEXT, key="smile")
    command, options = manage("showworkflows", str(run.pk), "--json", PYTHONIOENCODING=encoding)
    printed = subprocess.run(command, **options, capture_output=True, check=True)
    assert json.loads(printed.stdout.decode(encoding))["input"] == TEXT


@pytest.mark.processes
@pytest.mark.parametrize(
    "arguments",
    [["showworkflows"], ["showworkflows", "--json"], ["pruneworkflows", "--older-than", "1s", "--dry-run"]],
    ids=" ".join,
)
@pytest.mark.any_database
def test_a_broken_pipe_is_no_traceback(arguments):
    tiny.start_many([{}] * 20)
    command, options = manage(*arguments)
    with subprocess.Popen(command, **options, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 1


@pytest.mark.processes
def test_a_worker_whose_reader_has_gone_works_on():
    runs = tiny.start_many([{}] * 20)
    command, options = manage("runworkflows", "--until-idle", "-v", "2")
    with subprocess.Popen(command, **options, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        printed = process.stderr.read()
        assert process.wait(20) == 0, printed
    assert b"Traceback" not in printed and b"BrokenPipe" not in printed
    for run in runs:
        run.refresh_from_db()
    assert {run.status for run in runs} == {"succeeded"}


def test_inside_a_transaction_it_says_what_to_use():
    with transaction.atomic(), pytest.raises(CommandError, match="TransactionTestCase"):
        call_command("runworkflows", "--until-idle", skip_checks=True)


def test_with_debug_few_statements_are_kept(settings):
    settings.DEBUG = True
    kept = connection.queries_log
    try:
        queries_log.keep_few_queries()

        def execute():
            with connection.cursor() as cursor:
                for _ in range(300):
                    cursor.execute("SELECT 1")
            counts.append(len(connection.queries_log))
            connections.close_all()

        counts: list[int] = []
        execute_elsewhere = threading.Thread(target=execute)
        execute_elsewhere.start()
        execute_elsewhere.join()
        with connection.cursor() as cursor:
            for _ in range(300):
                cursor.execute("SELECT 1")
        counts.append(len(connection.queries_log))
    finally:
        connection_created.disconnect(queries_log._keep_few)
        connection.queries_log = kept
    assert counts == [queries_log.KEPT] * 2


@pytest.mark.processes
@pytest.mark.any_database
def test_serve_says_first_that_its_port_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command, options = manage("serve", "--port", str(port), DEBUG="1")
        done = subprocess.run(command, **options, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"CommandError: Port {port} of 127.0.0.1 can't be used")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.processes
@pytest.mark.skipif(os.environ.get("DATABASE", "sqlite") != "sqlite", reason="asks another server")
@pytest.mark.parametrize(
    "arguments", [["check", "--database", "default"], ["runworkflows"], ["showworkflows"]], ids=" ".join
)
def test_a_database_out_of_reach_gives_one_line(arguments):
    command, options = manage(*arguments, DATABASE="postgresql", POSTGRES_PORT="1")
    done = subprocess.run(command, **options, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("can't be reached") == 1
    if arguments[0] != "check":  # which adds lines of Django's
        assert len(done.stderr.splitlines()) == 1
