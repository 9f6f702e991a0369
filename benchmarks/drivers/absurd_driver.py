"""Absurd's Python SDK: synchronous threads by default, its asynchronous worker as the fastest."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import protocol
import psycopg
from absurd_sdk import Absurd, AsyncAbsurd

URL = protocol.url()


def result(number: int) -> dict:
    return {"number": number, "ok": True}


async def do_nothing(number: int) -> dict:
    return result(number)


async def nap(number: int) -> dict:
    await asyncio.sleep(protocol.NAP)
    return result(number)


def register(app: Absurd) -> Absurd:
    @app.register_task(name="steps")
    def steps(params, context):
        for number in range(params["size"]):
            context.step(f"step-{number}", lambda number=number: result(number))
        return {"done": params["size"]}

    @app.register_task(name="sleeper")
    def sleeper(params, context):
        context.sleep_for("nap", params["size"])
        context.step("after", lambda: result(0))
        return {"done": 1}

    @app.register_task(name="resume")
    def resume(params, context):
        protocol.note("entered")
        for number in range(params["size"]):
            context.step(f"step-{number}", lambda number=number: result(number))
        context.step("last", fail_once)
        return {"done": params["size"]}

    return app


def register_async(app: AsyncAbsurd) -> AsyncAbsurd:
    @app.register_task(name="steps")
    @app.register_task(name="async_steps")
    async def steps(params, context):
        for number in range(params["size"]):
            await context.step(f"step-{number}", lambda number=number: do_nothing(number))
        return {"done": params["size"]}

    @app.register_task(name="async_naps")
    async def async_naps(params, context):
        for number in range(params["size"]):
            await context.step(f"step-{number}", lambda number=number: nap(number))
        return {"done": params["size"]}

    @app.register_task(name="sleeper")
    async def sleeper(params, context):
        await context.sleep_for("nap", params["size"])
        await context.step("after", lambda: do_nothing(0))
        return {"done": 1}

    return app


def fail_once() -> dict:
    protocol.note("last step")
    if protocol.is_first_time():
        raise RuntimeError("once")
    return {"ok": True}


def migrate() -> None:
    command = Path(sys.executable).with_name("absurdctl")
    environment = {**os.environ, "ABSURD_DATABASE_URL": URL, "PGDATABASE": URL}
    subprocess.run([command, "init"], env=environment, check=True, stdout=subprocess.DEVNULL)
    Absurd(URL).create_queue("default")


def start(workflow: str, size: int, count: int) -> None:
    # The failed attempt of `resume` is tried again at once.
    options = {"retry_strategy": {"kind": "none"}} if workflow == "resume" else {}
    with psycopg.connect(URL) as connection:
        app = Absurd(connection)
        for _ in range(count):
            app.spawn(workflow, {"size": size}, queue="default", **options)


def start_singly(count: int) -> dict:
    app = register(Absurd(URL))
    app.spawn("steps", {"size": 1})
    return protocol.seconds(lambda: [app.spawn("steps", {"size": 1}) for _ in range(count)])


def start_together(count: int) -> dict:
    with psycopg.connect(URL) as connection:
        app = register(Absurd(connection))

        def batch() -> None:
            for _ in range(protocol.BATCH):
                app.spawn("steps", {"size": 1})
            connection.commit()

        return protocol.seconds(lambda: [batch() for _ in range(count // protocol.BATCH)])


def start_slowly(count: int, gap: float) -> dict:
    app = register(Absurd(URL))
    return protocol.slowly(lambda: app.spawn("steps", {"size": 1})["task_id"], count, gap)


def work(concurrency: int = 1, is_async: bool = False, poll: float = 0.25) -> None:
    if is_async:
        worker = register_async(AsyncAbsurd(URL))
        asyncio.run(worker.start_worker(concurrency=concurrency, poll_interval=poll))
    else:
        register(Absurd(URL)).start_worker(concurrency=concurrency, poll_interval=poll)


if __name__ == "__main__":
    protocol.serve(
        migrate=migrate,
        start=start,
        start_singly=start_singly,
        start_together=start_together,
        start_slowly=start_slowly,
        work=work,
    )
