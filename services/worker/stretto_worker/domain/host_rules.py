"""Which hosts an http task may call: by name and by the address that is really dialled. Pure.

A rule is a name (`api.example.com`), all names below one (`*.example.com`), an address or a network
(`10.0.0.0/8`), or a word: `private` (every address that is not public), `link-local` (where clouds
keep their machines' credentials). What is denied is denied, whatever allows it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LINK_LOCAL = ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128")


class HostRules:
    """allow: empty for every host. Raises ValueError for what is no rule."""

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ("link-local",)) -> None:
        self._allow = [_Rule(text) for text in allow]
        self._deny = [_Rule(text) for text in deny]

    def allows(self, host: str, address: str) -> bool:
        """Whether `host`, which is at `address`, may be called."""
        name, found = host.lower().rstrip("."), _address_of(address)
        if any(rule.matches(name, found) for rule in self._deny):
            return False
        return not self._allow or any(rule.matches(name, found) for rule in self._allow)


class _Rule:
    def __init__(self, text: str) -> None:
        self._name = self._suffix = ""
        self._networks: tuple[Network, ...] = ()
        self._private = text == "private"
        if text == "link-local":
            self._networks = tuple(ipaddress.ip_network(each) for each in _LINK_LOCAL)
        elif text.startswith("*."):
            self._suffix = text[1:].lower()
        elif not self._private:
            try:
                self._networks = (ipaddress.ip_network(text, strict=False),)
            except ValueError:
                if not text or set(text) & set("/:* ") or text[-1].isdigit():
                    raise ValueError(f"{text!r} is no host, address or network") from None
                self._name = text.lower().rstrip(".")

    def matches(self, name: str, address: Address) -> bool:
        if self._name or self._suffix:
            return name == self._name or bool(self._suffix and name.endswith(self._suffix))
        if self._private:
            return not address.is_global
        return any(address in network for network in self._networks)


def _address_of(text: str) -> Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    # ::ffff:127.0.0.1 is dialled as 127.0.0.1.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
