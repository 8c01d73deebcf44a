# SPDX-License-Identifier: MIT
"""MX look-ups against a real name server."""

import socket
import threading
from ipaddress import ip_address

import pytest
import trio
import trio.testing

from mesh.core.reply import Reply
from mesh.node.mx import (
    ADDRESSES_MAX,
    HOSTS_MAX,
    LOOP,
    NO_DNS,
    NO_DOMAIN,
    NO_ROUTE,
    NULL_MX,
    OWN_SECONDS,
    PRIVATE,
    Fixed,
    Lookup,
    Place,
    is_own,
)
from mesh.node.resolver import Resolver
from tests.harness import FixedEntropy
from tests.node.outside import NameServer, Zone, name_server, public_here

ZONE: Zone = {
    ("two.test", "MX"): ["20 b.test.", "10 a.test.", "30 none.test."],
    ("a.test", "A"): ["192.0.2.1"],
    ("a.test", "AAAA"): ["2001:db8::1"],
    ("b.test", "A"): ["192.0.2.2"],
    ("null.test", "MX"): ["0 ."],
    ("null5.test", "MX"): ["5 ."],
    ("plain.test", "A"): ["192.0.2.3"],
    ("six.test", "AAAA"): ["2001:db8::6"],
    ("alias.test", "CNAME"): ["two.test."],
    ("toalias.test", "MX"): ["10 c.test."],
    ("c.test", "CNAME"): ["plain.test."],
    ("empty.test", "TXT"): ["x"],
    ("nowhere.test", "MX"): ["10 none.test."],
    ("loop.test", "MX"): ["10 lo.test.", "20 a.test."],
    ("lo.test", "A"): ["127.0.0.1", "0.1.2.3", "169.254.1.1", "224.0.0.1", "240.0.0.1"],
    ("lo.test", "AAAA"): ["::1", "::", "fe80::1", "ff02::1", "::ffff:127.0.0.1"],
    ("only.test", "MX"): ["10 lo.test."],
    ("backup.test", "MX"): ["10 a.test.", "20 us.test.", "20 same.test.", "30 b.test."],
    ("us.test", "A"): ["198.51.100.1"],
    ("same.test", "A"): ["192.0.2.9"],
    ("named.test", "MX"): ["5 b.test.", "10 us.elsewhere.test.", "20 a.test."],
    ("us.elsewhere.test", "A"): ["192.0.2.77"],
    ("first.test", "MX"): ["10 us.test.", "20 a.test."],
    ("dark.test", "MX"): ["10 broken.test."],
    ("half.test", "MX"): ["10 broken.test.", "20 a.test."],
    ("half4.test", "MX"): ["10 broken-aaaa.test."],
    ("broken-aaaa.test", "A"): ["192.0.2.4"],
    ("half6.test", "MX"): ["10 broken-a.test."],
    ("broken-a.test", "AAAA"): ["2001:db8::4"],
    ("liar.test", "MX"): ["10 no-aaaa.test."],
    ("no-aaaa.test", "A"): ["192.0.2.5"],
    ("dark-plain.test", "MX"): ["10 broken-a.lo.test.", "20 lo.test."],
    ("us-dark.test", "MX"): ["10 broken-aaaa.us.test."],
    ("broken-aaaa.us.test", "A"): ["198.51.100.1"],
    ("us-nowhere.test", "MX"): ["10 nowhere.us.test."],
    ("inside.test", "A"): ["10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1"],
    ("inside.test", "AAAA"): ["fd00::1", "fec0::1", "::ffff:10.0.0.1", "2002:a00:1::"],
    ("disguised.test", "MX"): ["10 nat64.test.", "20 a.test."],
    ("nat64.test", "AAAA"): ["64:ff9b::198.51.100.1"],
    ("named-by-number.test", "MX"): ["10 nat.test.", "20 a.test."],
    ("nat.test", "A"): ["192.0.2.88"],
    ("split.test", "MX"): ["10 within.test.", "20 a.test."],
    ("within.test", "AAAA"): ["fd00::7"],
    ("nobody.test", "CNAME"): ["."],
    ("loop-a.test", "CNAME"): ["loop-b.test."],
    ("loop-b.test", "CNAME"): ["loop-a.test."],
    ("odd.test", "MX"): ["10 a\\032b.test.", "20 \\000.test."],
    ("odd.test", "A"): ["192.0.2.66"],
    ("half-odd.test", "MX"): ["10 a\\032b.test.", "0 .", "20 b.test."],
    ("nulls.test", "MX"): ["0 .", "10 ."],
    ("us-alias.test", "MX"): ["10 them.test.", "20 b.test."],
    ("them.test", "CNAME"): ["nowhere.us.test."],
}
A = [Place("a.test", "192.0.2.1", 2525), Place("a.test", "2001:db8::1", 2525)]
B = [Place("b.test", "192.0.2.2", 2525)]
EXPECTED: dict[str, list[Place] | Reply] = {
    "two.test": A + B,
    "alias.test": A + B,
    "null.test": NULL_MX,
    "null5.test": NULL_MX,
    "plain.test": [Place("plain.test", "192.0.2.3", 2525)],
    "six.test": [Place("six.test", "2001:db8::6", 2525)],
    "toalias.test": [Place("c.test", "192.0.2.3", 2525)],
    "empty.test": NO_DOMAIN,
    "none.test": NO_DOMAIN,
    "nowhere.test": NO_DOMAIN,
    "loop.test": A,
    "only.test": PRIVATE,
    "inside.test": PRIVATE,
    "disguised.test": LOOP,
    "named-by-number.test": LOOP,
    "split.test": LOOP,
    "backup.test": A,
    "named.test": B,
    "first.test": LOOP,
    "broken.test": NO_DNS,
    "dark.test": NO_DNS,
    "silent.test": NO_DNS,
    "nobody.test": NO_DOMAIN,
    "loop-a.test": NO_DNS,
    "odd.test": NO_DOMAIN,
    "half-odd.test": B,
    "nulls.test": NULL_MX,
    "us-alias.test": LOOP,
    ".": NO_DOMAIN,
    "two.test.": NO_DOMAIN,
    "": NO_DOMAIN,
    "half.test": A,
    "half4.test": [Place("broken-aaaa.test", "192.0.2.4", 2525)],
    "half6.test": [Place("broken-a.test", "2001:db8::4", 2525)],
    "liar.test": [Place("no-aaaa.test", "192.0.2.5", 2525)],
    "dark-plain.test": NO_DNS,
    "us-dark.test": LOOP,
    "us-nowhere.test": LOOP,
    "x" * 64 + ".test": NO_DOMAIN,
    ".".join(["x" * 60] * 5): NO_DOMAIN,
    "a..b": NO_DOMAIN,
    "[192.0.2.9]": [Place("", "192.0.2.9", 2525)],
    "[ipv6:2001:db8::9]": [Place("", "2001:db8::9", 2525)],
    "[127.0.0.1]": LOOP,
    "[198.51.100.1]": LOOP,
    "[ipv6:::1]": LOOP,
    "[ipv6:fd00::7]": LOOP,
    "[ipv6:fd00::8]": PRIVATE,
    "[10.0.0.1]": PRIVATE,
    "[ipv6:::ffff:198.51.100.1]": LOOP,
    "[ipv6:::ffff:127.0.0.1]": PRIVATE,
    "[ipv6:64:ff9b::c633:6401]": LOOP,
    "[ipv6:64:ff9b::c000:202]": [Place("", "64:ff9b::c000:202", 2525)],
    "[192.0.2.88]": LOOP,
    "[x:y]": NO_DOMAIN,
    "[ipv6:fe80::1%lo]": NO_DOMAIN,
    "[ipv6:2001:db8::9%lo]": NO_DOMAIN,
}


