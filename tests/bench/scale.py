"""How much the bench does: the sizes of every workload, in full and as toys for its own test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Sizes. rounds: how often each workload is repeated; kill_rounds: those with a SIGKILL."""

    rounds: int = 3
    kill_rounds: int = 3
    warm_runs: int = 200
    independent_runs: int = 2_000
    outstanding: int = 64
    sequence_runs: int = 200
    fan_tasks: int = 500
    chain_tasks: int = 100
    killed_runs: int = 300
    held_bodies: int = 200
    append_tasks: int = 20_000
    fold_tasks: int = 20_000
    view_runs: int = 5_000
    view_tasks: int = 20_000
    past_tasks: int = 50_000
    past_reads: int = 200
    size_tasks: tuple[int, ...] = (1_000, 10_000, 100_000)
    size_measured_tasks: int = 20_000
    queued_tasks: tuple[int, ...] = (1_000, 1_000_000)
    queued_tasks_per_run: int = 10_000
    lease_steps: int = 500
    ended_runs: int = 20_000
    echo_calls: int = 6_400
    codec_events: int = 500_000
    inserts_s: int = 4  # Whole seconds: pgbench takes no others.
    offered_s: float = 8.0
    idle_s: float = 10.0
    settle_s: float = 12.0  # What was recorded last is sealed 10 s later; then it rests.


FULL = Scale()
TOY = Scale(
    rounds=1,
    kill_rounds=1,
    warm_runs=4,
    independent_runs=12,
    outstanding=4,
    sequence_runs=4,
    fan_tasks=5,
    chain_tasks=4,
    killed_runs=6,
    held_bodies=4,
    append_tasks=40,
    fold_tasks=100,
    view_runs=10,
    view_tasks=40,
    past_tasks=20,
    past_reads=5,
    size_tasks=(10, 20, 40),
    size_measured_tasks=20,
    queued_tasks=(10, 40),
    queued_tasks_per_run=20,
    lease_steps=5,
    ended_runs=20,
    echo_calls=64,
    codec_events=10,
    inserts_s=1,
    offered_s=0.3,
    idle_s=0.3,
    settle_s=0.0,
)
"""Names of workloads keep the sizes of the full scale."""
