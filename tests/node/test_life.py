# SPDX-License-Identifier: MIT
"""The life of a link, on the wire: the same with mail and without, to the octet and instant.

Each story is lived twice, by nodes whose links draw the same: once with nothing to
carry, once with megabytes both ways the whole time.  The snooper has every connection
that was tried for or made, each send of both its ends with instant and length, and
each FIN.  Then each is lived with a link that mail does touch, in one place: it shows.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import trio

from mesh.core.cell import CELL_LEN, CLOSE_BODY, PADDING, Kind, parse_untrusted
from mesh.core.clock import Clock, period_of
from mesh.core.crypto import x25519_public
from mesh.core.strand import Strand
from mesh.node import dialer as dialer_
from mesh.node import inside as inside_
from mesh.node.inside import LAST_CELLS, REPLACED_CELLS, Port
from mesh.node.pacer.client import Feed
from mesh.node.pacer.lane import Lane
from mesh.node.pacer.ring import Ring, slots_of
from mesh.node.peer import Peer
from mesh.node.port import Ending
from tests.descriptors import link_key_of
from tests.harness import until
from tests.node.lives import (
    FIN,
    OTHER,
    Mail,
    Patch,
    Said,
    Sent,
    Story,
    Told,
    World,
    live,
)

KLASS = 6
T = period_of(KLASS)
OFTEN = (30.0, 40.0)
"""Seconds to a replacement: four of them in a story."""
SELDOM = (1800.0, 3600.0)


def nothing(_: World, _mail: Mail) -> None:
    """Idle links."""


def some_megabytes(world: World, mail: Mail, octets: int) -> None:
    for name in OTHER:
        for number in range(40):
            mail.submit(world, name, b"%d\r\n" % number * 600)
        mail.submit(world, name, b"0123456789abcd\r\n" * (octets // 16))


def megabytes(world: World, mail: Mail) -> None:
    """What both ways are busy with to the end of each story, in 40 messages and one."""
    some_megabytes(world, mail, 4_000_000)


def fewer_megabytes(world: World, mail: Mail) -> None:
    """As many as keep a shorter story busy: what is left at its end costs time only."""
    some_megabytes(world, mail, 2_400_000)


# stories


async def replaced(_: World) -> None:
    """Connection after connection, for two minutes."""
    await trio.sleep_until(150)


async def lost(world: World) -> None:
    """The connection is reset."""
    await trio.sleep_until(30)
    world.up.cut()
    await trio.sleep_until(50)


async def silent(world: World) -> None:
    """A cable is pulled; put back, it brings nobody back."""
    await trio.sleep_until(30)
    world.up.silence()
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
    """Bravo is started again with another class."""
    await trio.sleep_until(30)
    await world.stop("bravo")
    await trio.sleep_until(45)
    await world.start("bravo", klass=5)
    await trio.sleep_until(100)


async def raised(world: World) -> None:
    """Another class and clock at bravo, which alpha does not have; then at alpha too."""
    for name, at in (("bravo", 30), ("alpha", 60)):
        await trio.sleep_until(at)
        await world.stop(name)
        await trio.sleep_until(at + 5)
        await world.start(name, klass=7, clock=Clock.SLOTTED)
    await trio.sleep_until(100)


async def bad(world: World) -> None:
    """Cells come late and in pieces, then nobody reads: just not long enough to be dead."""
    await trio.sleep_until(30)
    line = world.up
    for octets in (1, 4095, 4097, 50, 8192):
        line.silence()
        await trio.sleep(1.3)
        for _ in range(3):
            line.let_through(octets)
            await trio.sleep(0.1)
        line.let_go()
        await trio.sleep(1)
    line.near.capacity = line.far.capacity = ROOM
    line.silence()
    await trio.sleep_until(HELD_AT + 10.4)
    line.let_go()
    await trio.sleep_until(80)


ROOM = CELL_LEN + 1000
"""Octets that the kernel takes while nobody reads."""
HELD_AT = 43.0


async def shut(world: World) -> None:
    """Bravo is ended and stays away."""
    await trio.sleep_until(30)
    await world.stop("bravo")
    await trio.sleep_until(150)
    await world.start("bravo")
    await trio.sleep(1)


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
    raised: SELDOM,
    bad: SELDOM,
    shut: SELDOM,
    removed: SELDOM,
    stalled: OFTEN,
}
LOADS: dict[Story, Callable[[World, Mail], None]] = dict.fromkeys(
    (lost, silent, restarted, killed, reclassed, bad, removed), fewer_megabytes
)
ANY_STORY = pytest.mark.parametrize("story", STORIES)


@cache
def lived(story: Story, *, busy: bool) -> Told:
    """Live it as it is; once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        load = LOADS.get(story, megabytes) if busy else nothing
        return live(story, load, STORIES[story], patch)


