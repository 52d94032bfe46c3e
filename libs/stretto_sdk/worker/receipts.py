"""What the kernel's last word on an outcome, a spawn, a renewal or a lease does to what is held.

Pure: part of the session machine (session.py), which calls it and hands the effects on.
"""

from __future__ import annotations

from stretto.work.v1 import work_pb2

from stretto_sdk.worker import verdicts
from stretto_sdk.worker.effects import (
    Effect,
    LeaseKey,
    OutcomeSettled,
    SpawnAnswered,
    Stop,
    StopKind,
    key_of,
)
from stretto_sdk.worker.held import OUTCOME, Held, HeldLeases


def settle(leases: HeldLeases, receipt: work_pb2.Receipt, now_ns: int) -> list[Effect]:
    """Apply a receipt: settled, sent again later, replaced by a failure, or the lease is lost.

    A receipt for what is not held, or already settled, changes nothing: receipts may repeat.
    """
    key = key_of(receipt.token)
    held = leases.get(key)
    if held is None:
        return []
    match receipt.kind:
        case work_pb2.RECEIPT_KIND_OUTCOME if held.outcome is not None:
            return _settle_outcome(leases, key, held, receipt, now_ns)
        case work_pb2.RECEIPT_KIND_SPAWN if receipt.request_id in held.spawns:
            return _settle_spawn(leases, key, held, receipt, now_ns)
        case work_pb2.RECEIPT_KIND_RENEWAL if held.outcome is None:
            # With an outcome on its way only its own receipt counts: the renewal may have been
            # refused because that very outcome had closed the attempt.
            if verdicts.judge(receipt.status) is verdicts.Verdict.LOST:
                return lose(leases, key, verdicts.reason_of(receipt.status))
    return []


def lose(leases: HeldLeases, key: LeaseKey, reason: str) -> list[Effect]:
    """Drop a lease: a running body is to end at once, a kept outcome is settled."""
    held = leases.remove(key)
    if held is None:
        return []
    effects: list[Effect] = [
        SpawnAnswered(key, request_id, "LEASE_LOST", reason) for request_id in held.spawns
    ]
    if held.outcome is not None:
        return [*effects, OutcomeSettled(key, reason)]
    return [*effects, Stop(key, StopKind.REVOKE, reason)]


def _settle_outcome(
    leases: HeldLeases, key: LeaseKey, held: Held, receipt: work_pb2.Receipt, now_ns: int
) -> list[Effect]:
    match verdicts.judge(receipt.status):
        case verdicts.Verdict.AGAIN:
            held.refused_count += 1
            delay_ns = verdicts.delay_ns(receipt.status, held.refused_count)
            leases.send_again(key, OUTCOME, now_ns + delay_ns)
            return []
        case verdicts.Verdict.WRONG if not held.replaced:
            # Nothing was stored: say instead, once, that the attempt failed and why.
            held.replaced = True
            leases.set_outcome(key, held, verdicts.refused(held.token, receipt.status))
            return []
    leases.remove(key)
    return [OutcomeSettled(key, verdicts.reason_of(receipt.status))]


def _settle_spawn(
    leases: HeldLeases, key: LeaseKey, held: Held, receipt: work_pb2.Receipt, now_ns: int
) -> list[Effect]:
    reason = verdicts.reason_of(receipt.status)
    match verdicts.judge(receipt.status):
        case verdicts.Verdict.AGAIN:
            delay_ns = verdicts.delay_ns(receipt.status, 1)
            leases.send_again(key, receipt.request_id, now_ns + delay_ns)
            return []
        case verdicts.Verdict.LOST if held.outcome is None and reason == "LEASE_LOST":
            return lose(leases, key, reason)
    del held.spawns[receipt.request_id]
    return [SpawnAnswered(key, receipt.request_id, reason, receipt.status.message)]
