"""Sees every frame and answer when it is sent, and compares it with what is committed then.

Whatever leaves a kernel must follow from the committed log: an assignment from its lease, a receipt
from its outcome, a refusal from a state in which it is right, a shown run from the fold of its
stream at the version it bears. Anything else was said too early or from a dropped state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import run_pb2
from stretto.work.v1 import work_pb2
from stretto.work.v1.work_service_pb2 import (
    LeaseWorkResponse,
    ReleaseWorkResponse,
    RenewLeasesResponse,
    ReportOutcomesResponse,
    WorkResponse,
)
from stretto_core.ids import TaskName
from stretto_core.testing.log_watch import InvariantBroken, LogWatch
from stretto_core.testing.trace import Trace
from stretto_kernel.domain.run.queries import stop_signal

from tests.simulation.laws import Laws, TaskFacts
from tests.simulation.log_fold import LogFold

_HOLDERS_WORD = (ev.AttemptSucceeded, ev.AttemptFailed, ev.AttemptReleased, ev.AttemptCancelled)
_SHOWN = ("state", "version", "output", "failure", "end_reason", "labels", "growing")
_COUNTS = ("total", "pending", "running", "succeeded", "failed", "cancelled", "skipped")


class Witness:
    """A network's watcher.

    on_broken: told what was found wrong.
    secrets: filled with every lease secret that was handed out; nothing else may bear one.
    """

    def __init__(
        self,
        watch: LogWatch,
        laws: Laws,
        fold: LogFold,
        *,
        trace: Trace,
        secrets: set[bytes],
        on_broken: Callable[[InvariantBroken], None],
    ) -> None:
        self._watch = watch
        self._laws = laws
        self._fold = fold
        self._trace = trace
        self._secrets = secrets
        self._on_broken = on_broken
        self.answers_checked = 0

    def see(self, sender: str, receiver: str, frame: Message) -> None:
        """Check a frame on its way. Never raises: the sender would take it for its own error."""
        self._trace.note("frame", f"{sender} -> {receiver} {_brief(frame)}")
        try:
            self._watch.catch_up()
            match frame:
                case WorkResponse():
                    self._see_work(frame.assignments, frame.receipts, frame.signals)
                case LeaseWorkResponse():
                    self._see_work(frame.assignments, (), ())
                case RenewLeasesResponse():
                    self._see_work((), frame.receipts, frame.signals)
                case ReportOutcomesResponse() | ReleaseWorkResponse():
                    self._see_work((), frame.receipts, ())
            if isinstance(run := getattr(frame, "run", None), run_pb2.Run) and run.name:
                self._see_run(run)
        except InvariantBroken as broken:
            self._on_broken(broken)

    def _see_work(
        self,
        assignments: Iterable[work_pb2.Assignment],
        receipts: Iterable[work_pb2.Receipt],
        signals: Iterable[work_pb2.Signal],
    ) -> None:
        for assignment in assignments:
            task = self._task(assignment.token.work_item)
            self._hold(
                task is not None and task.epoch >= assignment.token.epoch,
                f"1: assigned before its lease was committed: {_token(assignment.token)}",
            )
            self._secrets.add(assignment.token.secret)
        for receipt in receipts:
            self._hold(not receipt.token.secret, "8: a receipt bears no secret")
            self._see_receipt(receipt)
        for signal in signals:
            self._hold(not signal.token.secret, "8: a signal bears no secret")
            if signal.kind == work_pb2.SIGNAL_KIND_REVOKE:
                self._not_open(signal.token.work_item, signal.token.epoch, "revoked")
            elif signal.kind == work_pb2.SIGNAL_KIND_CANCEL:
                self._is_stopping(signal.token.work_item)

    def _see_receipt(self, receipt: work_pb2.Receipt) -> None:
        item, epoch = receipt.token.work_item, receipt.token.epoch
        if receipt.status.code != 0:
            if reason_of(receipt.status) == "LEASE_LOST":
                self._not_open(item, epoch, "refused with LEASE_LOST")
            return
        if receipt.kind == work_pb2.RECEIPT_KIND_OUTCOME:
            task = self._task(item)
            outcome = None if task is None else task.outcomes.get(epoch)
            self._hold(
                isinstance(outcome, _HOLDERS_WORD),
                f"1: acknowledged before it was committed: {_token(receipt.token)}",
            )

    def _is_stopping(self, item: str) -> None:
        task = self._task(item)
        if task is not None and task.open_epoch:
            _, _, _, run_id, _, name = item.split("/", 5)
            state = self._fold.at(run_id, self._laws.runs[run_id].version)
            self._hold(
                stop_signal(state, TaskName(name)) is not None,
                f"1: asked to stop, though nothing in the log does: {item}",
            )

    def _not_open(self, item: str, epoch: int, what: str) -> None:
        task = self._task(item)
        self._hold(
            task is None or task.open_epoch != epoch,
            f"1: {what}, though the log holds it open: {item} epoch {epoch}",
        )

    def _see_run(self, shown: run_pb2.Run) -> None:
        self.answers_checked += 1
        committed = self._watch.version(shown.run_id)  # type: ignore[arg-type]
        self._hold(
            shown.version <= committed,
            f"1: {shown.run_id} shown at version {shown.version}, committed is {committed}",
        )
        expected = self._fold.shown(shown.run_id, shown.version)
        for name in _SHOWN:
            self._same(shown, expected, name)
        for name in _COUNTS:
            self._same(shown.task_counts, expected.task_counts, f"{name}_count")
        holds = [hold.hold_id for hold in shown.holds]
        self._hold(
            holds == [hold.hold_id for hold in expected.holds],
            f"2: {shown.run_id} version {shown.version} shown with holds {holds}",
        )
        self._no_secret(shown)

    def _same(self, shown: Message, expected: Message, name: str) -> None:
        was, should = getattr(shown, name), getattr(expected, name)
        self._hold(was == should, f"2: {name} shown as {was!r}, the log says {should!r}")

    def _no_secret(self, shown: Message) -> None:
        stored = shown.SerializeToString()
        self._hold(not any(secret in stored for secret in self._secrets), "8: a secret is shown")

    def _task(self, work_item: str) -> TaskFacts | None:
        _, _, _, run_id, _, name = work_item.split("/", 5)
        run = self._laws.runs.get(run_id)
        return None if run is None else run.tasks.get(name)

    def _hold(self, holds: bool, law: str) -> None:
        if not holds:
            raise InvariantBroken(law)


def reason_of(status: status_pb2.Status) -> str:
    """Return the reason word of a refusal's status; "" when it bears none."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return info.reason
    return ""


def _token(token: Message) -> str:
    return f"{token.work_item} epoch {token.epoch}"  # type: ignore[attr-defined]


def _brief(frame: Message) -> str:
    """Name a frame and what it holds, without payloads and secrets."""
    parts = []
    for field, value in frame.ListFields():
        if field.name in ("assignments", "receipts", "outcomes", "renewals", "signals", "spawns"):
            tokens = ", ".join(_short(each.token) for each in value)
            parts.append(f"{field.name}[{tokens}]")
        elif isinstance(value, run_pb2.Run):
            parts.append(f"run {value.run_id} version {value.version}")
        elif field.name in ("name", "request_id", "credit_total_count", "draining"):
            parts.append(f"{field.name}={value}")
        else:
            parts.append(field.name)
    return f"{type(frame).__name__}({'; '.join(parts)})"


def _short(token: Message) -> str:
    run_and_task = token.work_item.split("/", 3)[-1]  # type: ignore[attr-defined]
    return f"{run_and_task}@{token.epoch}"  # type: ignore[attr-defined]
