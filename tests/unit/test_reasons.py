"""Every reason word that can reach the wire stands in the contract, where all languages find it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import stretto_core.eventlog
import stretto_core.rpc
import stretto_kernel
from stretto.errors.v1.reason_pb2 import Reason
from stretto_core.errors import Refusal

WIRE = ("stretto_core.errors", "stretto_core.eventlog", "stretto_core.rpc", "stretto_kernel")


def refusals(root: type[Refusal] = Refusal) -> Iterator[type[Refusal]]:
    for child in root.__subclasses__():
        yield child
        yield from refusals(child)


def test_the_contract_lists_every_reason_word() -> None:
    for package in (stretto_core.eventlog, stretto_core.rpc, stretto_kernel):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    raised = {kind.reason for kind in refusals() if kind.__module__.startswith(WIRE)}
    assert {"LEASE_LOST", "PARTITION_MOVED", "TOKEN_UNKNOWN"} <= raised, "the walk finds them"
    listed = {name.removeprefix("REASON_") for name in Reason.DESCRIPTOR.values_by_name}
    assert raised - listed - {Refusal.reason} == set()
