"""Name the client of a request, for limits that count by client, and the protocol it speaks."""

from __future__ import annotations

import functools
import ipaddress
import logging
from collections.abc import Sequence

_log = logging.getLogger(__name__)


def client_address(peer: str, forwarded: Sequence[str], proxies: int) -> str:
    """Find the address that the limits for one client apply to.

    Parameters
    ----------
    peer : str
        The address at the other end of the connection.
    forwarded : sequence of str
        The values of the X-Forwarded-For headers, in order.
    proxies : int
        Number of trusted proxies in front. Each appends the address that called it, so only the
        last ``proxies`` entries are reliable; the client can forge the others.

    Returns
    -------
    str
        An IPv4 address, or the /64 network of an IPv6 address, because one subscriber has all of
        it; that of the peer where there is no valid entry, and the peer as it is where that is no
        address either.
    """
    if forwarded and not proxies:
        _warn_of_proxies()
    entries = [entry for value in forwarded for entry in value.split(",")]
    entry = entries[-proxies] if 0 < proxies <= len(entries) else peer
    return _network(entry) or _network(peer) or peer


def client_protocol(protocol: str, forwarded: Sequence[str], proxies: int) -> str:
    """Find the protocol of the address that the client asked for, ``http`` or ``https``.

    Parameters
    ----------
    protocol : str
        That of the connection.
    forwarded : sequence of str
        The values of the X-Forwarded-Proto headers, in order; the first is the client's.
    proxies : int
        Number of trusted proxies in front; without any the header is ignored.
    """
    first = ",".join(forwarded).partition(",")[0].strip().lower()
    return first if proxies and first in ("http", "https") else protocol


@functools.cache  # once: any stranger can send the header
def _warn_of_proxies() -> None:
    _log.warning(
        "A request has the header X-Forwarded-For. If a proxy sends it, set the number of proxies "
        "(PROXIES; for the JSON API ICON_CLASSIFIER_API_PROXIES): until then all visitors behind "
        "it count as one client."
    )


def _network(text: str) -> str | None:
    """Parse ``1.2.3.4``, ``1.2.3.4:567``, ``::1`` or ``[::1]:567``; None for anything else."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        # On a socket for both versions an IPv4 client is ::ffff:1.2.3.4: one /64 has all of them.
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((int(address), 64), strict=False))
        address = address.ipv4_mapped
    return str(address)
