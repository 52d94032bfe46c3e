"""The fence in front of what lease holders write: whose secret it is, and of which epoch."""

from __future__ import annotations

import structlog
from stretto.common.v1 import lease_pb2
from stretto_core.errors import PermissionDenied, Refusal
from stretto_core.eventlog.recorded import LeaseKeys
from stretto_core.ids import TaskName

from stretto_kernel.app.hosted_run import HostedRun
from stretto_kernel.dispatch.assignments import parse_work_item
from stretto_kernel.dispatch.lease_keys import is_lease_secret
from stretto_kernel.dispatch.shared import Shared
from stretto_kernel.domain.run.commands import RecordRefusal
from stretto_kernel.domain.run.refusals import LeaseLost


class WrongSecret(PermissionDenied):
    """The epoch is current, the secret is not its: the bearer does not hold this lease."""

    reason = "WRONG_SECRET"


def is_genuine(keys: LeaseKeys, token: lease_pb2.LeaseToken) -> bool:
    """Whether the token was given by this partition: its epoch was leased to the bearer once."""
    return is_lease_secret(keys, token.work_item, token.epoch, token.secret)


def check_genuine(
    keys: LeaseKeys, run: HostedRun, task: TaskName, token: lease_pb2.LeaseToken
) -> None:
    """Refuse a token whose secret is not its epoch's. Raises WrongSecret, LeaseLost."""
    record = run.state.tasks.get(task)
    current_epoch = 0 if record is None else record.epoch
    genuine = record is not None and is_genuine(keys, token)
    if genuine and token.work_item.startswith(f"namespaces/{run.namespace}/"):
        return  # Whether its epoch is current, the decider says.
    if token.epoch == current_epoch and record is not None:
        raise WrongSecret("the secret is not this lease's", epoch=str(current_epoch))
    raise LeaseLost("the epoch is not current", current_epoch=str(current_epoch))


class BoardFence:
    """The fence in front of holders' writes on blackboards; see `HolderFence`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._log = structlog.get_logger("stretto.kernel.dispatch")

    def check(self, run: HostedRun, token: lease_pb2.LeaseToken) -> None:
        """See `HolderFence`."""
        check_genuine(self._shared.keys, run, _task_of(token), token)

    def note_refused(self, run: HostedRun, token: lease_pb2.LeaseToken, refusal: Refusal) -> None:
        """See `HolderFence`: logged, and recorded once when a stale epoch wrote."""
        task = _task_of(token)
        self._log.info(
            "board.refused",
            run_id=run.run_id,
            task=task,
            epoch=token.epoch,
            reason=refusal.reason_word,
        )
        if isinstance(refusal, LeaseLost) and is_genuine(self._shared.keys, token):
            command = RecordRefusal(
                now_ns=self._shared.clock.now_ns(), task=task, epoch=token.epoch
            )
            self._shared.own.record_refusal(run, command)


def _task_of(token: lease_pb2.LeaseToken) -> TaskName:
    named = parse_work_item(token.work_item)
    assert named is not None, "the servicer refuses a token of no task"
    return named[2]
