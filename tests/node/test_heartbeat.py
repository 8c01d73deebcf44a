# SPDX-License-Identifier: MIT
"""Heartbeats between two nodes: port 25 stands still while nobody's mail comes in."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.alarm import HOLD_SECONDS, SHORT
from mesh.core.encoding import Value, encode
from mesh.errors import ConfigError
from mesh.node.heartbeat import Heartbeats, Memory
from tests.harness import Patience, half, until
from tests.node.gossips import public_of
from tests.node.homes import Home, mesh, running

pytestmark = pytest.mark.usefixtures("small")

TICK = 10
RATE = "8"
OUT = "who@x.test"


def exit_and_peer(folder: Path, **more: str) -> tuple[Home, Home]:
    """An exit whose mail server is nobody, and its only peer."""
    bravo, alpha = Home(folder, "bravo"), Home(folder, "alpha")
    for one in (alpha, bravo):
        one.set(cells_per_second=RATE)
    told = {"heartbeats": "true", **more}
    bravo.set(exit="true", smarthost='"127.0.0.1:1"', share="1", **told)
    alpha.add(bravo)
    bravo.add(alpha)
    return bravo, alpha


def beats_of(home: Home) -> Heartbeats:
    return home.node._heartbeats


async def armed(home: Home) -> None:
    await until(lambda: beats_of(home)._alarm.is_armed, 60)


async def in_the_pool(home: Home) -> None:
    assert (await home.submit(OUT))[1] == 250
    assert len(home.node._qmgr.pool) == 1


async def test_without_heartbeats_nothing_leaves_and_with_them_all_does(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    bravo, alpha = exit_and_peer(tmp_path, max_delay_seconds="100")
    async with running(bravo):
        async with running(alpha):
            await armed(bravo)
            assert not alpha.found()  # no heartbeat is mail for a remailer
            assert not bravo.found()
        await trio.sleep(60)
        assert beats_of(bravo).holds()
        await in_the_pool(bravo)
        await trio.sleep(200)  # longer than the pool may hold anybody
        assert len(bravo.node._qmgr.pool) == 1
        [said] = bravo.node._notices()
        assert said.endswith("s: mail for port 25 waits")
        async with running(alpha):
            await until(lambda: not len(bravo.node._qmgr.pool), 120)
            assert not beats_of(bravo).holds()


async def test_a_restart_in_an_alarm_lets_nobody_leave(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    """Its operator sees the notice, and starts the node anew."""
    del autojump_clock, patience
    bravo, alpha = exit_and_peer(tmp_path)
    async with running(bravo, alpha):
        await armed(bravo)
        await until(lambda: (bravo.path / "state" / "heartbeats").exists(), 60)
    async with running(bravo):
        await in_the_pool(bravo)
        await trio.sleep(HOLD_SECONDS - 60)
        assert len(bravo.node._qmgr.pool) == 1
        [said] = bravo.node._notices()
        assert said.endswith("mail for port 25 waits")
        async with running(alpha):
            await until(lambda: not len(bravo.node._qmgr.pool), 120)


async def test_ticks_too_short_for_the_links_are_said_where_there_are_heartbeats(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    bravo, alpha = exit_and_peer(tmp_path, tick_seconds="5")
    alpha.set(tick_seconds="5")
    async with running(bravo, alpha):
        await armed(bravo)
        [said] = bravo.node._notices()
        assert said == f"{SHORT} 6 ticks late: have 9 at least for these links"
        assert alpha.node._notices() == []


async def test_what_follows_the_longest_hold_is_as_node_toml_says(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    del autojump_clock
    for after in ("release", "keep"):
        (tmp_path / after).mkdir()
        bravo, _ = exit_and_peer(tmp_path / after, after_hold=f'"{after}"')
        async with running(bravo):
            alarm = beats_of(bravo)._alarm
            [(_, content)] = alarm.beats(trio.current_time(), {"x": 1.0})
            assert bravo.node._exchange.is_ours(content)
            now = trio.current_time() + 1000
            assert alarm.holds(now)
            assert alarm.holds(now + HOLD_SECONDS) == (after == "keep")


async def test_a_peer_who_was_removed_holds_up_nobody(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    bravo, alpha = exit_and_peer(tmp_path)
    charlie = Home(tmp_path, "charlie")
    charlie.set(cells_per_second=RATE)
    charlie.add(bravo)
    bravo.add(charlie)
    async with running(bravo, charlie):
        async with running(alpha):
            await until(lambda: bravo.up(alpha) and bravo.up(charlie), 60)
            heard = beats_of(bravo)._alarm._peers.values()
            await until(lambda: all(peer.heard > 0 for peer in heard), 60)
        bravo.remove(alpha)
        await trio.sleep(5)
        for _ in range(12):
            await trio.sleep(TICK)
            assert not beats_of(bravo).holds()
        assert list(beats_of(bravo)._alarm._peers) == ["charlie"]


async def test_a_whole_domain_has_an_address_for_them(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    bravo, alpha = exit_and_peer(tmp_path)
    text = bravo.toml.read_text()
    bravo.toml.write_text(text.replace('"mix@bravo.test"', '"@bravo.test"'))
    alpha.remove(bravo)
    file = tmp_path / "bravo.asc"
    file.write_text(mesh("export", "-c", str(bravo.toml)))
    mesh("peers", "add", "-c", str(alpha.toml), "--serves", "@bravo.test", str(file))
    async with running(bravo, alpha):
        await armed(bravo)
        assert not bravo.found()


async def test_a_peer_s_queue_lets_what_it_brought_itself_go_first(
    tmp_path: Path,
) -> None:
    async with half(tmp_path, "alpha", {"mix@bravo.test": "bravo"}) as alpha:
        peer = alpha.exchange.peer("bravo", public_of("bravo"))
        for content, origin in ((b"mail", b"c" * 16), (b"beat", peer.fingerprint)):
            alpha.submit(content, "mix@bravo.test", origin=origin)
            count = len(peer._queue.ready)
            await until(lambda n=count: len(peer._queue.ready) > n)  # type: ignore[misc]
        records = [alpha.spool.hot(ref) for ref in peer._queue.ready]
        assert [record.content for record in records if record] == [b"beat", b"mail"]


@pytest.mark.parametrize("off", [{"heartbeats": "false"}, {"kind": '"none"'}])
async def test_who_wants_none_has_none(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience, off: dict[str, str]
) -> None:
    del autojump_clock, patience
    bravo, alpha = exit_and_peer(tmp_path, **off)
    async with running(bravo):
        async with running(alpha):
            await until(lambda: bravo.up(alpha), 60)
            await trio.sleep(20)
        await trio.sleep(60)
        assert not beats_of(bravo).holds()
        assert (await bravo.submit(OUT))[1] == 250
        await until(lambda: not len(bravo.node._qmgr.pool), TICK)


async def test_beats_are_no_mail_on_any_list(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    """A while of them leaves nothing behind: no record, no id, no letter."""
    del autojump_clock, patience
    bravo, alpha = exit_and_peer(tmp_path)
    async with running(bravo, alpha):
        await armed(bravo)
        await trio.sleep(120)
        await until(lambda: not alpha.node._spool.waiting, 60)
        assert not bravo.node._spool.waiting
        for one, other in ((alpha, bravo), (bravo, alpha)):
            peer = one.node._exchange.peers[other.name]
            assert one.node._spool.known_ids(peer.fingerprint) <= 1  # one on its way
            assert not one.node._qmgr.guard.bugs
            assert not one.found()


async def test_who_turned_them_off_is_not_held_by_what_was_before(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    bravo, alpha = exit_and_peer(tmp_path)
    async with running(bravo, alpha):
        await armed(bravo)
        await until(lambda: (bravo.path / "state" / "heartbeats").exists(), 60)
    text = bravo.toml.read_text()
    bravo.toml.write_text(text.replace("heartbeats = true", "heartbeats = false"))
    async with running(bravo):
        await in_the_pool(bravo)
        await until(lambda: not len(bravo.node._qmgr.pool), 120)


async def test_where_their_names_find_no_room_they_go_on(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    bravo, alpha = exit_and_peer(tmp_path)
    blocked = bravo.path / "state" / "heartbeats.new"
    blocked.mkdir()
    async with running(bravo, alpha):
        await armed(bravo)
        await trio.sleep(60)
        assert not (bravo.path / "state" / "heartbeats").exists()
        blocked.rmdir()
        await until(lambda: (bravo.path / "state" / "heartbeats").exists(), 60)


async def test_who_is_listed_no_more_has_none(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    """Also while his link is still up."""
    del autojump_clock, patience
    bravo, alpha = exit_and_peer(tmp_path)
    async with running(bravo, alpha):
        await armed(bravo)
        assert bravo.up(alpha)
        beats_of(bravo)._listed = list
        beats_of(bravo)._beat()
        assert beats_of(bravo)._alarm.heard() == []


@pytest.mark.parametrize(
    ("known", "names"), [(None, []), (5, []), ([1, "a", b"b"], ["a"])]
)
def test_what_a_file_may_say(tmp_path: Path, known: Value, names: list[str]) -> None:
    file = tmp_path / "heartbeats"
    assert Memory(file).names == []
    file.write_bytes(encode(known))
    assert Memory(file).names == names
    file.write_bytes(b"\xc1")
    with pytest.raises(ConfigError, match="heartbeats: not what this node wrote"):
        Memory(file)
