# SPDX-License-Identifier: MIT
"""Whatever happens, each recipient of what was accepted is in exactly one place.

Some lives of a node in a row, each of any steps: mail comes in, addresses move, a peer
leaves, workers take mail out and settle it or give it back, an operator retries and
drops, time passes; the next life begins with what lay on the disk when the last was
killed, and with another node.toml.  Then, whenever all is quiet:

    accepted, not settled     is in one queue, or deferred, or with one worker
    settled                   is nowhere
    in a queue                belongs there, every recipient of it; what was taken for a
                              peer, or for nobody, waits rather than goes outside
    taken out                 belonged there, and is whole

A kill a moment after a commit may leave more than one, never none: what is not on the
disk as forgotten comes again.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.record import Record
from mesh.core.reply import OK, TRY_LATER, Reply
from mesh.node.records import Records
from mesh.node.routing import EXIT, LOCAL, UNROUTED
from mesh.node.spool import Ref
from tests.harness import Half, Patience, half, patient_clock, until
from tests.node.spooling import few_slots

PEERS = ("bravo", "charlie")
OUTSIDE = (*PEERS, "exit:x", "exit:y", UNROUTED)
INSIDE = ("local:0", "local:1")
PLACES = (*OUTSIDE, *INSIDE)
MOVING = ("a", "b", "c", "d")
OURS = ("k", "l", "m")
NEVER = Reply(550, "5.1.1 no such user")
QUIET_SECONDS = 1.0
"""Time in which whatever was begun is done: disks take none here."""
CALM_SECONDS = 3.0
"""More than the second after which a forgetting is on the disk."""

people = st.lists(st.sampled_from(MOVING + OURS), min_size=1, unique=True)
moves = st.dictionaries(st.sampled_from(MOVING), st.sampled_from(OUTSIDE), max_size=3)
steps = st.one_of(
    st.tuples(st.just("accept"), people, st.booleans()),
    st.tuples(st.just("move"), moves),
    st.tuples(st.just("leave"), st.sampled_from(PEERS)),
    st.tuples(st.just("take"), st.sampled_from(PLACES), st.integers(1, 3)),
    st.tuples(
        st.just("settle"),
        st.lists(st.sampled_from((OK, TRY_LATER, NEVER)), min_size=7, max_size=7),
    ),
    st.tuples(st.just("give back")),
    st.tuples(st.just("retry")),
    st.tuples(st.just("drop"), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from((0.0, 0.4, 9.0, 4000.0))),
    st.tuples(st.just("cool")),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("check")),
)
lives = st.lists(
    st.tuples(
        st.lists(steps, max_size=14),
        st.booleans(),
        st.dictionaries(st.sampled_from(OURS), st.sampled_from(INSIDE + PEERS)),
    ),
    min_size=1,
    max_size=3,
)

One = tuple[bytes, str]
"""A message by its content, and one of its recipients."""


@dataclass
class Story:
    """What must be true, over all lives of the node."""

    routes: dict[str, str]
    alpha: Half = field(init=False)
    nursery: trio.Nursery = field(init=False)
    pending: set[One] = field(default_factory=set)
    settled: set[One] = field(default_factory=set)
    kept: set[One] = field(default_factory=set)
    """Taken for a peer, or for nobody: never to go outside."""
    hands: dict[Ref, tuple[str, Record]] = field(default_factory=dict)
    count: int = 0
    was_killed: bool = False

    def place(self, who: str) -> str:
        return self.routes.get(who, UNROUTED)

    def places(self, record: Record) -> set[str]:
        """Where this record may wait now."""
        places = {self.place(to) for to in record.recipients}
        if record.destination.startswith((LOCAL, EXIT)):
            return places
        return {UNROUTED if place.startswith(EXIT) else place for place in places}

    async def do(self, step: Sequence[object]) -> None:
        name, *given = step
        await getattr(self, str(name).replace(" ", "_"))(*given)

    async def accept(self, who: list[str], patient: bool) -> None:
        self.count += 1
        content = b"%d" % self.count
        self.kept.update(
            (content, to) for to in who if not self.place(to).startswith((LOCAL, EXIT))
        )

        replies: list[Reply] = []

        def answer(reply: Reply) -> None:
            assert reply.positive
            replies.append(reply)
            self.pending.update((content, to) for to in who)

        self.alpha.qmgr.accept(
            reverse_path="",
            recipients=who,
            content=content,
            answer=answer,
        )
        if patient:
            await until(lambda: replies)

    async def move(self, moves: dict[str, str]) -> None:
        self.routes.update(moves)
        for who in [who for who, place in self.routes.items() if place == UNROUTED]:
            del self.routes[who]
        self.alpha.routes.clear()
        self.alpha.routes.update(self.routes)
        self.alpha.qmgr.reroute(self._is_known, changed=True)

    async def leave(self, peer: str) -> None:
        await self.move({who: UNROUTED for who in MOVING if self.place(who) == peer})

    def _is_known(self, place: str) -> bool:
        return place.startswith(LOCAL) or place in self.routes.values()

    async def take(self, place: str, count: int) -> None:
        if place.startswith(EXIT):
            for _ in self.alpha.qmgr.depart():  # a tick of the pool
                pass
        queue = self.alpha.qmgr.queue(place)
        for ref, record in await Records(self.alpha.qmgr, queue).take(count):
            assert {self.place(to) for to in record.recipients} == {place}
            if place.startswith(EXIT):
                assert not self.kept & {
                    (record.content, to) for to in record.recipients
                }
            assert record.content
            assert ref not in self.hands
            self.hands[ref] = place, record

    async def settle(self, drawn: list[Reply]) -> None:
        for ref, (_, record) in list(self.hands.items())[:1]:
            del self.hands[ref]
            replies = drawn[: len(record.recipients)]
            if self.alpha.qmgr.settle(ref, record, replies):
                self.alpha.qmgr.delivered(ref)
            for to, reply in zip(record.recipients, replies, strict=True):
                if not reply.transient:
                    self._end((record.content, to))

    def _end(self, one: One) -> None:
        self.pending.discard(one)
        self.settled.add(one)

    async def give_back(self) -> None:
        for ref, (place, _) in self.hands.items():
            self.alpha.qmgr.release(place, [ref])
        self.hands.clear()

    async def retry(self) -> None:
        self.alpha.qmgr.lead_back(self.alpha.qmgr.take_deferred())

    async def drop(self, deferred: bool) -> None:
        qmgr = self.alpha.qmgr
        ready = qmgr.queue(UNROUTED).ready
        refs = qmgr.take_deferred() if deferred else list(ready)
        if not deferred:
            ready.clear()
        for record in await self.alpha.spool.read(refs):
            assert record is not None
            for to in record.recipients:
                self._end((record.content, to))
        for ref in refs:
            qmgr.delivered(ref)

    async def wait(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.alpha.qmgr.exits()

    async def cool(self) -> None:
        """Let the spool's memory forget everything."""
        for ref in list(self.alpha.spool._hot._records):
            self.alpha.spool._hot.drop(ref)

    async def sweep(self) -> None:
        """Half of a look at what waits too long, beside what else is going on."""
        self.nursery.start_soon(self.alpha.qmgr._sweep)
        await trio.lowlevel.checkpoint()

    # what must hold

    async def check(self) -> None:
        qmgr, spool = self.alpha.qmgr, self.alpha.spool
        await trio.sleep(QUIET_SECONDS)
        assert not qmgr._leading.has_work
        assert not spool._intake.is_busy
        found: Counter[One] = Counter()
        lists = {
            place: list(queue.ready)
            for place, queue in qmgr.queues.items()
            if queue.ready
        }
        for place, refs in lists.items():
            for record in await spool.read(refs):
                assert record is not None
                assert self.places(record) == {place}
                found.update((record.content, to) for to in record.recipients)
        inside = qmgr.pool._members
        for ref, place in zip(inside.refs, inside.places, strict=True):
            lists.setdefault(f"{place} (inside)", []).append(Ref(ref))
            [record] = await spool.read([Ref(ref)])
            assert record is not None
            assert self.places(record) == {place}
            found.update((record.content, to) for to in record.recipients)
        deferred = [ref for _, ref in qmgr._deferred]
        for record in await spool.read(deferred):
            assert record is not None
            found.update((record.content, to) for to in record.recipients)
        for _, record in self.hands.values():
            found.update((record.content, to) for to in record.recipients)
        everything = [*chain(*lists.values()), *deferred, *self.hands]
        assert len(everything) == len(set(everything)) == spool.waiting
        if self.was_killed:
            assert self.pending <= set(found) <= self.pending | self.settled
        else:
            assert found == Counter(self.pending)


