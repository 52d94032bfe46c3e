"""What lease holders write by unary calls: the holder writer's items, gathered into one answer.

Each item of a call is a `Holder` of its own, so that answers come back in the order asked, whatever
order they are decided in. The call is answered when every item is. Fails with the ownership.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain

from google.rpc import status_pb2
from stretto.common.v1 import lease_pb2
from stretto.common.v1.principal_pb2 import Principal
from stretto.work.v1 import work_pb2
from stretto_core.errors import Refusal
from stretto_core.ids import WorkerId

from stretto_kernel.dispatch.lease_table import Lease
from stretto_kernel.dispatch.takers import Holder, HolderWrites

ToStatus = Callable[[Refusal], status_pb2.Status]
Write = Callable[[Holder], None]

DECISIONS_PER_STRETCH_MAX = 25
"""Others run after so many of a call's items: a stretch on the loop is bounded."""


class UnaryWrites:
    """The unary calls of lease holders under one ownership of the partition."""

    def __init__(self, writes: HolderWrites, to_status: ToStatus) -> None:
        self._writes = writes
        self._to_status = to_status
        self._open: set[_Exchange] = set()

    async def renew(
        self, renewals: Sequence[work_pb2.Renewal], principal: Principal, traceparent: str
    ) -> tuple[list[work_pb2.Receipt], list[work_pb2.Signal]]:
        """Renew each; return why some are refused, and what is asked of the others."""
        exchange = _Exchange(principal, traceparent, self._to_status)
        writes = (partial(self._writes.renew, renewal=renewal) for renewal in renewals)
        await self._answered(exchange, writes)
        return exchange.receipts, exchange.signals

    async def write(
        self,
        spawns: Sequence[work_pb2.Spawn],
        outcomes: Sequence[work_pb2.Outcome],
        principal: Principal,
        traceparent: str,
    ) -> list[work_pb2.Receipt]:
        """Decide each, spawns first; return what became of each, in order, once it may leave."""
        exchange = _Exchange(principal, traceparent, self._to_status)
        writes = chain(
            (partial(self._writes.spawn, spawn=spawn) for spawn in spawns),
            (partial(self._writes.report, outcome=outcome) for outcome in outcomes),
        )
        await self._answered(exchange, writes)
        return exchange.receipts

    def close_all(self, cause: Refusal) -> None:
        """End every call with `cause`: what became of its items is not known here."""
        for exchange in list(self._open):
            exchange.fail(cause)

    async def _answered(self, exchange: _Exchange, writes: Iterable[Write]) -> None:
        self._open.add(exchange)
        try:
            for count, write in enumerate(writes, start=1):
                exchange.begin(write)
                if count % DECISIONS_PER_STRETCH_MAX == 0:
                    await asyncio.sleep(0)
            await exchange.until_answered()
        finally:
            self._open.discard(exchange)


class _Exchange:
    """One unary call: its items, and what each came to."""

    def __init__(self, principal: Principal, traceparent: str, to_status: ToStatus) -> None:
        self.principal = principal
        self.traceparent = traceparent
        self.to_status = to_status
        self._items: list[_Item] = []
        self._open_count = 1  # The call itself, until all items are begun.
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self, write: Write) -> None:
        """Add an item and have it written."""
        item = _Item(self)
        self._items.append(item)
        self._open_count += 1
        write(item)

    async def until_answered(self) -> None:
        """Return once every item has its answer. Raises what `fail` was told."""
        self.item_ended()
        await self._ended

    def item_ended(self) -> None:
        """One item has its answer, or all are begun."""
        self._open_count -= 1
        if not self._open_count and not self._ended.done():
            self._ended.set_result(None)

    def fail(self, cause: Refusal) -> None:
        """There will be no answer."""
        if not self._ended.done():
            self._ended.set_exception(cause)

    @property
    def receipts(self) -> list[work_pb2.Receipt]:
        """The receipts, in the order asked."""
        return [item.receipt for item in self._items if item.receipt is not None]

    @property
    def signals(self) -> list[work_pb2.Signal]:
        """What is asked of the holders."""
        return [item.signal for item in self._items if item.signal is not None]


class _Item:
    """One renewal, outcome or spawn of a unary call; a `Holder` for the writer."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self._ended = False
        self.receipt: work_pb2.Receipt | None = None
        self.signal: work_pb2.Signal | None = None

    @property
    def principal(self) -> Principal:
        """See `Holder`."""
        return self._exchange.principal

    @property
    def traceparent(self) -> str:
        """See `Holder`."""
        return self._exchange.traceparent

    @property
    def worker_id(self) -> WorkerId:
        """See `Holder`: a unary write names its lease and nobody else."""
        return WorkerId("")

    def answer(self, receipt: work_pb2.Receipt) -> None:
        """See `Holder`."""
        self.receipt = receipt
        self._end()

    def renewed(self, lease: Lease) -> None:
        """See `Holder`."""
        self.signal = lease.stop
        self._end()

    def renewal_unknown(self, token: lease_pb2.LeaseToken, cause: Refusal) -> None:
        """See `Holder`."""
        self.answer(
            work_pb2.Receipt(
                token=lease_pb2.LeaseToken(work_item=token.work_item, epoch=token.epoch),
                kind=work_pb2.RECEIPT_KIND_RENEWAL,
                status=self._exchange.to_status(cause),
            )
        )

    def flush(self) -> None:
        """See `Holder`: the call's own task carries the answer."""

    def _end(self) -> None:
        # A renewal with wrong details is accepted and then refused: one answer all the same.
        if not self._ended:
            self._ended = True
            self._exchange.item_ended()
