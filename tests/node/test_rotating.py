# SPDX-License-Identifier: MIT
"""Whole nodes while one of them changes its link key: nobody else does anything."""

import os
import time
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.crypto import x25519_public
from mesh.node.counters import PeerCounters
from mesh.node.inside import Port
from mesh.node.keys import line_of, load_link_keys
from mesh.node.rotation import OVERLAP_RUNNING_SECONDS, OVERLAP_SECONDS, end
from tests.harness import FixedEntropy, until
from tests.node.homes import Home, mesh, running
from tests.node.test_rotation import Album, change, steps

pytestmark = pytest.mark.usefixtures("small")


class Wall:
    """Days that a test may let go by: for the clock on the wall, and for running time."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        wall, clock = time.time, time.clock_gettime
        patch.setattr(time, "time", lambda: wall() + self.ahead)
        patch.setattr(time, "clock_gettime", lambda which: clock(which) + self.ahead)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


def two(folder: Path) -> tuple[Home, Home]:
    alpha, bravo = Home(folder, "alpha"), Home(folder, "bravo")
    alpha.add(bravo)
    bravo.add(alpha)
    return alpha, bravo


def state_of(home: Home) -> Path:
    return home.path / "state"


def publics(home: Home) -> tuple[bytes, ...]:
    return tuple(map(x25519_public, load_link_keys(state_of(home))))


def ports_of(home: Home, other: Home) -> list[Port]:
    peer = home.node._exchange.peers.get(other.name)
    return [port for port in peer.ports if not port.retired] if peer else []


def port(home: Home, other: Home) -> Port:
    (one,) = ports_of(home, other)
    return one


async def linked(alpha: Home, bravo: Home) -> None:
    """One link is up, both mean the same one, and no dial is under way any more."""

    def found() -> list[list[Port]]:
        return [ports_of(alpha, bravo)[:], ports_of(bravo, alpha)[:]]

    def is_settled() -> bool:
        return all([one.up for one in each] == [True] for each in found())

    was: list[list[Port]] = []
    while was != found():
        await until(is_settled, 60)
        was = found()
        await trio.sleep(4)


async def relinked(alpha: Home, bravo: Home) -> None:
    """Lose the link, and have another."""
    gone = port(alpha, bravo), port(bravo, alpha)
    alpha.node._exchange.peers[bravo.name].close_links()
    await until(lambda: gone[0] not in ports_of(alpha, bravo), 10)
    await until(lambda: gone[1] not in ports_of(bravo, alpha), 20)
    await linked(alpha, bravo)


async def dialled_by(dialler: Home, other: Home) -> Port:
    """Lose the link, and have another that this one has dialled; its other end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(other.node._keeping, "endpoints", lambda _: ())
        await relinked(dialler, other)
        while (far := port(other, dialler)).session.we_initiated:  # by an earlier dial
            await relinked(dialler, other)
        return far


def pass_overlap(home: Home, wall: Wall) -> None:
    """Let the fortnight go by, and a day of running."""
    wall.ahead += OVERLAP_SECONDS + 60
    renewal = home.node._renewal
    was = renewal._running
    renewal._running = lambda: was() + OVERLAP_RUNNING_SECONDS


async def talk(alpha: Home, bravo: Home, count: int) -> None:
    """Hand over messages both ways, one each 0.3 s."""
    for number in range(count):
        content = b"%s %d\r\n"
        await alpha.submit("mix@bravo.test", content % (b"from alpha", number))
        await bravo.submit("mix@alpha.test", content % (b"from bravo", number))
        await trio.sleep(0.3)


def all_of(name: bytes, count: int) -> list[bytes]:
    return sorted(b"from %s %d\n" % (name, number) for number in range(count))


async def test_a_rotation_under_traffic(
    tmp_path: Path, autojump_clock: MockClock, wall: Wall
) -> None:
    """No message is lost, none comes twice, and no link is cut by it."""
    alpha, bravo = two(tmp_path)
    (old,), (old_key,) = publics(alpha), load_link_keys(state_of(alpha))
    count = 60
    async with running(alpha, bravo):
        await linked(alpha, bravo)
        ports = port(alpha, bravo), port(bravo, alpha)
        with pytest.MonkeyPatch.context() as patch:
            # As long as it hears of nothing, bravo has the old descriptor: who dials?
            patch.setattr(bravo.node._registry, "consider_descriptors", lambda *_: 0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk, alpha, bravo, count)
                await trio.sleep(3)
                mesh("rotate", "-c", str(alpha.toml))
                await until(lambda: len(alpha.node._renewal.keys) == 2, 2)
            new, before = publics(alpha)
            assert before == old != new
            assert ports == (port(alpha, bravo), port(bravo, alpha))
            assert (await dialled_by(alpha, bravo)).session.peer_link_key == old
            await dialled_by(bravo, alpha)
            assert not bravo.node._keeping.find(new)
        # Bravo hears of it, by the next link; that one stays.
        await relinked(alpha, bravo)
        ports = port(alpha, bravo), port(bravo, alpha)
        await until(lambda: bravo.node._keeping.find(new), 20)
        assert bravo.node._keeping.find(old)
        # The overlap ends.
        pass_overlap(alpha, wall)
        await until(lambda: len(alpha.node._renewal.keys) == 1, 3)
        await until(lambda: bravo.node._keeping.find(old) is None, 20)
        assert old not in {key for key, _ in bravo.node._gate._secrets}
        assert old not in bravo.node._gate._counters
        assert publics(alpha) == (new,)
        assert ports == (port(alpha, bravo), port(bravo, alpha))
        assert (await dialled_by(alpha, bravo)).session.peer_link_key == new
        await dialled_by(bravo, alpha)
        await until(lambda: len(bravo.found()) == count and len(alpha.found()) == count)
    assert bravo.found() == all_of(b"alpha", count)
    assert alpha.found() == all_of(b"bravo", count)
    assert set(PeerCounters(state_of(bravo) / "counters").last) == {old, new}
    secret = line_of("link", old_key).split()[-1][:42]
    for path in alpha.path.rglob("*"):
        assert not (path.is_file() and secret in path.read_bytes())