Life = tuple[list[tuple[object, ...]], bool, dict[str, str]]
"""Steps, whether all was quiet before it was killed, and what node.toml says then."""


async def tell(folder: Path, told: list[Life]) -> None:
    (folder / "0").mkdir(exist_ok=True)
    story = Story(dict.fromkeys(MOVING, "bravo") | dict.fromkeys(OURS, "local:0"))
    for number, (life, calm, node_toml) in enumerate(told):
        here = folder / str(number)
        async with (
            half(here, "alpha", dict(story.routes)) as story.alpha,
            trio.open_nursery() as story.nursery,
        ):
            for step in life:
                await story.do(step)
            if calm:
                await story.check()
                await trio.sleep(CALM_SECONDS)
            await until(lambda: not story.alpha.spool._intake.is_busy)
            shutil.copytree(here, folder / str(number + 1))
            story.was_killed |= not calm
        story.hands.clear()
        story.routes |= node_toml
    async with half(
        folder / str(len(told)), "alpha", dict(story.routes)
    ) as story.alpha:
        await story.check()


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node that never had any mail: to make one takes longer than to copy it."""
    folder = tmp_path_factory.mktemp("blank")
    with pytest.MonkeyPatch.context() as patch:
        few_slots(patch)
        trio.run(tell, folder, [], clock=patient_clock(Patience(patch)))
    return folder / "0"


@settings(max_examples=40)
@given(lives)
def test_each_recipient_is_in_one_place(blank: Path, told: list[Life]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        few_slots(patch)
        shutil.copytree(blank, Path(folder, "0"))
        trio.run(tell, Path(folder), told, clock=patient_clock(Patience(patch)))
