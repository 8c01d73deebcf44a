# SPDX-License-Identifier: MIT
"""Questions to real name servers: some that fail, that lie, and that say nothing."""

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
import trio.testing

from mesh.core.dns import Answer, Kind
from mesh.node import resolver as module
from mesh.node.resolver import QUESTION_SECONDS, TRY_SECONDS, NoAnswerError, Resolver
from tests.harness import FixedEntropy
from tests.node.outside import NameServer, Zone, name_server

ZONE: Zone = {
    ("x.test", "A"): ["192.0.2.1"],
    ("x.test", "AAAA"): ["2001:db8::1"],
    ("x.test", "MX"): ["10 a.test.", "20 b.test."],
    ("many.test", "MX"): [f"{n} host-{n}.many.test." for n in range(1000)],
}
NOWHERE = ("127.0.0.1", 1)


def resolver(*servers: tuple[str, int], seconds: float = 5.0) -> Resolver:
    return Resolver(FixedEntropy(), servers=servers, seconds=seconds)


@asynccontextmanager
async def answering(
    said: Callable[[bytes], list[bytes]],
) -> AsyncIterator[tuple[str, int]]:
    """A name server of its own mind: what it sends for each datagram."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))

        async def serve() -> None:
            while True:
                octets, source = await sock.recvfrom(4096)
                for reply in said(octets):
                    await sock.sendto(reply, source)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield sock.getsockname()
            nursery.cancel_scope.cancel()


async def test_each_kind() -> None:
    async with name_server(ZONE) as server:
        asked = resolver(server.address)
        four = await asked.ask("x.test", Kind.A)
        assert four.addresses == (ip_address("192.0.2.1"),)
        six = await asked.ask("x.test", Kind.AAAA)
        assert six.addresses == (ip_address("2001:db8::1"),)
        mail = await asked.ask("x.test", Kind.MX)
        assert set(mail.exchanges) == {(10, "a.test"), (20, "b.test")}
        assert await asked.ask("y.test", Kind.A) == Answer("y.test", exists=False)


async def test_what_is_cut_comes_by_tcp() -> None:
    async with name_server(ZONE) as server:
        found = await resolver(server.address).ask("many.test", Kind.MX)
        assert len(found.exchanges) == 64
        assert server.by_tcp == 1


@pytest.mark.parametrize(
    "reply",
    [b"", b"\0", b"\0\x0cshort", b"\0\x0c" + bytes(12)],
    ids=["nothing", "half a length", "cut short", "to something else"],
)
async def test_a_server_that_breaks_by_tcp_is_none(reply: bytes) -> None:
    async with name_server(ZONE) as server:
        server.tcp_says = reply
        with pytest.raises(NoAnswerError):
            await resolver(server.address).ask("many.test", Kind.MX)


async def test_what_is_cut_by_tcp_too_is_no_answer() -> None:
    async with name_server(ZONE) as server:
        server.always_cut = True
        with pytest.raises(NoAnswerError):
            await resolver(server.address).ask("x.test", Kind.MX)


@pytest.mark.parametrize("first", ["refuses", "fails", "is silent", "talks nonsense"])
async def test_the_next_server_answers_for_one_that_does_not(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRY_SECONDS", 0.05)
    said: dict[str, Callable[[bytes], list[bytes]]] = {
        "fails": lambda asked: [asked[:2] + b"\x81\x82" + bytes(8)],
        "is silent": lambda _: [],
        "talks nonsense": lambda asked: [
            asked[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + asked[12:-11] + b"\xff"
        ],
        "refuses": lambda _: [],
    }
    async with name_server(ZONE) as good, answering(said[first]) as bad:
        servers = [NOWHERE if first == "refuses" else bad, good.address]
        found = await resolver(*servers).ask("x.test", Kind.A)
        assert found.addresses == (ip_address("192.0.2.1"),)


async def test_an_answer_to_something_else_is_waited_past() -> None:
    """As from who guesses the port and sends all numbers that he can."""

    def said(asked: bytes) -> list[bytes]:
        ident = int.from_bytes(asked[:2], "big")
        answer = b"\x81\x80\0\1\0\1\0\0\0\0" + asked[12:-11] + b"\xc0\x0c"
        answer += struct.pack("!HHIH", 1, 1, 60, 4)
        wrong = [struct.pack("!H", ident ^ n) + answer + bytes(4) for n in range(1, 9)]
        return [b"", b"x", *wrong, struct.pack("!H", ident) + answer + b"\xc0\0\2\1"]

    async with answering(said) as server:
        found = await resolver(server).ask("x.test", Kind.A)
        assert found.addresses == (ip_address("192.0.2.1"),)


async def test_each_try_has_a_number_of_its_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked: list[tuple[float, bytes]] = []

    def said(octets: bytes) -> list[bytes]:
        asked.append((trio.current_time(), octets))
        return []

    async with answering(said) as server:
        began = trio.current_time()
        with pytest.raises(NoAnswerError):
            await resolver(server, seconds=QUESTION_SECONDS).ask("x.test", Kind.A)
        assert trio.current_time() - began == pytest.approx(QUESTION_SECONDS)
    times = [time - began for time, _ in asked]
    assert times == pytest.approx([0, TRY_SECONDS, 3 * TRY_SECONDS])
    assert len({octets[:2] for _, octets in asked}) == 3


async def test_nobody_is_asked_for_what_is_no_name() -> None:
    with pytest.raises(ValueError, match="no host name"):
        await resolver(NOWHERE).ask("a..b", Kind.A)


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        (None, ["127.0.0.1"]),
        ("", ["127.0.0.1"]),
        ("search x\nnameserver\nnameserver  \nnameserver x.test\n", ["127.0.0.1"]),
        ("# nameserver 9.9.9.9\nnameserver 192.0.2.1 # x\n", ["192.0.2.1"]),
        ("nameserver ::1\nnameserver fe80::1%lo\n", ["::1", "fe80::1%lo"]),
        ("nameserver 1.1.1.1\n" * 9, ["1.1.1.1"] * 3),
        ("\udcff\nnameserver 192.0.2.1\n", ["192.0.2.1"]),
    ],
)
def test_the_machine_s_servers(
    tmp_path: Path, text: str | None, servers: list[str]
) -> None:
    path = tmp_path / "resolv.conf"
    if text is not None:
        path.write_text(text, errors="surrogateescape")
    assert module._configured(path) == [(server, 53) for server in servers]


async def test_the_machine_s_servers_are_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\n")
    server: NameServer
    async with name_server(ZONE) as server:
        monkeypatch.setattr(module, "DNS_PORT", server.port)
        asked = Resolver(FixedEntropy(), configuration=path)
        assert (await asked.ask("x.test", Kind.A)).exists