async def test_a_peer_that_was_away_meanwhile(
    tmp_path: Path, autojump_clock: MockClock, wall: Wall
) -> None:
    alpha, bravo = two(tmp_path)
    async with running(alpha):
        mesh("rotate", "-c", str(alpha.toml))
        await until(lambda: len(alpha.node._renewal.keys) == 2, 2)
        wall.ahead += OVERLAP_SECONDS - 3600
        async with running(bravo):
            await linked(alpha, bravo)
            await dialled_by(alpha, bravo)
            await dialled_by(bravo, alpha)
    async with running(alpha, bravo):  # and after both were restarted
        await linked(alpha, bravo)
        await bravo.submit("mix@alpha.test", b"back\r\n")
        await until(lambda: alpha.found() == [b"back\n"])


@pytest.mark.parametrize("over", [False, True])
async def test_a_peer_that_has_only_the_newest_descriptor(
    tmp_path: Path, autojump_clock: MockClock, over: bool
) -> None:
    alpha, bravo = Home(tmp_path, "alpha"), Home(tmp_path, "bravo")
    alpha.add(bravo)
    mesh("rotate", "-c", str(alpha.toml))
    if over:
        end(state_of(alpha))
    bravo.add(alpha)
    async with running(alpha, bravo):
        await linked(alpha, bravo)
        far = await dialled_by(alpha, bravo)
        assert far.session.peer_link_key == publics(alpha)[-1]
        await dialled_by(bravo, alpha)


async def test_both_rotate_at_once(
    tmp_path: Path, autojump_clock: MockClock, wall: Wall
) -> None:
    alpha, bravo = two(tmp_path)
    async with running(alpha, bravo):
        await linked(alpha, bravo)
        for home in (alpha, bravo):
            mesh("rotate", "-c", str(home.toml))
        await until(lambda: len(alpha.node._renewal.keys) == 2, 2)
        await until(lambda: len(bravo.node._renewal.keys) == 2, 2)
        await dialled_by(alpha, bravo)
        await dialled_by(bravo, alpha)
        alpha.add(bravo)
        await trio.sleep(2)
        await dialled_by(alpha, bravo)
        await dialled_by(bravo, alpha)
        bravo.add(alpha)
        await trio.sleep(2)
        for home in (alpha, bravo):
            pass_overlap(home, wall)
        await until(lambda: len(publics(alpha)) == len(publics(bravo)) == 1, 4)
        await dialled_by(alpha, bravo)
        await dialled_by(bravo, alpha)


KEYS = ("link.key", "link-before.key", "link-next.key", "link-dead.key", "rotation")


def there(moment: Path) -> list[str]:
    return [name for name in KEYS if (moment / name).exists()]


def put_back(state: Path, moment: Path) -> None:
    """Give the state the key files of that moment."""
    for name in KEYS:
        (state / name).unlink(missing_ok=True)
    for name in there(moment):
        os.link(moment / name, state / name)


@pytest.mark.parametrize("what", ["switch", "end"])
async def test_killed_at_each_step_and_started_again(
    tmp_path: Path, autojump_clock: MockClock, what: str
) -> None:
    """Bravo, which does nothing, has its link; at the end it knows the new key."""
    alpha, bravo = two(tmp_path)
    state = state_of(alpha)
    album = Album(tmp_path / "album")
    if what == "end":
        change(state)
        bravo.add(alpha)
    flat = tmp_path / "flat"
    flat.mkdir()
    put_back(flat, state)
    (flat / "identity.key").write_bytes((state / "identity.key").read_bytes())
    album.synced(flat)
    steps(flat, lambda: change(flat) if what == "switch" else end(flat), album)
    killed = {
        tuple((name, (moment / name).read_bytes()) for name in there(moment)): moment
        for step, moment in album.moments
        if step.startswith("killed")
    }
    assert len(killed) > 3
    for number, moment in enumerate(killed.values()):
        put_back(state, moment)
        async with running(alpha, bravo):
            await linked(alpha, bravo)
            await dialled_by(alpha, bravo)
            await dialled_by(bravo, alpha)
            await alpha.submit("mix@bravo.test", b"%03d\r\n" % number)
            await until(lambda n=number: len(bravo.found()) == n + 1)  # type: ignore[misc]
            left = {path.name for path in state.glob("link*")}
            assert left <= {"link.key", "link-before.key"}
        assert load_link_keys(state)[0] in load_link_keys(moment)
    assert FixedEntropy("new").key() == load_link_keys(state)[0]
