# SPDX-License-Identifier: MIT
"""The control socket on half a node, in fake time."""

import json
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mesh.core.clock import Clock
from mesh.core.control import CONTROL_NAME, Ask, Request, What, encode_request
from mesh.core.directory import Us
from mesh.core.pool import Manner
from mesh.node import control
from mesh.node.control import (
    CONNECTIONS_MAX,
    IDLE_SECONDS,
    LINK_SECONDS,
    NOTES_MAX,
    READING,
    REQUEST_SECONDS,
    SESSIONS_MAX,
    TICK_SECONDS,
    Control,
)
from mesh.node.conversation import Conversation, Conversations
from mesh.node.peers import Peers
from mesh.node.routing import UNROUTED
from mesh.node.shares import NOBODY, user_mark
from mesh.node.starting import CONTROL_MODE
from mesh.node.submission import bind_unix
from mesh.node.wire import SocketWire
from tests.descriptors import DAY, NOW, text_of
from tests.harness import Cable, Half, Patience, connect, half, inside, until
from tests.node.besides import Reader
from tests.node.homes import Home, running

BRAVO = "mix@bravo.test"
DONE = {"ok": True}
"""No count: a poll would be a curve of the load."""


class Operator:
    """Asks alpha's control."""

    def __init__(self, alpha: Half, folder: Path, nursery: trio.Nursery) -> None:
        self.peers = Peers(folder, Us("alpha", "main", {}))
        self.peers.poll()
        self.now = NOW
        self.notices: list[str] = []
        self.ticked: list[str] = []
        self.has_left = False
        self._nursery = nursery
        self.control = Control(
            name="alpha",
            clock=Clock.RENEWAL,
            klass=3,
            peers=self.peers,
            exchange=alpha.exchange,
            qmgr=alpha.qmgr,
            unix_time=lambda: self.now,
            notices=lambda: self.notices,
            ticked=lambda: list(self.ticked),
            has_left=lambda: self.has_left,
        )

    def open(self, octets: bytes) -> trio.SocketStream:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._nursery.start_soon(self.control.serve, SocketWire(theirs))
        ours.sendall(octets)
        return trio.SocketStream(trio.socket.from_stdlib_socket(ours))

    async def ask(
        self, ask: Ask, peer: str = "", what: What | None = None
    ) -> dict[str, Any]:
        stream = self.open(encode_request(Request(ask, peer, what)))
        answer = json.loads(await everything(stream))
        assert isinstance(answer, dict)
        return answer

    async def link(self) -> dict[str, Any]:
        (link,) = (await self.ask(Ask.STATUS))["status"]["links"]
        assert isinstance(link, dict)
        return link


async def everything(stream: trio.SocketStream) -> bytes:
    async with stream:
        return b"".join([octets async for octets in stream])


@asynccontextmanager
async def operated(
    tmp_path: Path, manner: Manner | None = None, **bravo: Any
) -> AsyncIterator[tuple[Operator, Half, Half, trio.Nursery]]:
    """Two halves, not linked; alpha has an operator and bravo's descriptor."""
    folder = tmp_path / "peers.d"
    folder.mkdir()
    (folder / "bravo.mesh").write_text(text_of("bravo", **bravo))
    async with (
        half(tmp_path, "alpha", {BRAVO: "bravo"}, manner=manner) as alpha,
        half(tmp_path, "bravo", {BRAVO: "local:0"}) as far,
        trio.open_nursery() as nursery,
    ):
        yield Operator(alpha, folder, nursery), alpha, far, nursery
        nursery.cancel_scope.cancel()


async def linked(nursery: trio.Nursery, alpha: Half, bravo: Half) -> Cable:
    cable = await connect(nursery, alpha, bravo)
    await until(lambda: alpha.exchange.peers["bravo"].up, 30)
    return cable


async def test_a_link_and_why_there_is_none(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, bravo, nursery):
        assert (await operator.link())["reason"] == "dialling"
        peer = alpha.exchange.peer("bravo", bravo.identity)
        peer.reason = "cannot connect"
        assert (await operator.link())["reason"] == "cannot connect"
        operator.now = NOW + 2 * DAY
        assert "expired descriptor" in (await operator.link())["reason"]
        operator.now = NOW - 2 * DAY
        assert "compare the clocks" in (await operator.link())["reason"]
        operator.now = NOW
        cable = await linked(nursery, alpha, bravo)
        assert await operator.link() == {
            "peer": "bravo",
            "up": True,
            "reason": "",
            "clock": "greedy",
            "cells_per_second": 1.0,
            "insecure": [],
        }
        cable.cut()
        await until(lambda: not peer.up)
        assert (await operator.link())["reason"].startswith("link lost")
        (tmp_path / "peers.d" / "carol.mesh").write_text("nonsense")
        operator.peers.poll()
        answer = await operator.ask(Ask.STATUS)
        assert answer["status"]["state"] == "down"
        assert "carol.mesh" in answer["notes"][0]


