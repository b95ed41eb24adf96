"""Whose connection it is: what one client may have whole counts as one address. Knows no HTTP."""

from __future__ import annotations

import ipaddress


def client_address(client: tuple[str, int] | None) -> str:
    """The host of a (host, port); of IPv6 the network of 64 bits, which one client may have."""
    host = ipaddress.ip_address(client[0].partition("%")[0] if client else 0)
    if isinstance(host, ipaddress.IPv4Address) or host.ipv4_mapped is not None:
        return str(host)
    return str(ipaddress.ip_network((host, 64), strict=False))