@ANY_STORY
def test_a_life_is_the_same_with_mail_and_without(story: Story) -> None:
    idle, busy = lived(story, busy=False), lived(story, busy=True)
    assert (idle.arrived, busy.arrived) == (0, 82)
    assert all(busy.waiting), busy.waiting
    assert idle.lines == busy.lines
    assert idle.calls == busy.calls
    assert idle.ends == busy.ends
    lengths = {
        n for line in idle.lines for end in (line.near, line.far) for _, n in end
    }
    assert lengths <= {CELL_LEN, FIN} | (
        {1000, CELL_LEN - 1000} if story is bad else set()
    )


CLOCKS = [Clock.SLOTTED, Clock.POISSON, Clock.CONSTANT]


@pytest.mark.parametrize("clock", CLOCKS)
def test_so_it_is_with_each_clock(clock: Clock) -> None:
    lives = []
    for load in (nothing, megabytes):
        with pytest.MonkeyPatch.context() as patch:
            lives.append(live(replaced, load, OFTEN, patch, clock=clock))
    idle, busy = lives
    assert busy.arrived
    assert (idle.lines, idle.calls, idle.ends) == (busy.lines, busy.calls, busy.ends)


def after(told: Told, said: Said) -> Sent:
    """What an end did after it was told to end."""
    line = told.lines[said.line]
    sent = line.near if said.name == line.dialler else line.far
    return [each for each in sent if each[0] > said.at]


@pytest.mark.parametrize("story", [replaced, rotated, restarted, reclassed, shut])
def test_so_many_cells_then_one_that_says_so_then_nothing(story: Story) -> None:
    told = lived(story, busy=True)
    counted = 0
    for said in told.ends:
        *cells, last = (length for _, length in after(told, said))
        if last != FIN:
            continue  # the story was over
        if said.ending.cells == LAST_CELLS and said.name == "alpha":
            assert cells == []  # bravo is gone: what it sends is not seen
        else:
            assert cells == [CELL_LEN] * (said.ending.cells + 1)
        counted += 1
    endings = [said.ending.cells for said in told.ends]
    assert set(endings) <= {REPLACED_CELLS, LAST_CELLS}
    assert endings.count(REPLACED_CELLS) >= (8 if STORIES[story] is OFTEN else 2)
    assert endings.count(LAST_CELLS) == (0 if STORIES[story] is OFTEN else 2)
    assert counted >= len(told.ends) - 2


def test_both_overlap_and_there_is_one_connection_after_another() -> None:
    told = lived(replaced, busy=True)
    both = [said for said in told.ends if said.ending.cells == REPLACED_CELLS][2:]
    assert len(both) >= 6
    for one, other in zip(both[::2], both[1::2], strict=False):
        assert one.line == other.line
        assert abs(one.at - other.at) < 1  # as soon as each has heard of the new one
        new = told.lines[max(one.line + 1, 2)]  # the second one was alpha's, and lost
        assert one.at - 5 < new.start < one.at
        assert new.dialler == told.lines[one.line].dialler == "bravo"


def test_new_keys_are_taken_up_at_the_next_replacement() -> None:
    told = lived(rotated, busy=True)
    assert told.keys == [x25519_public(NEW[name]) for name in ("bravo", "alpha")]
    assert len(told.lines) == len(lived(replaced, busy=True).lines)  # and not before


