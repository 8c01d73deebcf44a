# SPDX-License-Identifier: MIT
"""A node leaves at the hour that it has published; whoever expires is let go of, too."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mesh.core.control import Ask, Request, encode_request
from mesh.core.descriptor import parse_untrusted
from mesh.node.statement import VALIDITY_SECONDS
from tests.harness import until
from tests.node.homes import Home, mesh, running
from tests.node.test_delivery import Server
from tests.node.test_rotating import Wall, linked, ports_of, publics, two

pytestmark = pytest.mark.usefixtures("small")

HOUR = 3600
DAY = 86_400


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


async def status(home: Home) -> dict[str, Any]:
    """What `mesh status --json` prints, and its notes."""
    path = home.path / "state" / "control.sock"
    async with await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(encode_request(Request(Ask.STATUS)))
        answer = json.loads(b"".join([octets async for octets in stream]))
    assert isinstance(answer, dict)
    return answer


async def reason(home: Home) -> str:
    (link,) = (await status(home))["status"]["links"]
    return str(link["reason"])


def leaves_of(home: Home, other: Home) -> int:
    return home.node._peers.snapshot.by_name[other.name].descriptor.leaves


def withdraw(home: Home, *args: str) -> None:
    mesh("withdraw", "-c", str(home.toml), *args)


async def gone(alpha: Home, bravo: Home) -> None:
    """No link, within two cells, and none is tried for."""
    await until(lambda: not ports_of(alpha, bravo) + ports_of(bravo, alpha), 8)
    for home in (alpha, bravo):
        start = home.node._dialer._counter.next()
        await trio.sleep(60)
        assert home.node._dialer._counter.next() == start + 1
    assert not ports_of(alpha, bravo) + ports_of(bravo, alpha)


async def test_a_node_leaves_at_its_hour(
    tmp_path: Path, autojump_clock: MockClock, wall: Wall
) -> None:
    alpha, bravo = two(tmp_path)
    alpha.deliver(f"lmtp:{tmp_path}/sink.sock")
    bravo.set(exit="true", smarthost='"127.0.0.1:9"')
    async with trio.open_nursery() as nursery:
        async with running(alpha, bravo):
            await linked(alpha, bravo)
            withdraw(alpha, "--in", "2")
            await until(lambda: leaves_of(bravo, alpha), 20)  # by the link itself
            assert "this node leaves the mesh at" in (await status(alpha))["notes"][0]
            assert "alpha leaves the mesh at" in (await status(bravo))["notes"][0]
            # Until then all goes on: this waits at alpha for its remailer.
            await bravo.submit("mix@alpha.test", b"early\r\n")
            await until(lambda: alpha.node._qmgr.spool.waiting == 1)
            await until(lambda: bravo.node._qmgr.spool.waiting == 0)
            wall.ahead += 3 * HOUR
            await gone(alpha, bravo)
            await see_that_it_left(alpha, bravo)
            # What it has for its remailers it delivers.
            server = Server(tmp_path / "sink.sock")
            nursery.start_soon(server.run)
            await until(lambda: len(server.messages) == 1, 4000)
        async with running(alpha):  # and after a restart
            assert (await alpha.submit("mix@bravo.test"))[0] == 451
            await trio.sleep(5)
            assert not ports_of(alpha, bravo)
        nursery.cancel_scope.cancel()


async def see_that_it_left(alpha: Home, bravo: Home) -> None:
    """It takes no mail, of nobody for nobody; mail for it waits and goes nowhere."""
    for home, other in ((alpha, bravo), (bravo, alpha)):  # whoever knocks is a stranger
        assert home.node._keeping.find(publics(other)[0]) is None
    for address in ("mix@bravo.test", "mix@alpha.test", "x@nowhere.test"):
        assert (await alpha.submit(address))[0] == 451
    assert await bravo.submit("mix@alpha.test", b"late\r\n") == [250, 250]
    await trio.sleep(30)
    queues = bravo.node._qmgr.queues
    assert {
        name: len(queue.ready) for name, queue in queues.items() if queue.ready
    } == {"alpha": 1}
    assert await reason(alpha) == "this node has left the mesh"
    assert (await reason(bravo)).startswith("left the mesh: `mesh peers remove alpha`")
    assert (await status(bravo))["status"]["state"] == "down"
    assert "this node left the mesh at" in (await status(alpha))["notes"][0]


async def test_a_node_that_stays_after_all(
    tmp_path: Path, autojump_clock: MockClock, wall: Wall
) -> None:
    alpha, bravo = two(tmp_path)
    async with running(alpha, bravo):
        await linked(alpha, bravo)
        before = ports_of(alpha, bravo)[:]
        withdraw(alpha, "--in", "2")
        await until(lambda: leaves_of(bravo, alpha), 20)
        withdraw(alpha, "--cancel")
        await until(lambda: not leaves_of(bravo, alpha), 20)
        wall.ahead += 3 * HOUR
        await trio.sleep(60)
        assert ports_of(alpha, bravo) == before
        # It leaves, and comes back: those whose links it has ended add it again.
        withdraw(alpha, "--in", "0")
        await until(lambda: leaves_of(bravo, alpha), 20)
        wall.ahead += HOUR
        await gone(alpha, bravo)
        withdraw(alpha, "--cancel")
        await trio.sleep(60)
        assert not ports_of(alpha, bravo)
        bravo.add(alpha)
        await linked(alpha, bravo)
        assert await alpha.submit("mix@bravo.test") == [250, 250]


async def test_a_descriptor_that_expires_ends_the_link_and_a_new_one_brings_it_back(
    tmp_path: Path, autojump_clock: MockClock, wall: Wall
) -> None:
    alpha, bravo = two(tmp_path)
    async with running(alpha, bravo):
        await linked(alpha, bravo)
        listed = bravo.node._peers.snapshot.by_name["alpha"].descriptor
        with pytest.MonkeyPatch.context() as patch:
            for home in (alpha, bravo):  # neither renews itself
                patch.setattr(home.node._renewal, "_is_due", lambda: False)
            wall.ahead = listed.not_after - time.time() - 30
            await trio.sleep(60)
            assert ports_of(alpha, bravo)
            wall.ahead += 60
            await gone(alpha, bravo)
            assert "expired" in await reason(bravo)
        await until(lambda: alpha.node._renewal.said != listed, 3)
        for home, other in ((alpha, bravo), (bravo, alpha)):
            home.add(other)
        await linked(alpha, bravo)


async def test_descriptors_renew_themselves_and_reach_the_others(
    tmp_path: Path, autojump_clock: MockClock, wall: Wall
) -> None:
    """For three years nobody does anything."""
    alpha, bravo = two(tmp_path)
    async with running(alpha, bravo):
        await linked(alpha, bravo)
        before = ports_of(alpha, bravo)[:]
        for _ in range(12):
            wall.ahead += VALIDITY_SECONDS // 4
            await trio.sleep(30)
        assert ports_of(alpha, bravo) == before
        (said,) = parse_untrusted(mesh("export", "-c", str(alpha.toml)))
        assert bravo.node._peers.snapshot.by_name["alpha"].descriptor == said
        assert said.valid_at(time.time() + VALIDITY_SECONDS // 2 - DAY)
