"""What can be asked of the settings of queues: leasing has to heed them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from stretto_core.eventlog.codec import Codec

from stretto_kernel.app.fact_writer import Decider, FactWriter
from stretto_kernel.app.settings_stream import Ports, SettingsStream
from stretto_kernel.domain.queue import EVENTS, KIND, QueuesState, decide, evolve


class QueueCalls(SettingsStream[QueuesState]):
    """The settings of the queues of one ownership of a partition; `fold` first.

    defaults: most open leases of queues for which no fact says it. changed, voided: see
    `ResidentStream`.
    """

    def __init__(
        self,
        ports: Ports,
        facts: FactWriter,
        *,
        defaults: Mapping[str, int],
        changed: Callable[[QueuesState], None],
        voided: Callable[[], None],
    ) -> None:
        super().__init__(
            ports,
            facts,
            Decider(Codec(EVENTS), decide, evolve),
            kind=KIND,
            new_state=partial(QueuesState, defaults),
            changed=changed,
            voided=voided,
        )
