"""Who calls: from a bearer token, or anonymous without one, and only from this machine.

A proxy on this machine makes its callers look local: give such an installation no open port.
"""

from __future__ import annotations

from typing import Protocol

from stretto.common.v1.permission_pb2 import PERMISSION_PUBLIC, Permission
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_ANONYMOUS, Principal, PrincipalKind

from stretto_core.errors import PermissionDenied, Unauthenticated
from stretto_core.rpc.permissions import holds

ANONYMOUS = Principal(kind=PRINCIPAL_KIND_ANONYMOUS, name="anonymous")
_LOOPBACK = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:")


class TokenUnknown(Unauthenticated):
    """The token presented is not one of this installation's, or was removed."""

    reason = "TOKEN_UNKNOWN"


class TokenRequired(Unauthenticated):
    """Callers from other machines present a token."""

    reason = "TOKEN_REQUIRED"


class Tokens(Protocol):
    """Whom a presented token stands for: a TokenTable, or a TokenFile that follows its file."""

    def principal_of(self, token: str) -> Principal | None:
        """Return the token's principal, or None for an unknown one."""
        ...


def authorize(
    authorization: str | None,
    peer: str,
    needed: Permission.ValueType,
    tokens: Tokens,
) -> Principal:
    """Return who calls, once it is known that they may.

    authorization: the header of that name; peer: as gRPC writes it. Raises TokenUnknown,
    TokenRequired, PermissionDenied.
    """
    principal = ANONYMOUS
    if authorization is not None:
        principal = bearer(authorization, tokens)
    elif needed != PERMISSION_PUBLIC and not peer.startswith(_LOOPBACK):
        raise TokenRequired("present a bearer token: only callers on this machine need none")
    if not holds(principal.kind, needed):
        raise PermissionDenied(
            "this principal may not call this method",
            principal=principal.name,
            kind=PrincipalKind.Name(principal.kind),
            permission=Permission.Name(needed),
        )
    return principal


def bearer(authorization: str, tokens: Tokens) -> Principal:
    """Return whom an authorization header stands for now. Raises TokenUnknown."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise TokenUnknown("the authorization header is not 'Bearer TOKEN'")
    principal = tokens.principal_of(token.strip())
    if principal is None:
        raise TokenUnknown("this token is not known here: it is wrong, or was revoked")
    return principal
