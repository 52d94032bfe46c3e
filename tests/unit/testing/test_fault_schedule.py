"""The schedule of faults: what is drawn, when it strikes, and that its seed repeats it."""

from __future__ import annotations

from stretto_core.testing.fault_schedule import FaultKind, FaultSchedule
from stretto_core.testing.seeded import random_for
from stretto_core.testing.trace import Trace
from stretto_core.testing.virtual_loop import VirtualLoop


def strikes(seed: int) -> tuple[list[tuple[str, float]], str, dict[str, int], float]:
    loop = VirtualLoop(random_for(seed, "order"))
    start, struck = loop.time(), []

    def strike(name: str) -> str:
        struck.append((name, loop.time() - start))
        return "done"

    async def main() -> tuple[str, dict[str, int]]:
        trace = Trace(loop, length_max=3)
        kinds = [
            FaultKind("often", 9, lambda: strike("often")),
            FaultKind("seldom", 1, lambda: strike("seldom")),
            FaultKind("never", 0, lambda: strike("never")),
            FaultKind("idle", 1, lambda: None),
        ]
        schedule = FaultSchedule(kinds, random_for(seed, "faults"), trace, mean_interval_s=1.0)
        await schedule.run_for(60.0)
        return str(trace), schedule.counts

    trace, counts = loop.run(main())
    return struck, trace, counts, loop.time() - start


def test_faults_strike_by_weight_until_the_time_is_over() -> None:
    struck, trace, counts, ended_s = strikes(3)
    names = [name for name, _ in struck]
    assert names.count("often") > names.count("seldom") > 0
    assert "never" not in names
    assert counts == {name: names.count(name) for name in ("often", "seldom")}
    assert max(at_s for _, at_s in struck) <= 60.0 <= ended_s
    assert len(trace.splitlines()) == 3


def test_the_seed_decides_when_which_fault_strikes() -> None:
    assert strikes(3) == strikes(3)
    assert strikes(3)[0] != strikes(4)[0]