def lookup_at(server: NameServer, *own_hosts: str, port: int = 2525) -> Lookup:
    """As in production, but for the ports and for whose addresses are whose."""
    entropy = FixedEntropy()
    return Lookup(
        Resolver(entropy, servers=[server.address], seconds=0.5),
        entropy,
        own_hosts=own_hosts,
        port=port,
        own=lambda address: str(address) in {"198.51.100.1", "fd00::7"},
        public=public_here,
    )


@pytest.mark.parametrize("domain", EXPECTED)
async def test_where_a_domain_s_mail_goes(domain: str) -> None:
    async with name_server(ZONE) as server:
        own = ("us.elsewhere.test", "nowhere.us.test", "192.0.2.88")
        assert await lookup_at(server, *own).places(domain) == EXPECTED[domain]


async def test_equal_preferences_are_shuffled() -> None:
    zone = {**ZONE, ("equal.test", "MX"): ["10 a.test.", "10 b.test."]}
    async with name_server(zone) as server:
        lookup = lookup_at(server)
        orders = set()
        for _ in range(40):
            places = await lookup.places("equal.test")
            assert isinstance(places, list)
            orders.add(places[0].host)
        assert orders == {"a.test", "b.test"}


async def test_a_hostile_zone_has_so_many_hosts_and_addresses_and_no_more() -> None:
    zone = {
        ("many.test", "MX"): [f"{n // 3} h{n}.many.test." for n in range(100)],
        **{(f"h{n}.many.test", "A"): ["192.0.2.3"] for n in range(100)},
        ("wide.test", "MX"): ["10 w.wide.test.", "20 a.wide.test."],
        ("w.wide.test", "A"): [f"192.0.2.{n}" for n in range(200)],
        ("w.wide.test", "AAAA"): [f"2001:db8::{n}" for n in range(200)],
        ("a.wide.test", "A"): ["198.51.100.2"],
        ("same.test", "MX"): [f"{n} one.same.test." for n in range(20)],
        ("one.same.test", "A"): ["192.0.2.4"],
    }
    async with name_server(zone) as server:
        lookup = lookup_at(server)
        many = await lookup.places("many.test")
        assert isinstance(many, list)
        assert len(many) == ADDRESSES_MAX
        assert len(server.asked) == 2 + 2 * HOSTS_MAX  # UDP, TCP; A and AAAA of each
        wide = await lookup.places("wide.test")
        assert isinstance(wide, list)
        assert [":" in place.address for place in wide] == [False] * 4 + [True] * 4 + [
            False
        ]
        assert wide[-1].address == "198.51.100.2"
        server.asked.clear()
        assert await lookup.places("same.test") == [
            Place("one.same.test", "192.0.2.4", 2525)
        ]
        assert len(server.asked) == 3


