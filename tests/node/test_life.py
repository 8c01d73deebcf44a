# SPDX-License-Identifier: MIT
"""The life of a link, on the wire: the same with mail and without, to the octet and instant.

Each story is lived twice, by nodes whose links draw the same: once with nothing to
carry, once with megabytes both ways the whole time.  The snooper has every connection
that was tried for or made, each send of both its ends with instant and length, and
each FIN.  Then each is lived with a link that mail does touch, in one place: it shows.
"""

from collections.abc import Callable
from functools import cache

import pytest
import trio

from mesh.core.cell import CELL_LEN
from mesh.core.clock import Clock, period_of
from mesh.node.pacer.client import Feed
from tests.descriptors import link_key_of
from tests.node.lives import FIN, OTHER, Mail, Patch, Story, Told, World, live

KLASS = 6
T = period_of(KLASS)
OFTEN = (30.0, 40.0)
"""Seconds to a replacement: four of them in a story."""
SELDOM = (1800.0, 3600.0)


def nothing(_: World, _mail: Mail) -> None:
    """Idle links."""


def megabytes(world: World, mail: Mail) -> None:
    """What both ways are busy with to the end of each story."""
    for name in OTHER:
        for number in range(40):
            mail.submit(world, name, b"%d\r\n" % number * 600)
        mail.submit(world, name, b"0123456789abcd\r\n" * 250_000)


# stories


async def replaced(_: World) -> None:
    """Connection after connection, for two minutes."""
    await trio.sleep_until(150)


async def lost(world: World) -> None:
    """The connection is reset."""
    await trio.sleep_until(30)
    world.newest.cut()
    await trio.sleep_until(50)


async def silent(world: World) -> None:
    """A cable is pulled; put back, it brings nobody back."""
    await trio.sleep_until(30)
    world.newest.silence()
    await trio.sleep_until(70)


async def restarted(world: World) -> None:
    """Bravo is ended in order, and started."""
    await trio.sleep_until(30)
    await world.stop("bravo")
    await trio.sleep_until(45)
    await world.start("bravo")
    await trio.sleep_until(70)


async def killed(world: World) -> None:
    """Bravo's main process dies; the kernel, or the pacer, says FIN."""
    await trio.sleep_until(30)
    world.kill("bravo")
    await trio.sleep_until(33)
    await world.start("bravo")
    await trio.sleep_until(60)


NEW = {name: link_key_of("new " + name) for name in OTHER}


async def rotated(world: World) -> None:
    """Both have a new link key, then it alone; replacements go on."""
    await trio.sleep_until(15)
    for name in OTHER:
        world.rotate(name, [NEW[name], link_key_of(name)])
        await trio.sleep(1)
    await trio.sleep_until(90)
    for name in OTHER:
        world.rotate(name, [NEW[name]])
    await trio.sleep_until(150)


async def reclassed(world: World) -> None:
    """Bravo is started again with another class and another clock."""
    await trio.sleep_until(30)
    await world.stop("bravo")
    await trio.sleep_until(45)
    await world.start("bravo", klass=5, clock=Clock.SLOTTED)
    await trio.sleep_until(90)


async def shut(world: World) -> None:
    """Bravo is ended and stays away."""
    await trio.sleep_until(30)
    await world.stop("bravo")
    await trio.sleep_until(150)
    await world.start("bravo")


async def removed(world: World) -> None:
    """Bravo has alpha no more, and later again."""
    await trio.sleep_until(30)
    world.remove("bravo")
    await trio.sleep_until(90)
    world.ends["bravo"].listed.add("alpha")


def hold(world: World, patch: Patch) -> Callable[[str], None]:
    """Let one node's main process do nothing for its links; "": go on."""
    stopped = [""]
    for what in ("push", "pull"):
        do = getattr(Feed, what)

        def doing(feed: Feed, do: Callable[[Feed], None] = do) -> None:
            if OTHER.get(stopped[0]) != feed._port.peer.name:  # type: ignore[attr-defined]
                do(feed)

        patch.setattr(Feed, what, doing)

    def stop(name: str) -> None:
        stopped[0] = name
        if not name:
            for made in world.ends.values():
                for peer in made.half.exchange.peers.values():
                    for port in peer.ports:
                        port.on_data()

    return stop


async def stalled(world: World) -> None:
    """Bravo's main process stops for two seconds, again and again."""
    with pytest.MonkeyPatch.context() as patch:
        stop = hold(world, patch)
        while trio.current_time() < 150:
            stop("bravo")
            await trio.sleep(2)
            stop("")
            await trio.sleep(5)


STORIES: dict[Story, tuple[float, float]] = {
    replaced: OFTEN,
    lost: SELDOM,
    silent: SELDOM,
    restarted: SELDOM,
    killed: SELDOM,
    rotated: OFTEN,
    reclassed: SELDOM,
    shut: SELDOM,
    removed: SELDOM,
    stalled: OFTEN,
}
ANY_STORY = pytest.mark.parametrize("story", STORIES)


@cache
def lived(story: Story, *, busy: bool) -> Told:
    """Live it as it is; once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        return live(story, megabytes if busy else nothing, STORIES[story], patch)


@ANY_STORY
def test_a_life_is_the_same_with_mail_and_without(story: Story) -> None:
    idle, busy = lived(story, busy=False), lived(story, busy=True)
    assert (idle.arrived, busy.arrived) == (0, 82)
    assert idle.lines == busy.lines
    assert idle.calls == busy.calls
    assert idle.ends == busy.ends
    lengths = {
        n for line in idle.lines for end in (line.near, line.far) for _, n in end
    }
    assert lengths <= {CELL_LEN, FIN}
