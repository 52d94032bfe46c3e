"""Who may call what, and from where."""

from __future__ import annotations

import pytest
from stretto.common.v1.permission_pb2 import (
    PERMISSION_CONTROL_WORKER,
    PERMISSION_OPERATE,
    PERMISSION_PUBLIC,
    PERMISSION_READ,
    PERMISSION_START,
    PERMISSION_WORK,
    PERMISSION_WRITE_BOARD,
    Permission,
)
from stretto.common.v1.principal_pb2 import (
    PRINCIPAL_KIND_ANONYMOUS,
    PRINCIPAL_KIND_ENV,
    PRINCIPAL_KIND_KERNEL,
    PRINCIPAL_KIND_OPERATOR,
    PRINCIPAL_KIND_UNSPECIFIED,
    PRINCIPAL_KIND_USER,
    PRINCIPAL_KIND_VERIFIER,
    PRINCIPAL_KIND_WORKER,
    Principal,
    PrincipalKind,
)
from stretto_core.errors import PermissionDenied, Unauthenticated
from stretto_core.rpc.identity import ANONYMOUS, authorize
from stretto_core.rpc.permissions import PERMISSIONS_HELD, holds
from stretto_core.rpc.tokens import TokenTable

LOCAL = "ipv4:127.0.0.1:4711"
REMOTE = "ipv4:192.0.2.7:4711"
ALL = set(Permission.values()) - {0}


@pytest.mark.parametrize(
    ("kind", "denied"),
    [
        (PRINCIPAL_KIND_UNSPECIFIED, ALL),
        (PRINCIPAL_KIND_ANONYMOUS, set()),
        (PRINCIPAL_KIND_OPERATOR, set()),
        (PRINCIPAL_KIND_USER, {PERMISSION_WORK, PERMISSION_CONTROL_WORKER}),
        (PRINCIPAL_KIND_WORKER, {PERMISSION_OPERATE, PERMISSION_CONTROL_WORKER}),
        (
            PRINCIPAL_KIND_VERIFIER,
            {PERMISSION_START, PERMISSION_OPERATE, PERMISSION_CONTROL_WORKER},
        ),
        (PRINCIPAL_KIND_ENV, ALL - {PERMISSION_PUBLIC, PERMISSION_READ}),
        (
            PRINCIPAL_KIND_KERNEL,
            {PERMISSION_START, PERMISSION_OPERATE, PERMISSION_WORK, PERMISSION_WRITE_BOARD},
        ),
    ],
)
def test_the_table_of_holders(
    kind: PrincipalKind.ValueType, denied: set[Permission.ValueType]
) -> None:
    assert {each for each in ALL if not holds(kind, each)} == denied


def test_every_kind_has_a_row() -> None:
    assert set(PERMISSIONS_HELD) == set(PrincipalKind.values()) - {PRINCIPAL_KIND_UNSPECIFIED}


@pytest.mark.parametrize("peer", [LOCAL, "ipv6:[::1]:1", "ipv6:%5B::1%5D:1", "unix:", "unix:/s"])
def test_a_local_caller_without_a_token_is_anonymous(peer: str) -> None:
    assert authorize(None, peer, PERMISSION_OPERATE, TokenTable()) is ANONYMOUS


@pytest.mark.parametrize("peer", [REMOTE, "ipv6:[2001:db8::1]:1", "ipv4:12.7.0.1:1", "", "dns:x"])
def test_a_remote_caller_presents_a_token(peer: str) -> None:
    with pytest.raises(Unauthenticated):
        authorize(None, peer, PERMISSION_READ, TokenTable())


def test_what_is_public_is_public_from_anywhere() -> None:
    assert authorize(None, REMOTE, PERMISSION_PUBLIC, TokenTable()) is ANONYMOUS


class _OneWorker:
    def principal_of(self, token: str) -> Principal | None:
        return Principal(kind=PRINCIPAL_KIND_WORKER, name="w") if token == "good" else None


@pytest.mark.parametrize("header", ["Bearer good", "bearer good", "BEARER  good "])
def test_a_known_token_is_its_principal_from_anywhere(header: str) -> None:
    assert authorize(header, REMOTE, PERMISSION_WORK, _OneWorker()).name == "w"


@pytest.mark.parametrize("header", ["Bearer bad", "Bearer", "", "Basic good", "good"])
def test_a_bad_token_is_never_anonymous(header: str) -> None:
    with pytest.raises(Unauthenticated):
        authorize(header, LOCAL, PERMISSION_PUBLIC, _OneWorker())


def test_a_token_without_the_permission_is_denied_even_locally() -> None:
    with pytest.raises(PermissionDenied):
        authorize("Bearer good", LOCAL, PERMISSION_OPERATE, _OneWorker())
