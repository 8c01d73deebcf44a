# SPDX-License-Identifier: MIT
"""Which addresses are public: the registries by example, and the rules by property."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis.strategies import ip_addresses

from mesh.core.ip import is_public, network_of, parse, within

PUBLIC = [
    "1.1.1.1",
    "9.9.9.9",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "223.255.255.255",
    "2620:fe::fe",
    "2a00:1450:4001::1a",
    "64:ff9b::909:909",
    "2002:909:909::1",
]
PRIVATE = [
    "0.0.0.0",  # noqa: S104  # nothing binds here
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.1.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.9",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:9.9.9.9",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_somebody_s_mail_server_may_be_there(text: str) -> None:
    address = parse(text)
    assert address is not None
    assert is_public(address)


@pytest.mark.parametrize("text", PRIVATE)
def test_nobody_else_s_mail_server_is_there(text: str) -> None:
    address = parse(text)
    assert address is not None
    assert not is_public(address)


@pytest.mark.parametrize(
    "text",
    ["", "x", "1.2.3", "010.0.0.1", "1.2.3.4.5", "2001:db8::9%lo", "fe80::1%25eth0"],
)
def test_what_is_no_address(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("9.9.9.9", "9.9.9.0/24"),
        ("2620:fe:0:8000::fe", "2620:fe::/48"),
        ("64:ff9b::909:909", "9.9.9.0/24"),
        ("2002:909:909::1", "9.9.9.0/24"),
        ("::ffff:9.9.9.9", "9.9.9.0/24"),
    ],
)
def test_the_network_of_an_address(text: str, network: str) -> None:
    address = parse(text)
    assert address is not None
    assert network_of(address) == network


@given(ip_addresses())
def test_public_is_global_and_unicast(address: IPv4Address | IPv6Address) -> None:
    if is_public(address) and within(address) is None:
        assert address.is_global
        assert not address.is_multicast


@given(ip_addresses(v=4))
def test_an_address_within_another_is_no_more_public(address: IPv4Address) -> None:
    number = int(address)
    nat64 = IPv6Address((0x64FF9B << 96) | number)
    sixtofour = IPv6Address((0x2002 << 112) | (number << 80) | 1)
    for outer in (nat64, sixtofour):
        assert within(outer) == address
        assert is_public(outer) is is_public(address)
        assert network_of(outer) == network_of(address)
    assert not is_public(IPv6Address((0xFFFF << 32) | number))