def test_another_class_holds_from_the_next_start_on() -> None:
    told = lived(reclassed, busy=True)
    newest = told.lines[-1]
    assert 45 <= newest.start < 55
    for sent in (newest.near, newest.far):
        cells = sum(60 <= each < 100 for each, _ in sent)
        assert cells == pytest.approx(40 / T / 2, rel=0.1)


def test_a_link_has_the_lower_class_and_the_stricter_clock_of_both() -> None:
    told = lived(raised, busy=True)
    for start, end, rate in ((10, 30, 8), (45, 60, 8), (75, 100, 16)):
        (line,) = (
            line
            for line in told.lines
            if sum(start <= at < end for at, _ in line.near) > 20
        )
        for sent in (line.near, line.far):
            cells = sum(start <= at < end for at, _ in sent)
            assert cells == pytest.approx((end - start) * rate, rel=0.15)


def test_a_bad_network_ends_no_link_and_nothing_is_piled_up() -> None:
    told = lived(bad, busy=True)
    first, _ = told.lines  # the other one was alpha's, and lost at the start
    for sent in (first.near, first.far):
        held = [n for at, n in sent if HELD_AT + T < at < HELD_AT + 10.4]
        assert held.count(CELL_LEN) <= 1
        assert len(held) <= 2
        assert sum(at > HELD_AT + 10.4 for at, _ in sent) > 200  # and it goes on


def test_a_silent_peer_is_given_up_after_its_time_and_not_before() -> None:
    told = lived(silent, busy=True)
    first = told.lines[0]
    patience = 8 * T + 10
    for sent in (first.near, first.far):
        at, length = sent[-1]
        assert length == FIN
        assert 30 - 8 * T + patience < at < 30 + 8 * T + patience


def test_a_main_process_that_stalls_shows_nowhere() -> None:
    """Whether it does so or not, and whether there is mail or not."""

    async def steady(_: World) -> None:
        await trio.sleep_until(150)

    lives = []
    for story in (stalled, steady):
        for load in (nothing, megabytes):
            with pytest.MonkeyPatch.context() as patch:
                told = live(story, load, SELDOM, patch, to_the_end=False)
                lives.append(told.lines)
    assert all(each == lives[0] for each in lives)
    assert len(lives[0]) == 2


# one message, more than twenty minutes, one cell a second


def test_five_megabytes_cross_three_replacements_and_never_begin_again() -> None:
    content = b"0123456789abcd\r\n" * 312_500
    bodies: list[bytes] = []
    put = Ring.put

    def putting(ring: Ring, body: Any) -> None:
        if body != PADDING:
            bodies.append(bytes(body))
        put(ring, body)

    def one(world: World, mail: Mail) -> None:
        mail.submit(world, "alpha", content)

    async def until_it_came(world: World) -> None:
        came = world.half("bravo").qmgr.queue("local:0").ready
        await until(lambda: came, 3600)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ring, "put", putting)
        told = live(until_it_came, one, (300.0, 350.0), patch, klass=3)
    assert told.arrived == 1
    said = [
        bytes(segment.octets)
        for body in bodies
        for segment in parse_untrusted(body)
        if segment.kind == Kind.COMMANDS
    ]
    octets = sum(map(len, said))
    assert len(content) < octets < len(content) + 5_000  # 77 chunks have a line each
    assert sum(part.count(b"MAIL FROM") for part in said) == 1
    moved = [said for said in told.ends if said.ending.cells == REPLACED_CELLS][2:]
    assert len(moved) >= 2 * 3
    assert {len(after(told, each)) for each in moved} == {64 + 1 + 1}  # and a FIN


# ways of breaking it, each of which shows


def getter(read: Any) -> Any:
    """What a property of a class does."""
    return read.fget


def is_busy(peer: Peer) -> bool:
    return bool(peer._qmgr.spool.waiting)


def stays_while_something_waits(patch: Patch) -> None:
    """A connection that is replaced, or a node that ends, sends a cell more."""
    ending = getter(Port.ending)

    def longer(port: Port) -> Ending | None:
        said: Ending | None = ending(port)
        more = is_busy(port.peer)  # type: ignore[arg-type]
        return said and said._replace(cells=said.cells + more)

    patch.setattr(Port, "ending", property(longer))


