"""Who may call what: the permission each method names in its contract, and what each kind holds.

The table of holders is the whole policy; docs/permissions.md is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from stretto.common.v1.permission_pb2 import (
    PERMISSION_CONTROL_WORKER,
    PERMISSION_OPERATE,
    PERMISSION_PUBLIC,
    PERMISSION_READ,
    PERMISSION_START,
    PERMISSION_UNSPECIFIED,
    PERMISSION_WORK,
    PERMISSION_WRITE_BOARD,
    Permission,
    permission,
)
from stretto.common.v1.principal_pb2 import (
    PRINCIPAL_KIND_ANONYMOUS,
    PRINCIPAL_KIND_ENV,
    PRINCIPAL_KIND_KERNEL,
    PRINCIPAL_KIND_OPERATOR,
    PRINCIPAL_KIND_USER,
    PRINCIPAL_KIND_VERIFIER,
    PRINCIPAL_KIND_WORKER,
    PrincipalKind,
)

# Anyone on the machine, without a token, may do all of this. Judging results, answering questions,
# approving effects and managing tokens need permissions of their own, never anonymous.
_EVERYDAY = frozenset(
    {
        PERMISSION_PUBLIC,
        PERMISSION_READ,
        PERMISSION_START,
        PERMISSION_OPERATE,
        PERMISSION_WORK,
        PERMISSION_CONTROL_WORKER,
        PERMISSION_WRITE_BOARD,
    }
)

PERMISSIONS_HELD: Mapping[PrincipalKind.ValueType, frozenset[Permission.ValueType]] = {
    PRINCIPAL_KIND_ANONYMOUS: _EVERYDAY,
    PRINCIPAL_KIND_OPERATOR: _EVERYDAY,
    PRINCIPAL_KIND_USER: frozenset(
        {
            PERMISSION_PUBLIC,
            PERMISSION_READ,
            PERMISSION_START,
            PERMISSION_OPERATE,
            PERMISSION_WRITE_BOARD,
        }
    ),
    PRINCIPAL_KIND_WORKER: frozenset(
        {
            PERMISSION_PUBLIC,
            PERMISSION_READ,
            PERMISSION_START,
            PERMISSION_WORK,
            PERMISSION_WRITE_BOARD,
        }
    ),
    PRINCIPAL_KIND_VERIFIER: frozenset(
        {PERMISSION_PUBLIC, PERMISSION_READ, PERMISSION_WORK, PERMISSION_WRITE_BOARD}
    ),
    PRINCIPAL_KIND_ENV: frozenset({PERMISSION_PUBLIC, PERMISSION_READ}),
    PRINCIPAL_KIND_KERNEL: frozenset(
        {PERMISSION_PUBLIC, PERMISSION_READ, PERMISSION_CONTROL_WORKER}
    ),
}

# Contracts of others, which cannot bear our option: they reveal names of services, nothing more.
_PUBLIC_PACKAGES = ("grpc.health.v1.", "grpc.reflection.")


class PermissionMissing(Exception):
    """A method of a contract names no permission: the server refuses to start."""


def required_permissions(service_name: str) -> dict[str, Permission.ValueType]:
    """Return the permission of each method of a service. Raises PermissionMissing."""
    if service_name.startswith(_PUBLIC_PACKAGES):
        methods = descriptor_pool.Default().FindServiceByName(service_name).methods
        return {method.name: PERMISSION_PUBLIC for method in methods}
    service = descriptor_pool.Default().FindServiceByName(service_name)
    return {method.name: required_permission(method) for method in service.methods}


def required_permission(method: MethodDescriptor) -> Permission.ValueType:
    """Return the permission a method's contract names. Raises PermissionMissing without one."""
    named = method.GetOptions().Extensions[permission]
    if named == PERMISSION_UNSPECIFIED:
        raise PermissionMissing(
            f"{method.full_name}: give it option (stretto.common.v1.permission) in its contract"
        )
    return named


def holds(kind: PrincipalKind.ValueType, needed: Permission.ValueType) -> bool:
    """Tell whether a principal of this kind may call a method that needs `needed`."""
    return needed in PERMISSIONS_HELD.get(kind, frozenset())
