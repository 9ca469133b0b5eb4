"""Addresses at which a cloud hands credentials to its machines: no recording lies there.

Whoever can name an address, or answer with a redirection to one, could have them fetched and looked at. A name is
judged by what it resolves to, at the moment of connecting and for each redirection, so that no second answer of a name
server gets round it.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import aiohttp

_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local: AWS, Google, Azure, Oracle, and the containers of ECS
        "fe80::/10",
        "fd00:ec2::/32",  # AWS over IPv6
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's wire server
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class MetadataHost(OSError):
    """Raised into aiohttp, which takes it for a connection that could not be made."""

    @staticmethod
    def behind(error: BaseException | None) -> MetadataHost | None:
        """The one that an exception was raised for, however often it was wrapped."""
        while error is not None and not isinstance(error, MetadataHost):
            inner = getattr(error, "os_error", None)
            error = inner if isinstance(inner, OSError) else error.__cause__ or error.__context__
        return error


def is_metadata_host(host: str) -> bool:
    """Whether a literal address is one of them; a name is not known before it is resolved."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address in _NAT64:
            address = ipaddress.ip_address(int(address) & 0xFFFF_FFFF)
    return any(address.version == network.version and address in network for network in _NETWORKS)


async def guarded_client(**options: Any) -> aiohttp.ClientSession:
    """For fsspec's `get_client`: a session that connects to none of them."""
    return aiohttp.ClientSession(**{"connector": aiohttp.TCPConnector(socket_factory=_guarded_socket)} | options)


def _guarded_socket(info: Any) -> socket.socket:
    family, kind, protocol, _, address = info
    if is_metadata_host(str(address[0])):
        raise MetadataHost(f"{address[0]} is an address for machines' credentials, and is never read")
    return socket.socket(family=family, type=kind, proto=protocol)
