# SPDX-License-Identifier: MIT
"""Who dials and which link stays; 1,000 nights on which both dial at once."""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.clock import Clock
from mesh.core.crypto import Key, signing_public, x25519_public
from mesh.core.election import (
    BACKOFF_MAX,
    Candidate,
    Redial,
    we_are_smaller,
    winner,
)
from mesh.core.gate import Gate, Responder
from mesh.core.handshake import (
    Initiator,
    PeerKeys,
    next_counter,
    response_delay,
)
from mesh.errors import HandshakeError
from tests.handshakes import FixedKem, draw, identity, kem_seed, peer, static, values
from tests.harness import FixedEntropy

PERIOD = 1.0


class Stuck:
    """An entropy at one end of its range."""

    def __init__(self, octet: int) -> None:
        self._octet = octet

    def octets(self, length: int) -> bytes:
        return bytes([self._octet]) * length

    def key(self) -> Key:
        raise AssertionError("an election has no secrets")


LOW, HIGH = Stuck(0), Stuck(255)


def about(value: float) -> object:
    return pytest.approx(value, abs=1e-6)


# Redialling


def test_the_smaller_id_dials_and_the_other_waits_for_it() -> None:
    assert we_are_smaller(b"\0" * 32, b"\1" * 32)
    assert not we_are_smaller(b"\1" * 32, b"\0" * 32)
    smaller, greater = Redial(smaller=True), Redial(smaller=False)
    assert (smaller.after_loss(LOW), smaller.after_loss(HIGH)) == (about(0.2), about(1))
    assert (greater.after_loss(LOW), greater.after_loss(HIGH)) == (about(2), about(4))


@pytest.mark.parametrize("smaller", [True, False])
def test_failures_double_the_wait_to_half_a_minute(smaller: bool) -> None:
    redial = Redial(smaller=smaller)
    waits = [redial.after_failure(HIGH) for _ in range(8)]
    assert waits == [about(value) for value in (1, 2, 4, 8, 16, 30, 30, 30)]
    assert redial.after_failure(LOW) == about(6.0)  # drawn at the longest wait too
    redial.after_loss(LOW)
    assert redial.after_failure(LOW) == about(6.0)  # waiting is no success
    redial.link_up()
    assert (redial.after_failure(LOW), redial.after_failure(LOW)) == (
        about(0.2),
        about(0.4),
    )
    assert max(waits) <= BACKOFF_MAX


# Which link stays


def up(*, smaller: bool, counter: int, heard: float = 100.0) -> Candidate:
    return Candidate(dialled_by_smaller=smaller, counter=counter, last_heard=heard)


def test_the_one_link_stays_however_silent() -> None:
    assert winner([up(smaller=False, counter=1, heard=0.0)], PERIOD, 100.0) == 0


def test_no_link_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="empty"):
        winner([], PERIOD, 0.0)


def test_the_smaller_ids_wins_then_the_greater_counter() -> None:
    links = [
        up(smaller=False, counter=9),
        up(smaller=True, counter=3),
        up(smaller=True, counter=5),
        up(smaller=True, counter=4),
        up(smaller=False, counter=99),
    ]
    assert winner(links, PERIOD, 100.0) == 2
    assert winner([links[0], links[4]], PERIOD, 100.0) == 1


@pytest.mark.parametrize(("period", "limit"), [(1.0, 4.0), (8.0, 18.0), (1 / 4096, 2)])
def test_silence_loses_to_any_newer_link(period: float, limit: float) -> None:
    now = 100.0
    newer = up(smaller=False, counter=1, heard=now)
    heard = up(smaller=True, counter=9, heard=now - limit + 0.01)
    silent = up(smaller=True, counter=9, heard=now - limit - 0.01)
    assert winner([heard, newer], period, now) == 0
    assert winner([silent, newer], period, now) == 1
    assert winner([newer, silent], period, now) == 1  # but to no older one


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 50)),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    st.randoms(use_true_random=False),
)
def test_both_ends_name_the_same_whatever_came_up_first(
    links: list[tuple[bool, int]], chance: random.Random
) -> None:
    ours = [up(smaller=smaller, counter=counter) for smaller, counter in links]
    theirs = chance.sample(ours, len(ours))
    kept = ours[winner(ours, PERIOD, 100.0)]
    assert theirs[winner(theirs, PERIOD, 101.0)] == kept
    # and one by one, in any order, the same is left
    left: list[Candidate] = []
    for link in theirs:
        left = [(*left, link)[winner([*left, link], PERIOD, 101.0)]]
    assert left == [kept]


# Two nodes on a fake network, with real handshakes and real redialling


