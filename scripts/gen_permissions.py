"""Writes docs/permissions.md from the contracts and the table of holders; to the path given.

Run by `make proto`; `make check` fails when the committed page differs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

from stretto.common.v1.permission_pb2 import PERMISSION_UNSPECIFIED, Permission
from stretto.common.v1.principal_pb2 import PrincipalKind
from stretto_core.rpc.permissions import PERMISSIONS_HELD, required_permissions

GENERATED = Path(__file__).parents[1] / "libs" / "protogen"
INTRODUCTION = """\
<!-- Made by scripts/gen_permissions.py (make proto). Do not edit. -->
# Permissions

Who a caller is follows from its bearer token, never from a request. `stretto up` writes the tokens
of the services, `stretto token add NAME` one for a user; a token lies in `NAME.token`, mode 0600. A
caller without a token is `anonymous`, and is heard only from this machine.

Every method names one permission in its contract; a server with a method that names none does not
start. A caller whose kind does not hold it gets PERMISSION_DENIED; a wrong token, or none from
another machine, gets UNAUTHENTICATED.
"""


def main() -> None:
    """Write the page to the path in the first argument."""
    Path(sys.argv[1]).write_text("\n".join([INTRODUCTION, *holders(), "", *methods()]) + "\n")


def holders() -> Iterator[str]:
    """Yield the table of who holds what."""
    kinds = sorted(PERMISSIONS_HELD)
    names = [PrincipalKind.Name(kind).removeprefix("PRINCIPAL_KIND_").lower() for kind in kinds]
    yield "## Who holds what"
    yield ""
    yield f"| permission | {' | '.join(names)} |"
    yield f"| --- |{' --- |' * len(names)}"
    for permission in Permission.values():
        if permission != PERMISSION_UNSPECIFIED:
            marks = ["yes" if permission in PERMISSIONS_HELD[kind] else "-" for kind in kinds]
            yield f"| {_short(permission)} | {' | '.join(marks)} |"


def methods() -> Iterator[str]:
    """Yield the table of what each method needs."""
    yield "## What each method needs"
    yield ""
    yield "| method | permission |"
    yield "| --- | --- |"
    for service in sorted(_services()):
        for method, permission in sorted(required_permissions(service).items()):
            yield f"| {service}/{method} | {_short(permission)} |"


def _services() -> Iterator[str]:
    for path in GENERATED.rglob("*_pb2.py"):
        name = ".".join(path.relative_to(GENERATED).with_suffix("").parts)
        for service in importlib.import_module(name).DESCRIPTOR.services_by_name.values():
            yield service.full_name


def _short(permission: Permission.ValueType) -> str:
    return Permission.Name(permission).removeprefix("PERMISSION_").lower()


main()
