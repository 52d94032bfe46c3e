"""The public Python face: Client and SyncClient, Plan, Worker and the errors.

A program in five lines, with a suite running (`stretto up --detach`):

    >>> from stretto_sdk import Plan, run_plan
    >>> plan = Plan("today")
    >>> today = plan.task("today", executor="process", argv=["date"], output="text")
    >>> plan.output = today.output()
    >>> print(run_plan(plan))

Importing this package loads nothing; each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stretto_sdk.artifacts import Artifact, TaskArtifact
    from stretto_sdk.blackboard import Blackboard, BoardEntry
    from stretto_sdk.blocking import run_plan
    from stretto_sdk.client import Client
    from stretto_sdk.client_queues import Queue, QueueHistory
    from stretto_sdk.client_usage import Usage, Used
    from stretto_sdk.client_workers import KnownWorker
    from stretto_sdk.errors import (
        Refusal,
        RunCancelled,
        RunFailed,
        RunKilled,
        RunNotSucceeded,
    )
    from stretto_sdk.plan import Plan
    from stretto_sdk.plan_files.read import read_plan_file
    from stretto_sdk.runs import Event, Failure, Run, RunState, Task, TaskState
    from stretto_sdk.shredded import SHREDDED
    from stretto_sdk.sync_blackboard import SyncBlackboard
    from stretto_sdk.sync_client import SyncClient
    from stretto_sdk.task_log import LogEntry, LogStream
    from stretto_sdk.values import Blob
    from stretto_sdk.worker.context import SpawnRefused, TaskContext, TaskResult
    from stretto_sdk.worker.endings import RetryLater, TaskFailed
    from stretto_sdk.worker.sync_context import SyncTaskContext, TaskCancelled
    from stretto_sdk.worker.task_logger import TaskLogHandler
    from stretto_sdk.worker.worker import Worker

__all__ = [
    "SHREDDED",
    "Artifact",
    "Blackboard",
    "Blob",
    "BoardEntry",
    "Client",
    "Event",
    "Failure",
    "KnownWorker",
    "LogEntry",
    "LogStream",
    "Plan",
    "Queue",
    "QueueHistory",
    "Refusal",
    "RetryLater",
    "Run",
    "RunCancelled",
    "RunFailed",
    "RunKilled",
    "RunNotSucceeded",
    "RunState",
    "SpawnRefused",
    "SyncBlackboard",
    "SyncClient",
    "SyncTaskContext",
    "Task",
    "TaskArtifact",
    "TaskCancelled",
    "TaskContext",
    "TaskFailed",
    "TaskLogHandler",
    "TaskResult",
    "TaskState",
    "Usage",
    "Used",
    "Worker",
    "read_plan_file",
    "run_plan",
]

_HOMES = {
    "Artifact": "artifacts",
    "Blackboard": "blackboard",
    "Blob": "values",
    "BoardEntry": "blackboard",
    "Client": "client",
    "Event": "runs",
    "Failure": "runs",
    "KnownWorker": "client_workers",
    "LogEntry": "task_log",
    "LogStream": "task_log",
    "Plan": "plan",
    "Queue": "client_queues",
    "QueueHistory": "client_queues",
    "Refusal": "errors",
    "RetryLater": "worker.endings",
    "Run": "runs",
    "RunCancelled": "errors",
    "RunFailed": "errors",
    "RunKilled": "errors",
    "RunNotSucceeded": "errors",
    "RunState": "runs",
    "SHREDDED": "shredded",
    "SpawnRefused": "worker.context",
    "SyncBlackboard": "sync_blackboard",
    "SyncClient": "sync_client",
    "SyncTaskContext": "worker.sync_context",
    "Task": "runs",
    "TaskArtifact": "artifacts",
    "TaskCancelled": "worker.sync_context",
    "TaskContext": "worker.context",
    "TaskFailed": "worker.endings",
    "TaskLogHandler": "worker.task_logger",
    "TaskResult": "worker.context",
    "TaskState": "runs",
    "Usage": "client_usage",
    "Used": "client_usage",
    "Worker": "worker.worker",
    "read_plan_file": "plan_files.read",
    "run_plan": "blocking",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"stretto_sdk.{home}"), name)


def __dir__() -> list[str]:
    return __all__
