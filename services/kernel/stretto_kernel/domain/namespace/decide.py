"""Deciding what an update of a namespace makes true. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from stretto.namespace.v1 import events_pb2 as ev
from stretto_core.errors import Exhausted
from stretto_core.ids import Namespace, RequestId

from stretto_kernel.domain.namespace.state import NamespacesState
from stretto_kernel.domain.revisions import require_etag

NAMESPACES_MAX = 10_000


class NamespaceLimit(Exhausted):
    """As many namespaces have settings as may."""

    reason = "NAMESPACE_LIMIT"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateNamespace:
    """Change settings of a namespace.

    request_digest: SHA-256 over the parsed request's fields, 32 bytes.
    etag: of the settings that the caller saw; empty = not compared.
    """

    now_ns: int
    request_id: RequestId
    request_digest: bytes
    namespace: Namespace
    encrypts: bool
    etag: str = ""


def decide(
    state: NamespacesState, command: UpdateNamespace
) -> tuple[ev.PayloadEncryptionChanged, ...]:
    """Return the facts `command` makes true; () when it repeats one, or nothing would change.

    Raises RequestIdReused, RequestIdLimit, RevisionMismatch, NamespaceLimit.
    """
    repeated = state.requests.had_effect(
        command.request_id, command.request_digest, now_ns=command.now_ns
    )
    if repeated:
        return ()
    settings = state.of(command.namespace)
    require_etag(f"namespace {command.namespace!r}", command.etag, settings.etag)
    if command.encrypts == settings.encrypts:
        return ()
    if command.namespace not in state.settings and len(state.settings) >= NAMESPACES_MAX:
        raise NamespaceLimit(
            f"{NAMESPACES_MAX} namespaces have settings already",
            namespace_count_max=str(NAMESPACES_MAX),
        )
    fact = ev.PayloadEncryptionChanged(
        namespace=command.namespace, encrypt_payloads=command.encrypts
    )
    return (fact,)