def is_replaced_sooner(patch: Patch) -> None:
    """Fresh keys for fresh mail."""
    due = getter(Peer.due)
    sooner = property(lambda peer: due(peer) - (1 if is_busy(peer) else 0))
    patch.setattr(Peer, "due", sooner)


def dials_sooner(patch: Patch) -> None:
    """Mail that waits makes the dialer hurry."""
    wait = dialer_._wait_for_link

    async def hurrying(peer: Peer, seconds: float) -> None:
        await wait(peer, seconds / 2 if is_busy(peer) else seconds)

    patch.setattr(dialer_, "_wait_for_link", hurrying)


def is_given_up_sooner(patch: Patch) -> None:
    """Mail that gets nowhere makes a node impatient."""
    push = Feed.push

    def pushing(feed: Feed) -> None:
        push(feed)
        port = feed._port
        assert isinstance(port, Port)
        if port.has_data and trio.current_time() > port.heard + 5:
            port.scope.cancel()

    patch.setattr(Feed, "push", pushing)


def ends_when_all_is_said(patch: Patch) -> None:
    """The link says that it ends as soon as nothing waits: so it was once.

    With more last cells than there are, so that the other side has an instant between.
    """
    patch.setattr(inside_, "LAST_CELLS", 20)
    said = set[Strand]()

    def has_data(strand: Strand) -> bool:
        link = strand.link
        closing = link is not None and link.closing and strand not in said
        return closing or bool(data(strand))

    def next_body(strand: Strand) -> bytes:
        if has_data(strand) and not data(strand):
            said.add(strand)
            return CLOSE_BODY
        return body(strand)

    data, body = getter(Strand.has_data), Strand.next_body
    patch.setattr(Strand, "has_data", property(has_data))
    patch.setattr(Strand, "next_body", next_body)


def has_last_words(patch: Patch) -> None:
    """What is to go still goes when a peer is removed, or the process ends."""
    close = Lane.close

    def closing(lane: Lane, reason: int) -> None:
        if lane._ring.room < slots_of(KLASS)[0] and lane._sealed:
            lane._wire.try_send(lane._cell)
        close(lane, reason)

    patch.setattr(Lane, "close", closing)


def hurries(patch: Patch) -> None:
    """A cell that has something to say leaves a millisecond sooner."""
    instant = Lane.instant

    def doing(lane: Lane, now: float) -> int:
        ended = instant(lane, now)
        if lane._ring.room < slots_of(KLASS)[0]:
            lane._law.due -= 0.001
        return ended

    patch.setattr(Lane, "instant", doing)


def pushes_on(patch: Patch) -> None:
    """Mail is sealed into a kernel that is full."""
    send = Lane._send

    def sending(lane: Lane, now: float) -> int:
        wire = lane._wire
        if lane._ring.room < slots_of(KLASS)[0]:
            patch.setattr(wire, "unsent", lambda: 0, raising=False)
            patch.setattr(wire, "capacity", 1 << 20, raising=False)
        return send(lane, now)

    patch.setattr(Lane, "_send", sending)


BROKEN: list[tuple[Story, Callable[[Patch], None]]] = [
    (replaced, stays_while_something_waits),
    (replaced, is_replaced_sooner),
    (rotated, is_replaced_sooner),
    (lost, dials_sooner),
    (silent, is_given_up_sooner),
    (restarted, ends_when_all_is_said),
    (shut, stays_while_something_waits),
    (killed, has_last_words),
    (removed, has_last_words),
    (reclassed, hurries),
    (stalled, hurries),
    (bad, pushes_on),
]


@pytest.mark.parametrize(("story", "way"), BROKEN)
def test_this_test_can_tell(story: Story, way: Callable[[Patch], None]) -> None:
    lives = []
    for load in (nothing, megabytes):
        with pytest.MonkeyPatch.context() as patch:
            way(patch)
            told = live(story, load, STORIES[story], patch, to_the_end=False)
            lives.append(told)
    idle, busy = lives
    assert (idle.lines, idle.calls) != (busy.lines, busy.calls)
