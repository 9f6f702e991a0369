"""DBOS: workflows and steps by decorators, started through its client, from a queue."""

from __future__ import annotations

import asyncio
import os
import time

import protocol
import sqlalchemy
from dbos import DBOS, DBOSClient

PLACE = protocol.database()
URL = f"sqlite:///{PLACE['path']}" if "path" in PLACE else protocol.url().replace("postgresql:", "postgresql+psycopg:")


@DBOS.step()
def do_nothing(number: int) -> dict:
    return {"number": number, "ok": True}


@DBOS.step()
async def do_nothing_async(number: int) -> dict:
    return {"number": number, "ok": True}


@DBOS.step()
async def nap(number: int) -> dict:
    await asyncio.sleep(protocol.NAP)
    return {"number": number, "ok": True}


@DBOS.step()
def fail_once() -> dict:
    """By dying: a step that raises fails its workflow for good, and is not what a recovery is made for."""
    protocol.note("last step")
    if protocol.is_first_time():
        os._exit(1)
    return {"ok": True}


@DBOS.workflow()
def steps(size: int) -> dict:
    for number in range(size):
        do_nothing(number)
    return {"done": size}


@DBOS.workflow()
async def async_steps(size: int) -> dict:
    for number in range(size):
        await do_nothing_async(number)
    return {"done": size}


@DBOS.workflow()
async def async_naps(size: int) -> dict:
    for number in range(size):
        await nap(number)
    return {"done": size}


@DBOS.workflow()
def sleeper(size: float) -> dict:
    DBOS.sleep(size)
    do_nothing(0)
    return {"done": 1}


@DBOS.workflow()
def resume(size: int) -> dict:
    protocol.note("entered")
    for number in range(size):
        do_nothing(number)
    fail_once()
    return {"done": size}


def launch() -> None:
    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": URL,
            "log_level": "ERROR",
            "application_version": "1",
            "executor_id": os.environ.get("BENCHMARK_WORKER", "1"),
        }
    )
    DBOS.launch()


def client() -> DBOSClient:
    return DBOSClient(system_database_url=URL)


def options(workflow: str) -> dict:
    return {"queue_name": "queue", "workflow_name": workflow, "app_version": "1"}


def migrate() -> None:
    launch()
    DBOS.register_queue("queue")
    DBOS.destroy()


def start(workflow: str, size: int, count: int) -> None:
    starting = client()
    if "path" in PLACE:
        for _ in range(count):
            starting.enqueue(options(workflow), size)
        return
    with sqlalchemy.create_engine(URL).begin() as connection:
        for _ in range(count):
            starting.enqueue_in_transaction(connection, options(workflow), size)


def start_singly(count: int) -> dict:
    starting = client()
    starting.enqueue(options("steps"), 1)
    return protocol.seconds(lambda: [starting.enqueue(options("steps"), 1) for _ in range(count)])


def start_together(count: int) -> dict:
    starting, engine = client(), sqlalchemy.create_engine(URL)

    def batch() -> None:
        with engine.begin() as connection:
            for _ in range(protocol.BATCH):
                starting.enqueue_in_transaction(connection, options("steps"), 1)

    return protocol.seconds(lambda: [batch() for _ in range(count // protocol.BATCH)])


def start_slowly(count: int, gap: float) -> dict:
    starting = client()
    return protocol.slowly(lambda: starting.enqueue(options("steps"), 1).get_workflow_id(), count, gap)


def work(poll: float = 1.0) -> None:
    """Without a limit of concurrency, which is the default and its fastest."""
    launch()
    DBOS.register_queue("queue", on_conflict="always_update", polling_interval_sec=poll)
    time.sleep(3600)


if __name__ == "__main__":
    protocol.serve(
        migrate=migrate,
        start=start,
        start_singly=start_singly,
        start_together=start_together,
        start_slowly=start_slowly,
        work=work,
    )
    os._exit(0)  # its threads would keep the process alive
