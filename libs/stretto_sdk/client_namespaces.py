"""The part of the client that is about namespaces: what holds for their runs; forgetting one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from stretto.namespace.v1 import namespace_pb2
from stretto.namespace.v1 import namespace_service_pb2 as pb
from stretto.run.v1 import run_service_pb2 as run_pb
from stretto_core.ids import IdSource

from stretto_sdk.client_calls import Calls
from stretto_sdk.client_logs import AnyRun, id_of
from stretto_sdk.runs import Run, optional_time, run_of

_COLLECTION = "namespaces/"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceSettings:
    """What holds for the runs that are started in a namespace.

    encrypt_payloads: each has a data key of its own, and can be shredded. update_time: None = never
    set. etag: for `Client.update_namespace`.
    """

    namespace: str
    encrypt_payloads: bool
    update_time: datetime | None
    etag: str


class NamespaceCalls:
    """What a client can ask about namespaces; `Client` has it all."""

    _calls: Calls
    _ids: IdSource
    _namespace: str

    async def namespaces(self) -> Sequence[NamespaceSettings]:
        """Read the namespaces of which a setting was ever changed, by name.

        >>> secret = [one.namespace for one in await client.namespaces() if one.encrypt_payloads]
        """
        request = pb.ListNamespacesRequest(page_size=1_000)
        found: list[NamespaceSettings] = []
        while True:
            page = await self._calls.unary(self._calls.namespaces.ListNamespaces, request)
            found += [_settings(each) for each in page.namespaces]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def namespace_settings(self, namespace: str = "") -> NamespaceSettings:
        """Read the settings of one namespace, by default the client's own.

        >>> print((await client.namespace_settings()).encrypt_payloads)
        """
        request = pb.GetNamespaceRequest(name=f"{_COLLECTION}{namespace or self._namespace}")
        answer = await self._calls.unary(self._calls.namespaces.GetNamespace, request)
        return _settings(answer.namespace)

    async def update_namespace(
        self, namespace: str = "", *, encrypt_payloads: bool, etag: str = ""
    ) -> NamespaceSettings:
        """Say whether runs started from now on have a data key; older ones stay as they are.

        >>> await client.update_namespace("patients", encrypt_payloads=True)

        namespace: by default the client's own. etag: else it is refused.
        """
        request = pb.UpdateNamespaceRequest(
            namespace=namespace_pb2.Namespace(
                name=f"{_COLLECTION}{namespace or self._namespace}",
                encrypt_payloads=encrypt_payloads,
                etag=etag,
            ),
            request_id=self._ids.uuid7(),
        )
        request.update_mask.paths.append("encrypt_payloads")
        answer = await self._calls.unary(self._calls.namespaces.UpdateNamespace, request)
        return _settings(answer.namespace)

    async def shred(self, run: AnyRun, *, reason: str = "") -> Run:
        """Forget for good what an ended, encrypted run carried: its data key is destroyed.

        >>> await client.shred(run, reason="the customer left")

        What it was called, how it went and when stays readable; every value reads as SHREDDED.
        Raises NotFound, FailedPrecondition (RUN_NOT_ENDED: kill it first, RUN_NOT_ENCRYPTED).
        """
        request = run_pb.ShredRunRequest(
            name=f"{_COLLECTION}{self._namespace}/runs/{id_of(run)}",
            request_id=self._ids.uuid7(),
            reason=reason,
        )
        answer = await self._calls.unary(self._calls.runs.ShredRun, request)
        return run_of(answer.run, answer.position)


def _settings(message: namespace_pb2.Namespace) -> NamespaceSettings:
    return NamespaceSettings(
        namespace=message.name.removeprefix(_COLLECTION),
        encrypt_payloads=message.encrypt_payloads,
        update_time=optional_time(message, message.update_time, "update_time"),
        etag=message.etag,
    )
