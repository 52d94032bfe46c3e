"""The simulator bites: each planted bug is found within a few seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest
from stretto.work.v1 import work_pb2
from stretto_core.errors import Refusal
from stretto_core.eventlog.group_writer import GroupWriter
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.ids import SessionId, WorkerId
from stretto_kernel.app.fact_writer import FactWriter
from stretto_kernel.app.hosted_run import HostedRun
from stretto_kernel.app.run_keys import RunKeys
from stretto_kernel.app.sealer import Sealer
from stretto_kernel.dispatch.assignments import build_signal
from stretto_kernel.dispatch.dispatcher import Dispatcher
from stretto_kernel.dispatch.lease_table import Lease, LeaseTable
from stretto_kernel.dispatch.queue_gates import QueueGates
from stretto_kernel.domain.queue import QueueSettings
from stretto_kernel.domain.run import attempts, blackboard, holders, queries
from stretto_kernel.domain.run.task import Leased
from stretto_kernel.timers.durable import DurableTimers, TimerKey

from tests.simulation.simulate import SimulationFailed, simulate
from tests.simulation.world import Scale

SEEDS = range(40)
STORMY = Scale(log_fault_share=0.1, fault_interval_s=0.5)


def found(scale: Scale = STORMY) -> str:
    """Return what the first failing seed says; fail when none does."""
    for seed in SEEDS:
        try:
            simulate(seed, scale)
        except SimulationFailed as failure:
            return str(failure)
    pytest.fail(f"nothing was found in seeds {SEEDS}")


def test_a_fence_that_compares_no_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    any_lease = Leased(WorkerId("anyone"), SessionId(""), attempt=1, leased_ns=0, ttl_ns=1)
    monkeypatch.setattr(holders, "fence", lambda *_: any_lease)
    assert re.search(r"3: a (write under epoch|result of a lease)|4: nothing follows", found())


def test_a_comparison_that_compares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blackboard, "_compare", lambda *_: None)
    assert "expected was" in found()


def test_a_shredding_that_keeps_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep(*_: object) -> None:
        return

    monkeypatch.setattr(RunKeys, "destroy", keep)
    assert "the key of" in found()


def test_answers_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(*_: object, **__: object) -> None:
        return

    monkeypatch.setattr(FactWriter, "answered", at_once)
    assert "1: " in found()


def test_assignments_and_signals_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        FactWriter, "when_settled", lambda _self, _run, committed, *_args: committed()
    )
    assert "1: " in found()


def test_reads_that_do_not_prove_the_ownership(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: GroupWriter) -> None:
        return

    monkeypatch.setattr(GroupWriter, "barrier", at_once)
    assert "1: " in found()


def test_memory_that_survives_a_dropped_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(self: FactWriter, batches: Sequence[int], cause: Refusal) -> None:
        for number in batches:
            self._batches.pop(number)

    monkeypatch.setattr(FactWriter, "batches_dropped", keep)
    assert re.search("follows version|event before", found())


def test_a_dropped_run_that_leaves_its_slots_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QueueGates, "block_limited", lambda *_: None)
    assert "7: " in found()


def test_a_limit_that_is_heeded_only_by_new_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    heed = QueueGates.heed

    def once(self: QueueGates, settings: Mapping[str, QueueSettings], now_ns: int) -> None:
        heed(self, {} if self.are_known else settings, now_ns)

    monkeypatch.setattr(QueueGates, "heed", once)
    assert "7: " in found()


def test_a_limit_that_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QueueGates, "count_leased", lambda *_: None)
    monkeypatch.setattr(QueueGates, "release", lambda *_: None)
    assert "7: " in found()


def test_a_store_that_takes_appends_of_fenced_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    append = MemoryStore.append

    def unfenced(
        self: MemoryStore, owner_epoch: int, events: Sequence[NewEvent]
    ) -> tuple[int, ...]:
        return append(self, self.owner_epoch, events)

    monkeypatch.setattr(MemoryStore, "append", unfenced)
    found()


def test_a_lease_told_of_before_it_was_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "stretto_kernel.dispatch.dispatcher.Lease",
        lambda **fields: Lease(**{**fields, "told": True}),
    )
    assert "1: revoked" in found()


def test_a_stop_repeated_before_it_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    def remember_at_once(self: Dispatcher, run: HostedRun, lease: Lease) -> None:
        stop = queries.stop_signal(run.state, lease.task)
        if stop is not None and lease.stop is None:
            lease.stop = build_signal(run.namespace, run.run_id, work_pb2.SIGNAL_KIND_CANCEL, stop)
            self._tell_holder(run, lease, lease.stop)

    monkeypatch.setattr(Dispatcher, "_signal_stop", remember_at_once)
    slow_log = Scale(log_fault_share=0.4, fault_interval_s=2.0, runs_per_client=8)
    assert "1: asked to stop" in found(slow_log)


def test_leases_that_never_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseTable, "take_expired", lambda *_: [])
    monkeypatch.setattr(LeaseTable, "next_expiry_mono_ns", lambda *_: None)
    assert "5: " in found()


def test_a_failure_whose_retry_after_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "duration_ns", lambda _: 0)
    assert "is waited for" in found()


def test_work_given_back_again_and_again_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "return_wait_ns", lambda _: 0)
    assert "is waited for" in found(Scale(log_fault_share=0.1))


def test_a_kernel_that_loses_its_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    take_due = DurableTimers.take_due

    def forget(self: DurableTimers, now_ns: int, limit: int) -> list[TimerKey]:
        take_due(self, now_ns, limit)
        return []

    monkeypatch.setattr(DurableTimers, "take_due", forget)
    assert "5: " in found()


def test_a_sealer_that_goes_on_when_its_seals_were_not_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = Sealer._begin

    def once(self: Sealer) -> None:
        if self._reading is None:
            begin(self)

    monkeypatch.setattr(Sealer, "_begin", once)
    found()


def test_a_sealer_that_reads_nothing_of_the_owner_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def from_the_head(self: Sealer) -> None:
        await self.key()
        await self._stream.fold()
        self._unsealed = self._nothing_after(await self._log.position())
        self._told = None
        self._following.set()

    monkeypatch.setattr(Sealer, "_read", from_the_head)
    found()
