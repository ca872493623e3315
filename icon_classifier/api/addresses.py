"""Which network addresses belong to the public internet, and who a request comes from."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

_REFUSED = tuple(
    ipaddress.ip_network(network)
    for network in (
        # Python's is_global follows IANA's registries, but differs between its own patch releases;
        # these are refused whatever it says.
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("192.88.99.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure: a public address that answers every virtual machine
        *("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"),  # IPv4 inside IPv6
        *("2001::/32", "2002::/16"),  # Teredo and 6to4: likewise
        *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)

_ISATAP = (0x00005EFE, 0x02005EFE)
"""RFC 5214: the upper half of an interface identifier whose lower half is an IPv4 address."""


def is_public(address: str) -> bool:
    """Tell whether an address is one of the public internet.

    Loopback, private, link-local, multicast and reserved addresses, those on which clouds tell
    secrets to their machines, and every form that carries an IPv4 address inside IPv6 are not.

    Parameters
    ----------
    address : str
        IPv4 or IPv6, as a resolver gives it.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if any(parsed in network for network in _REFUSED if network.version == parsed.version):
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and (
        parsed.scope_id is not None  # "%eth0" names an interface of this machine
        or (int(parsed) >> 32) & 0xFFFFFFFF in _ISATAP
    ):
        return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


def client_of(peer: str, forwarded: Sequence[str], proxies: int) -> str:
    """Tell who asks, for the limit on each client.

    Parameters
    ----------
    peer : str
        The address at the other end of the connection.
    forwarded : sequence of str
        The values of the X-Forwarded-For headers, in order.
    proxies : int
        How many proxies stand in front. Each appends the address that it was called from, so only
        the last ``proxies`` entries are true; whatever stands before them the client made up.

    Returns
    -------
    str
        An address; of IPv6 the /64 network, since a subscriber has a whole one.
    """
    entries = [entry.strip() for value in forwarded for entry in value.split(",")]
    address = entries[-proxies] if 0 < proxies <= len(entries) else peer
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return peer
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