async def test_behind_a_nat_our_name_says_where_we_are() -> None:
    """The kernel cannot: it knows of the address within alone."""
    zone = {
        ("us.test", "A"): ["192.0.2.7"],
        ("us.test", "AAAA"): ["2001:db8::7"],
        ("x.test", "MX"): ["10 x.test.", "20 y.test."],
        ("x.test", "A"): ["192.0.2.7"],
        ("y.test", "A"): ["192.0.2.8"],
    }
    async with name_server(zone) as server:
        lookup = lookup_at(server, "us.test")
        assert await lookup.places("x.test") == LOOP
        assert await lookup.places("[ipv6:2001:db8::7]") == LOOP
        assert await lookup.places("y.test") == [Place("y.test", "192.0.2.8", 2525)]
        assert server.asked.count(("us.test", "A")) == 1
        # What is known stays while nobody answers.
        lookup._learned -= OWN_SECONDS
        server.zone.pop(("us.test", "A"))
        server.zone.pop(("us.test", "AAAA"))
        assert await lookup.places("x.test") == LOOP
        assert server.asked.count(("us.test", "A")) == 2


async def test_a_name_is_never_completed() -> None:
    async with name_server(ZONE) as server:
        await lookup_at(server).places("x.test")
        assert {name for name, _ in server.asked} == {"x.test"}


async def test_both_kinds_are_asked_for_at_once() -> None:
    """So a host without an answer costs the time of one question."""
    async with name_server(ZONE) as server:
        lookup = lookup_at(server)
        with trio.fail_after(0.5 * 1.8):
            assert (await lookup._addresses("silent.test"))[2] is False


def test_the_kernel_knows_what_is_own() -> None:
    for own in ("127.0.0.1", "::ffff:7f00:1"):  # the kernel writes ::ffff:127.0.0.1
        assert is_own(ip_address(own))
    for other in ("192.0.2.1", "2001:db8::1", "255.255.255.255"):
        assert not is_own(ip_address(other))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        assert is_own(ip_address(probe.getsockname()[0]))


async def test_a_fixed_route_is_looked_up_as_the_machine_does_it() -> None:
    fixed = Fixed()
    assert await fixed.places("127.0.0.1:25") == [Place("127.0.0.1", "127.0.0.1", 25)]
    assert await fixed.places("[::1]:26") == [Place("::1", "::1", 26)]
    found = await fixed.places("localhost:27")
    assert isinstance(found, list)
    assert Place("localhost", "127.0.0.1", 27) in found


@pytest.mark.parametrize("host", ["_smtp.invalid", "x" * 63 + ".invalid"])
async def test_a_fixed_route_without_an_address(host: str) -> None:
    assert await Fixed().places(f"{host}:25") is NO_ROUTE


async def test_a_slow_resolver_takes_threads_of_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    freed = threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        freed.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    fixed, others = Fixed(seconds=0.1), trio.to_thread.current_default_thread_limiter()
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(int(others.total_tokens)):
                nursery.start_soon(fixed.places, "slow.invalid:25")
            await trio.testing.wait_all_tasks_blocked()
            assert others.borrowed_tokens == 0
        assert await fixed.places("slow.invalid:25") is NO_ROUTE
    finally:
        freed.set()
