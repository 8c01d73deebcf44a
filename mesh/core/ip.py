# SPDX-License-Identifier: MIT
"""IP addresses: whose mail server can be there, and what one holder has many of.

    address                                                           public
    IPv4   all but IANA's special-purpose ones: this network, private, shared (CGNAT),
           loopback, link-local, documentation, benchmarks, multicast, reserved   yes
    IPv6   2000::/3 but for Teredo and the rest of 2001::/23, documentation      yes
           64:ff9b::/96 (NAT64), 2002::/16 (6to4)          as the IPv4 address within
           everything else: loopback, link-local, unique local (fc00::/7), site-local,
           IPv4-mapped and -compatible, multicast, not assigned                   no

    network   IPv4 /24, IPv6 /48: the least that is routed, so what one holder has

What may be dialled at a stranger's word is public: anything else would be a machine of
ours, or of this machine's network, which trusts us.  A scope (`%eth0`) names an
interface of this machine, so what has one is no address here.

RFC 6890 and IANA's registries; RFC 3056 (6to4), RFC 6052 (NAT64), RFC 8215.
"""

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

Address = IPv4Address | IPv6Address

NETWORK_LENS: Final = {4: 24, 6: 48}
"""Bits, by version."""

_SPECIAL_4: Final = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
]
_GLOBAL_6: Final = IPv6Network("2000::/3")
_SPECIAL_6: Final = [
    IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20")
]
_NAT64: Final = IPv6Network("64:ff9b::/96")


def parse(text: str) -> Address | None:
    """Read an address in any of its spellings; None: it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else address


def within(address: Address) -> IPv4Address | None:
    """Give the IPv4 address that this one leads to, if it is made of one."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def is_public(address: Address) -> bool:
    """Say whether somebody's mail server can be there, as far as numbers tell."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    inner = within(address)
    if inner is not None:
        return address.ipv4_mapped is None and is_public(inner)
    return address in _GLOBAL_6 and not any(address in each for each in _SPECIAL_6)


def network_of(address: Address) -> str:
    """Name the network that an address is in; of IPv6 made of IPv4, the IPv4 one."""
    inner = within(address) or address
    length = NETWORK_LENS[inner.version]
    return str(ip_network((inner, length), strict=False))
