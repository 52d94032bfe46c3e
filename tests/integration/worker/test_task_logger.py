"""What functions log: through the context or the standard library, from a loop or a thread."""

from __future__ import annotations

import logging
import threading

from stretto_sdk import SyncTaskContext, TaskContext, TaskLogHandler

from tests.integration.worker.kernel_double import KernelDouble
from tests.integration.worker.test_sdk_worker import a_worker, calling, serving


async def test_a_functions_log_is_there_before_its_outcome(kernel: KernelDouble) -> None:
    worker = a_worker(kernel)

    @worker.task
    async def copy(ctx: TaskContext) -> None:
        ctx.log("copied", count=3, name="a b")
        ctx.log.warning("slow")
        try:
            raise ValueError("no")
        except ValueError:
            ctx.log.exception("broken")

    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("copy"))
        await kernel.outcome("a")
        lines = kernel.logs["a"].decode().splitlines()
    assert lines[:3] == ["INFO copied count=3 name='a b'", "WARNING slow", "ERROR broken"]
    assert lines[-1] == "ValueError: no"


async def test_the_standard_librarys_messages_go_to_the_task_that_logs_them(
    kernel: KernelDouble,
) -> None:
    worker, handler = a_worker(kernel, slots=2), TaskLogHandler()
    logger = logging.getLogger("of.a.package")
    logger.addHandler(handler)
    both = threading.Barrier(2)

    @worker.task
    def say(ctx: SyncTaskContext, word: str) -> None:
        both.wait(10)
        logger.error("said %s", word)

    try:
        async with serving(kernel, worker):
            for item in ("a", "b"):
                kernel.assign(item, arguments=calling("say"), word=f'"{item}"')
            for item in ("a", "b"):
                await kernel.outcome(item)
        logger.error("nobody's")
    finally:
        logger.removeHandler(handler)
    assert kernel.logs == {
        "a": b"ERROR of.a.package: said a\n",
        "b": b"ERROR of.a.package: said b\n",
    }


async def test_a_thread_that_logs_without_end_loses_lines_and_nothing_else(
    kernel: KernelDouble,
) -> None:
    worker = a_worker(kernel)

    @worker.task
    def pour(ctx: SyncTaskContext) -> int:
        for _ in range(200_000):
            ctx.log("x" * 100)
        return 7

    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("pour"))
        assert (await kernel.outcome("a")).succeeded.result.json == "7"
    assert kernel.logs["a"].startswith(b"INFO xxx")