@dataclass(eq=False)
class Wire:
    """One connection; each end's words arrive at the other in order."""

    dialler: "Node"
    answerer: "Node"
    arrived: dict[str, float] = field(default_factory=dict)
    closed: bool = False

    def other(self, node: "Node") -> "Node":
        return self.answerer if node is self.dialler else self.dialler


@dataclass(eq=False)
class Up:
    wire: Wire
    candidate: Candidate


class World:
    """Events at their times: the fake clock and the fake network."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311
        self.now = 0.0
        self.loss = self.chance.choice((0.0, 0.0, 0.2))
        self.trips: tuple[float, ...] = (0.001, 0.05, 0.4, 1.5)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def send(self, wire: Wire, to: "Node", event: Callable[[], None]) -> None:
        """Carry something over a connection: late, but never out of order."""
        when = self.now + self.chance.choice(self.trips)
        when = wire.arrived[to.name] = max(when, wire.arrived.get(to.name, 0.0))
        self.at(when, event)

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until


class Node:
    """What dialer, listener and exchange will do, as far as links are chosen."""

    def __init__(self, world: World, name: str, other: str) -> None:
        self.world, self.name = world, name
        self.entropy = FixedEntropy(f"{name} {world.chance.random()}")
        self.peer = peer(other)
        self.key, self.static = identity(name), static(name)
        self.smaller = we_are_smaller(signing_public(self.key), self.peer.identity)
        self.redial = Redial(smaller=self.smaller)
        self.counter = 0
        self.clock_error = world.chance.choice((0, 10**18))
        self.kem = FixedKem(kem_seed("election"), V)
        self.gate = Gate(
            network="test",
            identity=self.key,
            statics=[self.static],
            find_peer={self.peer.link_keys[0]: self.peer}.get,
            counters={},
            clock=Clock.RENEWAL,
            klass=3,
            kem=self.kem,
            entropy=self.entropy,
        )
        self.ups: list[Up] = []
        self.ready = self.dialling = self.contested = False
        self.first_up = -1.0
        self.others: Node

    def start(self) -> None:
        self.ready = True
        self.dial()

    def dial(self) -> None:
        """No link and no dial under way: try; else this wait came to nothing."""
        if self.ups or self.dialling:
            return
        self.dialling = True
        self.counter = next_counter(
            self.counter, int(self.world.now * 1e9) + self.clock_error
        )
        wire = Wire(self, self.others)
        initiator = Initiator(
            network="test",
            identity=self.key,
            static=self.static,
            peer=self.peer,
            counter=self.counter,
            clock=Clock.RENEWAL,
            klass=3,
            kem=self.kem,
            entropy=self.entropy,
        )
        self.timeout(wire, lambda: self.dial_failed(wire))
        if not self.others.ready or self.world.chance.random() < self.world.loss:
            return self.close(wire)
        message = initiator.message_1()
        hear = self.others.hear_1
        self.world.send(wire, self.others, lambda: hear(wire, message, initiator))
        return None

    def timeout(self, wire: Wire, event: Callable[[], None]) -> None:
        def expired() -> None:
            if not any(one.wire is wire for one in (*self.ups, *self.others.ups)):
                event()

        self.world.at(self.world.now + 15.0, expired)

    def hear_1(self, wire: Wire, message: bytes, initiator: Initiator) -> None:
        delay = response_delay(self.entropy)
        if wire.closed:
            return
        try:
            responder = self.gate.receive_message_1_untrusted(message, self.world.now)
        except HandshakeError:
            return  # silence
        self.timeout(wire, responder.abandon)
        self.world.at(
            self.world.now + delay, lambda: self.answer(wire, responder, initiator)
        )

    def answer(self, wire: Wire, responder: Responder, initiator: Initiator) -> None:
        if wire.closed:
            return responder.abandon()
        dialler = wire.dialler
        self.world.send(
            wire, dialler, lambda: dialler.hear_2(wire, responder, initiator)
        )
        return None

    def hear_2(self, wire: Wire, responder: Responder, initiator: Initiator) -> None:
        delay = response_delay(self.entropy)
        if wire.closed:
            return
        message = initiator.receive_message_2_untrusted(responder.message_2)
        counter = initiator.session().counter

        def proof() -> None:
            answerer = wire.answerer
            self.world.send(
                wire, answerer, lambda: answerer.hear_3(wire, responder, message)
            )
            self.start_cells(wire, counter)

        self.world.at(self.world.now + delay, proof)

    def hear_3(self, wire: Wire, responder: Responder, message: bytes) -> None:
        if wire.closed:
            return responder.abandon()
        session = responder.receive_message_3_untrusted(message, self.world.now)
        self.start_cells(wire, session.counter)
        return None

    def start_cells(self, wire: Wire, counter: int) -> None:
        """Send the first cell within a period; it makes the link up over there."""

        def first_cell() -> None:
            if not wire.closed:
                there = wire.other(self)
                self.world.send(wire, there, lambda: there.link_up(wire, counter))

        self.world.at(self.world.now + self.world.chance.random() * PERIOD, first_cell)

    def link_up(self, wire: Wire, counter: int) -> None:
        if wire.closed:
            return
        ours = wire.dialler is self
        if ours:
            self.dialling = False
        self.redial.link_up()
        if self.first_up < 0:
            self.first_up = self.world.now
        candidate = Candidate(
            dialled_by_smaller=ours == self.smaller,
            counter=counter,
            last_heard=self.world.now,
        )
        self.ups.append(Up(wire, candidate))
        self.contested = self.contested or len(self.ups) > 1
        kept = self.ups[
            winner([one.candidate for one in self.ups], PERIOD, self.world.now)
        ]
        for loser in [one for one in self.ups if one is not kept]:
            self.close(loser.wire)

    def close(self, wire: Wire) -> None:
        wire.closed = True
        self.wire_gone(wire)
        there = wire.other(self)
        self.world.send(wire, there, lambda: there.wire_gone(wire))

    def wire_gone(self, wire: Wire) -> None:
        had = [one for one in self.ups if one.wire is wire]
        self.ups = [one for one in self.ups if one.wire is not wire]
        if had and not self.ups:
            wait = self.redial.after_loss(self.entropy)
            self.world.at(self.world.now + wait, self.dial)
        elif not had and wire.dialler is self:
            self.dial_failed(wire)

    def dial_failed(self, wire: Wire) -> None:
        wire.closed = True
        if wire.dialler is self and self.dialling:
            self.dialling = False
            wait = self.redial.after_failure(self.entropy)
            self.world.at(self.world.now + wait, self.dial)


V = values("election")


def two_nodes(seed: int, apart: float | None = None) -> tuple[World, Node, Node]:
    world = World(seed)
    ivy, rob = Node(world, "ivy", "rob"), Node(world, "rob", "ivy")
    ivy.others, rob.others = rob, ivy
    if apart is None:
        apart = world.chance.choice((0.0, 0.0, 0.5, 3.0))
    first, second = world.chance.sample((ivy, rob), 2)
    world.at(0.0, first.start)
    world.at(apart, second.start)
    return world, ivy, rob


def assert_one_and_the_same(ivy: Node, rob: Node) -> Up:
    assert len(ivy.ups) == len(rob.ups) == 1
    assert ivy.ups[0].wire is rob.ups[0].wire
    assert ivy.ups[0].candidate.counter == rob.ups[0].candidate.counter
    assert not ivy.ups[0].wire.closed
    return ivy.ups[0]


@pytest.mark.usefixtures("repeats")
def test_1000_interleavings_of_both_dialling_leave_one_link() -> None:
    contested = 0
    for seed in range(1000):
        world, ivy, rob = two_nodes(seed)
        world.run(until=90.0)
        assert_one_and_the_same(ivy, rob)
        assert ivy.counter > 0
        assert rob.counter > 0
        contested += ivy.contested or rob.contested
    assert contested > 300  # two links were up, and one end or both had to choose


@pytest.mark.usefixtures("repeats")
def test_a_lost_link_comes_back_and_the_smaller_id_dials_it() -> None:
    for seed in range(40):
        world, ivy, rob = two_nodes(seed)
        world.loss = 0.0
        world.run(until=90.0)
        lost = assert_one_and_the_same(ivy, rob)
        world.chance.choice((ivy, rob)).close(lost.wire)
        world.run(until=120.0)
        again = assert_one_and_the_same(ivy, rob)
        assert again.wire is not lost.wire


@pytest.mark.usefixtures("repeats")
def test_there_is_a_link_4_seconds_after_the_second_is_ready() -> None:
    for seed in range(100):
        world, ivy, rob = two_nodes(seed, apart=5.0)
        world.loss, world.trips = 0.0, (0.001, 0.05)
        world.run(until=20.0)
        assert 5.0 < ivy.first_up < 9.0
        assert 5.0 < rob.first_up < 9.0
        assert_one_and_the_same(ivy, rob)


def test_the_parties_are_real() -> None:
    assert peer("ivy") == PeerKeys(
        "ivy", signing_public(identity("ivy")), (x25519_public(static("ivy")),)
    )
    assert draw("ivy id") != draw("rob id")
