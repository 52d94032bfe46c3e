"""NamespaceService: the settings of namespaces in the partition a kernel owns."""

from __future__ import annotations

from typing import Any

from stretto.namespace.v1 import namespace_pb2
from stretto.namespace.v1 import namespace_service_pb2 as pb
from stretto.namespace.v1.namespace_service_pb2_grpc import NamespaceServiceServicer
from stretto_core.ids import Namespace

from stretto_kernel.domain.namespace import NamespaceSettings, UpdateNamespace
from stretto_kernel.domain.run.canonical import digest_of
from stretto_kernel.kernel import Kernel
from stretto_kernel.servicers.asked import asked_now
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.name_pages import parse_name_page
from stretto_kernel.servicers.run_requests import position_of

ETAG_CHARACTERS_MAX = 64
PATH = "encrypt_payloads"


class NamespaceServicer(NamespaceServiceServicer):
    """Answers from the ownership at hand."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def GetNamespace(
        self, request: pb.GetNamespaceRequest, context: Any
    ) -> pb.GetNamespaceResponse:
        """See the contract."""
        fields = Fields()
        namespace = fields.namespace("name", request.name)
        fields.refuse("the request")
        namespaces = self._kernel.partition.namespaces
        settings = await namespaces.read(lambda state: state.of(namespace))
        return pb.GetNamespaceResponse(namespace=_show(namespace, settings))

    async def ListNamespaces(
        self, request: pb.ListNamespacesRequest, context: Any
    ) -> pb.ListNamespacesResponse:
        """See the contract."""
        page = parse_name_page(Fields(), "namespaces", request.page_size, request.page_token)
        known = await self._kernel.partition.namespaces.read(lambda state: dict(state.settings))
        names = sorted(name for name in known if name > page.after)
        token = page.next_token(names[page.size - 1]) if len(names) > page.size else ""
        shown = [_show(name, known[name]) for name in names[: page.size]]
        return pb.ListNamespacesResponse(namespaces=shown, next_page_token=token)

    async def UpdateNamespace(
        self, request: pb.UpdateNamespaceRequest, context: Any
    ) -> pb.UpdateNamespaceResponse:
        """See the contract."""
        asked = asked_now(self._kernel.ports.clock)
        command = _parse(request, asked.now_ns)
        caller = asked.caller(command.request_id, command.request_digest)
        shown, number = await self._kernel.partition.namespaces.update(
            command, caller, lambda state: _show(command.namespace, state.of(command.namespace))
        )
        position = position_of(self._kernel.ports.log.partition, number)
        return pb.UpdateNamespaceResponse(namespace=shown, position=position)


def _parse(request: pb.UpdateNamespaceRequest, now_ns: int) -> UpdateNamespace:
    fields, asked = Fields(), request.namespace
    namespace = fields.namespace("namespace.name", asked.name)
    request_id = fields.request_id(request.request_id)
    etag = fields.text("namespace.etag", asked.etag, characters_max=ETAG_CHARACTERS_MAX)
    if set(request.update_mask.paths) != {PATH}:
        fields.wrong("update_mask", f"must name {PATH}, nothing else")
    fields.refuse("the request")
    return UpdateNamespace(
        now_ns=now_ns,
        request_id=request_id,
        request_digest=digest_of("UpdateNamespace", namespace, etag, asked.encrypt_payloads),
        namespace=namespace,
        encrypts=asked.encrypt_payloads,
        etag=etag,
    )


def _show(namespace: Namespace, settings: NamespaceSettings) -> namespace_pb2.Namespace:
    shown = namespace_pb2.Namespace(
        name=f"namespaces/{namespace}",
        encrypt_payloads=settings.encrypts,
        etag=settings.etag,
    )
    if settings.changed_ns:
        shown.update_time.FromNanoseconds(settings.changed_ns)
    return shown
