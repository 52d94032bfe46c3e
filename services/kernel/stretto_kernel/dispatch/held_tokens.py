"""Which leases that a worker says it holds are over, for sure: what it drops then is gone for good.

Nothing is said of facts that are not committed, nor by an owner that was replaced: it does not know
its successor's leases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from stretto.common.v1.lease_pb2 import LeaseToken
from stretto_core.errors import Refusal, Unavailable

from stretto_kernel.app.fact_writer import DECIDE_AGAIN_MAX, StoreUnsettled
from stretto_kernel.app.hosted_run import HostedRun
from stretto_kernel.app.hosted_stream import DecidedAgain
from stretto_kernel.app.stream_host import StreamHost
from stretto_kernel.dispatch.assignments import parse_work_item
from stretto_kernel.dispatch.lease_table import Lease


async def tokens_over(
    host: StreamHost, tokens: Sequence[LeaseToken], keep: Callable[[LeaseToken], Lease | None]
) -> list[LeaseToken]:
    """Return the tokens for which `keep` finds no open lease, by committed facts alone.

    Raises Unavailable, StoreUnsettled.
    """
    for _ in range(DECIDE_AGAIN_MAX + 1):
        judged = [(run, run.decided) for run in await _load_runs(host, tokens)]
        over = [token for token in tokens if keep(token) is None]
        await host.facts.writer.barrier()
        try:
            for run, version in judged:
                await host.facts.answered(run, version, own_facts=True)
        except DecidedAgain:
            continue
        return over
    raise StoreUnsettled("the facts could not be stored")


async def _load_runs(host: StreamHost, tokens: Iterable[LeaseToken]) -> list[HostedRun]:
    named = map(parse_work_item, (token.work_item for token in tokens))
    runs = []
    for run_id in dict.fromkeys(each[1] for each in named if each is not None):
        try:
            runs.append(await host.load(run_id))
        except Refusal as refusal:
            if isinstance(refusal, Unavailable):
                raise
    return runs