async def test_who_leaves_and_who_has_left(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    hour = int(NOW) // 3600 * 3600 + 3600
    async with operated(tmp_path, leaves=hour) as (operator, _, _, _):
        operator.notices = ["the node's own"]
        answer = await operator.ask(Ask.STATUS)
        told = "bravo leaves the mesh at 2027-01-15 09:00:00Z"
        assert answer["notes"] == ["the node's own", told]
        assert (await operator.link())["reason"] == "dialling"
        operator.now = hour
        answer = await operator.ask(Ask.STATUS)
        assert answer["notes"][1] == told.replace("leaves", "left")
        assert (await operator.link())["reason"].startswith(
            "left the mesh: `mesh peers"
        )
        operator.has_left = True
        assert (await operator.link())["reason"] == "this node has left the mesh"


async def test_what_is_wrong_with_the_refuse_list(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    alpha = Home(tmp_path, "alpha")
    refuse = alpha.path / "refuse"
    refuse.write_text("who@else.test\n")
    alpha.set(refuse='"refuse"')

    async def notes() -> list[str]:
        stream = await trio.open_unix_socket(alpha.path / "state" / CONTROL_NAME)
        await stream.send_all(encode_request(Request(Ask.STATUS)))
        told = json.loads(await everything(stream))["notes"]
        assert isinstance(told, list)
        return told

    async with running(alpha):
        assert await notes() == []
        refuse.write_text("nobody\n")
        await trio.sleep(2)
        [note] = await notes()
        assert note.startswith(f"{refuse}:1: no address")
        assert note.endswith("the last good list stays in force")
        refuse.write_text("who@else.test\n")
        await trio.sleep(2)
        assert await notes() == []


async def test_a_peer_that_dials_and_one_that_shakes_hands(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    hidden: dict[str, Any] = {"addresses": (), "insecure": ("debug log",)}
    async with operated(tmp_path, **hidden) as (operator, alpha, bravo, nursery):
        link = await operator.link()
        assert link["reason"].startswith("it dials us")
        assert link["insecure"] == ["debug log"]
        assert link["clock"] == "renewal"
        cable = await connect(nursery, alpha, bravo, clock=Clock.RENEWAL, klass=0)
        assert (await operator.link())["reason"] == "handshaking"
        cable.far.held = True
        cable.near.held = True
        await until(lambda: not alpha.exchange.peers["bravo"].ports, 300)
        assert "latest descriptor" in alpha.exchange.peers["bravo"].reason


async def test_counts_change_on_ticks_only(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, _, nursery):
        path = tmp_path / "control.sock"
        nursery.start_soon(operator.control.run, bind_unix(path, CONTROL_MODE))
        assert path.stat().st_mode & 0o777 == 0o600
        await trio.sleep(1)
        start = trio.current_time()
        alpha.routes["here@alpha.test"] = "local:0"
        alpha.routes["who@else.test"] = "exit:else.test"
        for _ in range(3):
            alpha.submit(b"x\r\n", BRAVO)
        alpha.submit(b"x\r\n", "here@alpha.test", "gone@nowhere.test", "who@else.test")
        await until(lambda: alpha.spool.waiting == 6)
        operator.ticked = ["late"]
        with alpha.qmgr.guard():
            raise RuntimeError(BRAVO)
        seen: set[tuple[int, int, float]] = set()
        while trio.current_time() < start + TICK_SECONDS + 5:
            told = (await operator.ask(Ask.STATUS))["status"]
            waiting, lines = told["queue"]["waiting"], len(told.get("notices", ()))
            seen.add((waiting, lines, (trio.current_time() - start) // 590))
            await trio.sleep(7)
        assert seen == {(0, 0, 0.0), (0, 0, 1.0), (8, 2, 1.0)}
        notes = (await operator.ask(Ask.STATUS))["notes"]
        assert notes[0] == "late"
        assert "ended by a bug, RuntimeError at test_control.py:" in notes[1]
        assert BRAVO not in notes[1]
        assert (await operator.ask(Ask.QUEUE))["queue"] == {
            "schema": 1,
            "waiting": 8,
            "deferred": 0,
            "corrupt": 0,
            "peers": 4,
            "remailers": 1,
            "port_25": 1,
            "unrouted": 1,
            "moving": 0,
        }
        stream = await trio.open_unix_socket(path)
        await stream.send_all(b"nonsense\n")
        refusal = json.loads(await everything(stream))
        assert (refusal["ok"], refusal["code"]) == (False, 64)


async def test_retry_leads_back_and_drop_destroys(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, _, _nursery):
        for _ in range(5):
            alpha.submit(b"x\r\n", BRAVO)
        ready = alpha.qmgr.queue("bravo").ready
        await until(lambda: len(ready) == 5)
        while ready:
            alpha.qmgr.defer(ready.popleft())
        assert alpha.qmgr.deferred == 5
        assert await operator.ask(Ask.RETRY) == DONE
        await until(lambda: len(ready) == 5)
        assert alpha.qmgr.deferred == 0
        for _ in range(2):
            alpha.qmgr.defer(ready.popleft())
        alpha.submit(b"y\r\n", "gone@nowhere.test")
        await until(lambda: alpha.spool.waiting == 6)
        dropped = await operator.ask(Ask.DROP, what=What.UNROUTED)
        assert dropped == DONE
        assert not alpha.qmgr.queue(UNROUTED).ready
        assert alpha.spool.waiting == 5
        dropped = await operator.ask(Ask.DROP, what=What.DEFERRED)
        assert dropped == DONE
        assert alpha.spool.waiting == 3
        assert len(ready) == 3


async def test_much_is_dropped_a_little_at_a_time(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    monkeypatch.setattr(control, "DROP_MAX", 5)
    async with operated(tmp_path) as (operator, alpha, _, nursery):
        for number in range(23):
            alpha.submit(b"%d" % number, "gone@nowhere.test")
        await until(lambda: len(alpha.qmgr.queue(UNROUTED).ready) == 23)
        dropped: list[int] = []

        async def look() -> None:
            while True:
                dropped.append(23 - alpha.spool.waiting)
                await trio.lowlevel.checkpoint()

        nursery.start_soon(look)
        assert await operator.ask(Ask.DROP, what=What.UNROUTED) == DONE
        assert max(b - a for a, b in pairwise(dropped)) <= 10  # two turns in a row
        assert not alpha.spool.waiting


async def test_status_has_room_for_few_mistakes(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, *_):
        for count, notes in ((NOTES_MAX, NOTES_MAX), (NOTES_MAX + 7, NOTES_MAX + 1)):
            for number in range(count):
                path = tmp_path / "peers.d" / f"x{number}.mesh"
                path.write_text("nonsense")
            operator.peers.poll()
            told = (await operator.ask(Ask.STATUS))["notes"]
            assert len(told) == notes
            assert (told[-1] == "and 7 more: mesh peers") == (count > NOTES_MAX)


async def test_status_is_told_whoever_speaks_by_hand(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, bravo, nursery):
        await linked(nursery, alpha, bravo)
        people = []
        for _ in range(SESSIONS_MAX):
            stream = operator.open(encode_request(Request(Ask.CONNECT, "bravo")))
            await read_line(stream)
            people.append(stream)
        with trio.fail_after(5):
            assert (await operator.link())["up"]
        with trio.move_on_after(5) as waiting:
            await operator.ask(Ask.PING, "bravo")
        assert waiting.cancelled_caught
        await people[0].aclose()
        assert (await operator.ask(Ask.PING, "bravo"))["ok"]
        for stream in people:
            await stream.aclose()


async def test_ping(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, bravo, nursery):
        refusal = await operator.ask(Ask.PING, "carol")
        assert (refusal["code"], refusal["why"][:20]) == (67, "carol: no such peer:")
        began = trio.current_time()
        refusal = await operator.ask(Ask.PING, "bravo")
        assert refusal == {"ok": False, "code": 69, "why": "bravo: no link: dialling"}
        assert trio.current_time() == began
        cable = await linked(nursery, alpha, bravo)
        answer = await operator.ask(Ask.PING, "bravo")
        assert answer["ok"] is True
        assert 0 <= answer["seconds"] < 5
        assert answer["clock"] == "greedy"
        await until(
            lambda: not inside(alpha.exchange.peers["bravo"].ports[0]).people.open
        )
        cable.far.held = True
        stream = operator.open(encode_request(Request(Ask.PING, "bravo")))
        await trio.sleep(2)
        cable.cut()
        refusal = json.loads(await everything(stream))
        assert (refusal["code"], "went" in refusal["why"]) == (69, True)


async def test_ping_gives_up_on_a_peer_that_is_mute(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, bravo, nursery):
        await linked(nursery, alpha, bravo)
        monkeypatch.setattr(Conversation, "hear", lambda *_: None)
        refusal = await operator.ask(Ask.PING, "bravo")
        assert (refusal["code"], "went" in refusal["why"]) == (69, True)


async def test_the_way_is_as_long_as_the_clock_makes_it(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, bravo, nursery):
        await connect(nursery, alpha, bravo, clock=Clock.RENEWAL)
        await until(lambda: alpha.exchange.peers.get("bravo") is not None)
        await until(lambda: alpha.exchange.peers["bravo"].up)
        answer = await operator.ask(Ask.PING, "bravo")
        assert 0.1 < answer["seconds"] < 10


async def read_line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        octets = await stream.receive_some(1)
        if not octets:
            break
        line += bytes(octets)
    return line


async def test_connect_is_a_stream_of_the_link(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, bravo, nursery):
        stream = operator.open(encode_request(Request(Ask.CONNECT, "bravo")))
        await trio.sleep(LINK_SECONDS / 2)  # it waits for the link
        await linked(nursery, alpha, bravo)
        assert await read_line(stream) == b'{"ok":true}\n'
        assert await read_line(stream) == b"220 bravo ESMTP mesh\r\n"
        content = b"0123456789abcd\r\n" * 50_000
        said = b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<%b>\r\nBDAT %d LAST\r\n" % (
            BRAVO.encode(),
            len(content),
        )
        nursery.start_soon(stream.send_all, said + content + b"QUIT\r\n")
        lines = (await everything(stream)).splitlines()
        assert lines[-1] == b"221 bye"
        assert [line[:4] for line in lines[-4:-1]] == [b"250 "] * 3
        assert await bravo.arrived() == [content]


async def test_connect_without_a_link(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, *_):
        began = trio.current_time()
        refusal = await operator.ask(Ask.CONNECT, "bravo")
        assert refusal["code"] == 69
        assert trio.current_time() == began + LINK_SECONDS
        assert (await operator.ask(Ask.CONNECT, "carol"))["code"] == 67


async def test_connect_while_all_streams_are_in_use(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, bravo, nursery):
        await linked(nursery, alpha, bravo)
        peer = alpha.exchange.peers["bravo"]
        last = peer.converse()
        assert last is not None
        while conversation := peer.converse():
            last = conversation
        assert "in use" in (await operator.ask(Ask.CONNECT, "bravo"))["why"]
        last.end(gone=True)
        assert (await operator.ask(Ask.PING, "bravo"))["ok"] is True


async def test_a_user_who_leaves_in_the_middle_leaves_nothing(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, bravo, nursery):
        await linked(nursery, alpha, bravo)
        people = inside(alpha.exchange.peers["bravo"].ports[0]).people
        for half_said in (b"", b"NOO", b"DATA\r\nx"):
            stream = operator.open(encode_request(Request(Ask.CONNECT, "bravo")))
            await read_line(stream)
            said = b"MAIL FROM:<>\r\nRCPT TO:<%b>\r\n" % BRAVO.encode()
            await stream.send_all(said + half_said)
            await stream.aclose()
            await until(lambda: not people.open, 30)
        assert not bravo.spool.waiting
        assert alpha.exchange.peers["bravo"].up


async def test_a_user_who_says_nothing_is_sent_away(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, bravo, nursery):
        await linked(nursery, alpha, bravo)
        began = trio.current_time()
        stream = operator.open(encode_request(Request(Ask.CONNECT, "bravo")))
        lines = (await everything(stream)).splitlines()
        assert [line[:3] for line in lines[1:]] == [b"220", b"421"]
        assert IDLE_SECONDS <= trio.current_time() - began < IDLE_SECONDS + 30


async def test_a_link_that_is_lost_ends_the_dialogue(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, bravo, nursery):
        cable = await linked(nursery, alpha, bravo)
        stream = operator.open(encode_request(Request(Ask.CONNECT, "bravo")))
        await read_line(stream)
        await read_line(stream)
        (conversation,) = inside(alpha.exchange.peers["bravo"].ports[0]).people.open
        cable.cut()
        assert (await read_line(stream))[:4] == b"421 "
        conversation.write(b"NOOP\r\n")
        conversation.end(gone=True)
        assert conversation.room == 0
        await stream.aclose()


async def test_who_asks_nothing_makes_room(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, *_):
        silent = [operator.open(b"") for _ in range(CONNECTIONS_MAX)]
        began = trio.current_time()
        await trio.sleep(1)
        assert (await operator.ask(Ask.STATUS))["ok"] is True
        assert trio.current_time() == began + REQUEST_SECONDS
        for stream in silent:
            assert await everything(stream) == b""
        stream = operator.open(b'{"ask"')
        await stream.send_eof()
        assert await everything(stream) == b""
        assert b"too long" in await everything(operator.open(b"x" * 1100))


async def test_a_node_without_descriptors_goes_on(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    accept, failures = trio.SocketListener.accept, [OSError(24, "Too many open files")]

    async def failing(listener: trio.SocketListener) -> trio.SocketStream:
        if failures:
            raise failures.pop()
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", failing)
    path = tmp_path / "control.sock"
    async with operated(tmp_path) as (operator, _, _far, nursery):
        nursery.start_soon(operator.control.run, bind_unix(path, CONTROL_MODE))
        stream = await trio.open_unix_socket(path)
        await stream.send_all(encode_request(Request(Ask.STATUS)))
        assert b'"ok":true' in await everything(stream)
        assert not failures


async def test_a_peer_that_goes_while_it_is_pinged(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, bravo, nursery):
        await linked(nursery, alpha, bravo)
        begin = Conversations.begin

        def removed(people: Conversations) -> Conversation:
            (tmp_path / "peers.d" / "bravo.mesh").unlink()
            operator.peers.poll()
            return begin(people)

        monkeypatch.setattr(Conversations, "begin", removed)
        refusal = await operator.ask(Ask.PING, "bravo")
        assert (refusal["code"], "no peer any more" in refusal["why"]) == (69, True)


async def test_status_says_that_the_spool_is_read_and_counts_when_it_was(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (_, alpha, _, _):
        for count in range(1, 13):  # a row each: a stretch reads whole rows
            alpha.submit(b"x\r\n", BRAVO)
            await until(lambda: alpha.spool.waiting == count)  # noqa: B023  # at once
    shutil.rmtree(tmp_path / "peers.d")
    reader = Reader(monkeypatch)
    async with operated(tmp_path) as (operator, alpha, _, nursery):
        nursery.start_soon(operator.control.run, bind_unix(tmp_path / "control.sock"))
        await trio.sleep(1)
        answer = await operator.ask(Ask.STATUS)
        assert answer["notes"] == [READING]
        before = answer["status"]["queue"]["waiting"]
        assert not alpha.spool.is_indexed
        reader.go_on()
        await until(lambda: alpha.spool.is_indexed)
        answer = await operator.ask(Ask.STATUS)
        assert answer["notes"] == []
        assert answer["status"]["queue"]["waiting"] > before  # with no tick since


async def test_who_has_too_much_is_named_on_the_tick_only(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    async with operated(tmp_path) as (operator, alpha, _, nursery):
        nursery.start_soon(operator.control.run, bind_unix(tmp_path / "control.sock"))
        await trio.sleep(1)
        monkeypatch.setattr("mesh.node.spool.SLOTS_MAX", 2)
        mark = operator.peers.snapshot.by_name["bravo"].descriptor.identity[:16]
        for origin in (mark, user_mark(NOBODY)):
            for _ in range(3):
                alpha.qmgr.accept(
                    reverse_path="", recipients=[BRAVO], content=b"x",
                    answer=lambda _: None, origin=origin,
                )  # fmt: skip
        assert (await operator.ask(Ask.STATUS))["notes"] == []
        await trio.sleep(TICK_SECONDS)
        one, two = (await operator.ask(Ask.STATUS))["notes"]
        assert one.startswith("peer bravo has as much in the spool as is left for all")
        assert two.startswith("who submits on a loopback port has as much")
        await trio.sleep(TICK_SECONDS)
        assert (await operator.ask(Ask.STATUS))["notes"] == []
