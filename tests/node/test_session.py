# SPDX-License-Identifier: MIT
"""Sessions with real servers: aiosmtpd, TLS by trustme, and some that misbehave.

Real time, since the servers have threads of their own; ticks are short.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from mesh.core.smtp import Sender
from mesh.node import session, visit
from mesh.node.mx import Place
from tests.harness import until
from tests.node.exits import EHLO, US, WHO, exit_node, gone, here, stored, tick_of
from tests.node.outside import converse, mail_server, puppet, scripted

CONTENTS = [
    b"From: x\r\n\r\n.\r\n..\r\n.dot\r\n",
    b"\0\xff8-bit\r\n",
    b"long " * 100 + b"\r\n",
    b"no line end",
    b"." * 500 + b"\r\n" + b"x\r\n" * 40_000,
]


@pytest.mark.parametrize("tls", [True, False])
async def test_octets_leave_as_they_came_and_nothing_else(
    tmp_path: Path, tls: bool
) -> None:
    with mail_server(tls=tls) as server:
        async with exit_node(tmp_path, {"x.test": here(server.port)}) as (alpha, _):
            for content in CONTENTS:
                await stored(alpha, content, WHO, "too@x.test")
            await gone(alpha)
    whole = [c if c.endswith(b"\r\n") else c + b"\r\n" for c in CONTENTS]
    assert sorted(letter.content for letter in server.letters) == sorted(whole)
    for letter in server.letters:
        assert letter.encrypted is tls
        assert letter.helo == "alpha.test"
        assert letter.reverse_path == US
        assert letter.recipients == [WHO, "too@x.test"]


@pytest.mark.parametrize(
    "host",
    ["", "127.0.0.1", "::1", "x" * 64 + ".test", "\\255.test", ".x", "a..b", "é"],
)
async def test_a_host_that_is_no_name_is_not_named(tmp_path: Path, host: str) -> None:
    with mail_server(tls=True) as server:
        places = {"x.test": [Place(host, "127.0.0.1", server.port)]}
        async with exit_node(tmp_path, places) as (alpha, _):
            await stored(alpha, b"x\r\n", WHO)
            await gone(alpha)
    assert [letter.encrypted for letter in server.letters] == [True]


BROKEN = {
    "no greeting": (None, 1),
    "refused": (b"554 go away\r\n", 1),
    "garbage": (b"hello\r\n", 1),
    "421 behind EHLO": (b"220 x\r\n" + EHLO + b"421 bye\r\n", 1),
    "injected": (b"220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n250 x\r\n", 1),
}


@pytest.mark.parametrize("said", BROKEN)
async def test_a_server_that_breaks_loses_nothing(tmp_path: Path, said: str) -> None:
    script, count = BROKEN[said]
    with scripted(script) as port:
        async with exit_node(tmp_path, {"x.test": here(port)}) as (alpha, out):
            await stored(alpha, b"x\r\n", WHO)
            await until(lambda: len(alpha.qmgr._deferred) == count, 15)
            await until(lambda: not out._turns.visited, 15)
            [domain] = out._turns._domains.values()
            assert domain.failures == 1
            assert alpha.spool.waiting == 1


STEPS = ["", "EHLO", "MAIL", "RCPT", "DATA", "."]
TROUBLE: dict[str, bytes | None] = {
    "closes": None,
    "has enough": b"421 4.3.2 enough\r\n",
    "makes no sense": b"what?\r\n",
    "has no number": b"\xff\xfe\r\n",
    "says two things": b"250-x\r\n550 y\r\n",
    "never ends": b"250-x\r\n" * 1000,
    "never ends its line": b"250 " + b"x" * 10_000,
    "answers in advance": b"250 x\r\n" * 10,
    "wants more": b"334 go on\r\n",
}


LAWFUL = {("DATA", "wants more"), (".", "answers in advance")}
CASES = [
    (step, what) for step in STEPS for what in TROUBLE if (step, what) not in LAWFUL
]


def troubled(
    step: str, what: str, pipelining: bool
) -> Callable[[trio.SocketStream], Any]:
    async def serve(stream: trio.SocketStream) -> None:
        async def said(verb: str, _line: bytes) -> bytes | None:
            if verb == step:
                return TROUBLE[what]
            return EHLO if verb == "EHLO" and pipelining else b""

        await converse(stream, said)

    return serve


def well(heard: list[bytes]) -> Callable[[trio.SocketStream], Any]:
    async def serve(stream: trio.SocketStream) -> None:
        async def said(_verb: str, line: bytes) -> bytes:
            if line.endswith(b"\r\n.\r\n"):
                heard.append(line[:-3])
            return b""

        await converse(stream, said)

    return serve


@pytest.mark.parametrize("pipelining", [True, False])
async def test_trouble_at_each_step_loses_nothing(
    tmp_path: Path, pipelining: bool
) -> None:
    """What was under way is deferred, and the next place has the rest at once."""
    heard: list[bytes] = []
    async with AsyncExitStack() as servers:
        good = await servers.enter_async_context(puppet(well(heard)))
        bad = [
            await servers.enter_async_context(puppet(troubled(*case, pipelining)))
            for case in CASES
        ]
        places = {f"{n}.test": here(port, good) for n, port in enumerate(bad)}
        async with exit_node(tmp_path, places, tick=3600.0) as (alpha, out):
            for domain in places:
                for number in range(4):
                    alpha.submit(f"{domain} {number}\r\n".encode(), f"who@{domain}")
            await gone(alpha, 4 * len(CASES))
            while len(alpha.qmgr.pool) or alpha.qmgr.exits():
                await tick_of(out)
            await until(lambda: alpha.spool.waiting == alpha.qmgr.deferred, 15)
            assert not alpha.qmgr.bounced
            rest = await alpha.spool.read(alpha.qmgr.take_deferred())
    came = Counter(content.partition(b".")[0] for content in heard)
    waits = Counter(each.content.partition(b".")[0] for each in rest if each)
    for number, (step, what) in enumerate(CASES):
        name = b"%d" % number
        assert came[name] + waits[name] == 4, (step, what)
        assert waits[name] <= 2 * (step in STEPS[2:]), (step, what)


async def test_who_says_too_much_of_one_message_is_left(tmp_path: Path) -> None:
    """Each reply is lawful, and all of them are kept: 26 MB for a hundred recipients."""
    flood = b"550-%s\r\n" % (b"x" * 2000) * 30 + b"550 no\r\n"
    answered: list[bytes] = []

    async def floods(stream: trio.SocketStream) -> None:
        async def said(verb: str, line: bytes) -> bytes:
            answered.append(line)
            return flood if verb == "RCPT" else b""

        await converse(stream, said)

    async with (
        puppet(floods) as port,
        exit_node(tmp_path, {"x.test": here(port)}, tick=3600.0) as (alpha, out),
    ):
        await stored(alpha, b"x\r\n", *(f"{n}@x.test" for n in range(100)))
        await tick_of(out)
        assert 4 < len(answered) < 4 + session.HEARD_MAX // len(flood) + 3
        await until(lambda: alpha.qmgr.deferred == 1, 15)


async def test_what_is_said_of_many_messages_is_not_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "HEARD_MAX", 300)
    heard: list[bytes] = []
    async with (
        puppet(well(heard)) as port,
        exit_node(tmp_path, {"x.test": here(port)}, tick=3600.0) as (alpha, out),
    ):
        for _ in range(20):
            alpha.submit(b"x\r\n", WHO)
        await gone(alpha, 20)
        await tick_of(out)
        assert len(heard) == 20


async def test_a_handshake_that_fails_is_followed_by_clear(tmp_path: Path) -> None:
    offer = b"220 x\r\n250-x\r\n250 STARTTLS\r\n"

    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        heard: list[bytes] = []

        async def serve() -> None:
            for reply in (b"220 go\r\n", b"250 x\r\n"):
                connection, _ = await listener.accept()
                with connection:
                    await connection.send(offer[:7])
                    heard.append(await connection.recv(1000))
                    await connection.send(offer[7:])
                    heard.append(await connection.recv(1000))
                    await connection.send(reply)
                    heard.append(await connection.recv(1000))
                    await connection.send(b"no TLS at all\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with exit_node(tmp_path, {"x.test": here(port)}) as (alpha, _):
                await stored(alpha, b"x\r\n", WHO)
                await until(lambda: len(heard) == 6, 15)
                await until(lambda: alpha.qmgr._deferred, 15)
    assert heard[1] == b"STARTTLS\r\n"
    assert heard[2].startswith(b"\x16\x03")
    assert heard[4].startswith(b"MAIL FROM:")


@pytest.mark.parametrize(
    ("limit", "script"),
    [
        ("CONNECT_SECONDS", b""),
        ("REPLY_SECONDS", b"220 x\r\n"),
        ("TLS_SECONDS", b"220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n"),
        ("PROGRESS_SECONDS", b"220 x\r\n"),
        ("VISIT_SECONDS", b"220 x\r\n"),
    ],
)
async def test_who_says_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, script: bytes
) -> None:
    module = session if hasattr(session, limit) else visit
    monkeypatch.setattr(module, limit, 0.0 if limit == "CONNECT_SECONDS" else 0.3)
    if limit == "TLS_SECONDS":
        monkeypatch.setattr(Sender, "receive_data", _line_by_line)
    with scripted(script, None) as port:
        async with exit_node(tmp_path, {"x.test": here(port)}) as (alpha, out):
            await stored(alpha, b"x\r\n", WHO)
            domains = out._turns._domains
            await until(lambda: any(d.failures for d in domains.values()), 15)
            assert alpha.spool.waiting == alpha.qmgr.deferred == 1


def _line_by_line(sender: Sender, data: bytes) -> None:
    """What a server that waits for each command would have sent."""
    for line in data.splitlines(keepends=True):
        sender._reader.receive_data(line)
        while (reply := sender._reader.next_reply()) is not None:
            sender._receive_reply_untrusted(reply)
