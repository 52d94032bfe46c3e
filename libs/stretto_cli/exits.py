"""Exit statuses of the command, and the one place where an error becomes a sentence and a status.

A person never sees a stack trace: what was refused says what to do, and what is our bug says so
(with STRETTO_DEBUG=1 it shows the trace).
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import ParamSpec, TypeVar

import typer
from stretto_core.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    Refusal,
    Unavailable,
)
from stretto_sdk.form_paths import form_path

from stretto_cli.printing import complain

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


class ExitStatus(IntEnum):
    """What `stretto` exits with; `stretto --help` lists them."""

    SUCCESS = 0
    FAILED = 1  # The run did not succeed, or the chain is broken.
    USAGE = 2  # The request is wrong: a flag, a file, a plan, an unknown run.
    UNREACHABLE = 3  # No suite answers, or a run has not ended in the time given.
    BUG = 4  # Ours.
    INTERRUPTED = 130


def status_of(refusal: Refusal) -> ExitStatus:
    """Return the exit status that a refused call means."""
    if isinstance(refusal, Unavailable | DeadlineExceeded):
        return ExitStatus.UNREACHABLE
    return ExitStatus.BUG if isinstance(refusal, Internal) else ExitStatus.USAGE


def reported(command: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Make a command end by a sentence on stderr and an exit status, whatever goes wrong in it."""

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        try:
            return command(*args, **kwargs)
        except Refusal as refusal:
            complain(_sentence(refusal))
            raise typer.Exit(status_of(refusal)) from None
        except (KeyboardInterrupt, typer.Abort):  # The second: at a question, or its end of file.
            raise typer.Exit(ExitStatus.INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output went away (`| head`); the interpreter must not flush again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitStatus.SUCCESS) from None
        except OSError as error:
            why = error.strerror or str(error)
            complain(f"{error.filename}: {why}" if error.filename else why)
            raise typer.Exit(ExitStatus.USAGE) from None
        except typer.Exit:
            raise
        except Exception as error:
            if os.environ.get("STRETTO_DEBUG"):
                raise
            complain(f"this is a bug in stretto: {type(error).__name__}: {error}")
            complain("run it again with STRETTO_DEBUG=1 to see where")
            raise typer.Exit(ExitStatus.BUG) from None

    return run


def _sentence(refusal: Refusal) -> str:
    if isinstance(refusal, NotFound):
        place = refusal.metadata
        if worker := place.get("worker_id"):
            return f"no such worker: {worker}; `stretto workers` shows them"
        missing = place.get("run_id") or place.get("stream")
        if missing and "version" in place:
            return f"{missing} has no version {place['version']}"
        return f"no such run: {missing}; `stretto runs` shows them" if missing else refusal.message
    violations = refusal.violations if isinstance(refusal, InvalidArgument) else ()
    # The kernel's message names the first only; ours, of a plan file's form, has all of them.
    if not violations or "\n" in refusal.message:
        return refusal.message
    opening = refusal.message.partition(":")[0]
    lines = [f"{form_path(each.field)}: {each.description}" for each in violations]
    return "\n  ".join([f"{opening}:", *lines])
