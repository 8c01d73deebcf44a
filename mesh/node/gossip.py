# SPDX-License-Identifier: MIT
"""Gossip on the Trio side: one Talk a link, one Registry and one Pursuit for all.

    comes in             goes to
    head                 the pursuit; who is to be asked for what follows from it
    octets of another's  the pursuit; whole: the registry, in a thread
      directory
    descriptor           the registry, in a thread; a batch at a time
    wish for ours        its octets, in a thread; one copy for all links

    the registry changes (by this, a command, a watched file, our own renewal)
                         written down anew, in a thread (ledger.py); every link says so

A directory that was handed over under another head than its own is a lie, however well
it is signed, and counts as refused.

All verifying is done by one thread at a time, so that peers who send what is long to
verify take one core at most and never the Trio loop.  What they may have waiting is
bounded by gossip.py and pursuit.py.  Nothing here decides when a cell leaves.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

import trio

from mesh.core.adoption import Verdict
from mesh.core.cell import BODY_LEN
from mesh.core.clock import rate_of
from mesh.core.descriptor import Descriptor
from mesh.core.document import DOCUMENT_MAX_LEN, from_octets_untrusted
from mesh.core.frames import NO_HEAD, Head, WantDocument
from mesh.core.gossip import BoxCame, Copy, Gossip, Heard, PartCame, Wanted
from mesh.core.handshake import Session
from mesh.core.ledger import Ledger, node_of
from mesh.core.pursuit import Pursuit
from mesh.errors import CannotCreateError, DirectoryError, IoError
from mesh.node.calm import calm_for
from mesh.node.guard import Guard
from mesh.node.parking import Parking
from mesh.node.registry import Registry

T = TypeVar("T")

ANNOUNCE_SECONDS: Final = 1.0
"""From one word of what we have to the next: a batch of descriptors is one change."""
TICK_SECONDS: Final = 60.0
BATCH: Final = 64
"""Descriptors judged in one hop to the thread: some 20 ms of its work."""


class Talk:
    """One link's gossip, and the tasks' view of it."""

    def __init__(
        self, gossip: Gossip, session: Session, gossiping: "Gossiping"
    ) -> None:
        self.core = gossip
        self.identity = session.peer.identity
        self.name = session.peer.name
        self.moved(session)
        self.wake: Callable[[], None] = lambda: None
        """Tells the carrier that there is something to send."""
        self.wanted: WantDocument | None = None
        self.serving = False
        self._gossiping = gossiping

    def moved(self, session: Session) -> None:
        """Go by this connection from now on."""
        self.pace = rate_of(session.klass) * BODY_LEN

    def attend(self) -> None:
        """Draw the consequences of what came in."""
        self._gossiping.attend(self)

    def ended(self) -> None:
        """The link is gone."""
        self._gossiping.ended(self)


class Gossiping:
    """All gossip of this node; see the module's text."""

    def __init__(
        self,
        registry: Registry,
        identity: bytes,
        now: Callable[[], float] = lambda: time.time(),
    ) -> None:
        """`identity` is our own; blocking, as all that writes a ledger down."""
        self._registry, self._identity, self._now = registry, identity, now
        self.guard = Guard()
        self._talks: dict[bytes, list[Talk]] = {}
        self._asked: dict[bytes, Talk] = {}
        self._boxes: deque[tuple[Talk, bytes]] = deque()
        self._judging = Parking()
        self._stale = False
        self._announcing = Parking()
        self._one_at_a_time = trio.Lock()
        self._nursery: trio.Nursery | None = None
        self._copy: Copy | None = None
        self._ledger, self._shelf = self._written()
        self._pursuit = Pursuit(self._ledger.head)

    @property
    def head(self) -> Head:
        """The directory in force, as it is told in handshakes."""
        return self._ledger.head

    def begin(self, session: Session) -> Talk:
        """Begin the gossip of one link."""
        heard = Head(session.directory_version, session.directory_hash)
        gossip = Gossip(
            ledger=lambda: self._ledger,
            box_of=self._box_of,
            peer=node_of(session.peer.identity),
            document_max_len=DOCUMENT_MAX_LEN,
            heard=heard if heard.order else NO_HEAD,
        )
        talk = Talk(gossip, session, self)
        self._talks.setdefault(talk.identity, []).append(talk)
        return talk

    def ended(self, talk: Talk) -> None:
        """Take note that a link is gone."""
        others = self._talks[talk.identity]
        others.remove(talk)
        if self._asked.get(talk.identity) is talk:
            del self._asked[talk.identity]
        if not others:
            del self._talks[talk.identity]
            self._pursuit.left(talk.identity, trio.current_time())
        self._ask()

    def attend(self, talk: Talk) -> None:
        """Draw the consequences of what a link brought in."""
        head, came = None, False
        while (event := talk.core.next_event()) is not None:
            came = True
            match event:
                case Heard(said):
                    head = said  # the last word counts
                case BoxCame(_, octets):
                    self._boxes.append((talk, octets))
                    self._judging.wake()
                case PartCame(part):
                    whole = self._pursuit.part(talk.identity, part)
                    if whole is not None:
                        self._start(self._judge_document, talk, part.head, whole)
                case Wanted(want):
                    talk.wanted = want
                    if not talk.serving:
                        talk.serving = True
                        self._start(self._serve, talk)
        if head is not None:
            now = trio.current_time()
            self._pursuit.heard(talk.identity, head, talk.pace, now)
        if came:
            self._ask()

    def changed(self) -> None:
        """The registry has changed: tell every link.  On the Trio thread."""
        self._stale = True
        self._announcing.wake()

    async def run(self) -> None:
        """Serve all links, for ever."""
        token = trio.lowlevel.current_trio_token()

        def from_any_thread() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self.changed)

        self._registry.on_change.append(from_any_thread)
        self._stale = True  # it may have changed since we were made
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._judge_boxes)
                nursery.start_soon(self._announce)
                try:
                    await self._tick()
                finally:
                    self._nursery = None  # before it is closed to what links bring
        finally:
            self._registry.on_change.remove(from_any_thread)

    def _start(self, job: Callable[..., Awaitable[None]], *args: object) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(job, *args)

    async def _in_thread(self, job: Callable[..., T], *args: object) -> T:
        async with self._one_at_a_time:
            return await trio.to_thread.run_sync(job, *args)

    # who is asked for what

    def _ask(self) -> None:
        """Let each link ask for what the pursuit wishes of its peer, and no more."""
        wishes = self._pursuit.wishes
        for identity, talk in list(self._asked.items()):
            if identity not in wishes or talk is not self._talks[identity][-1]:
                talk.core.want_nothing()
                talk.wake()
                del self._asked[identity]
        for identity, wish in wishes.items():
            if talks := self._talks.get(identity):
                talk = self._asked[identity] = talks[-1]  # of two links the later
                talk.core.want(*wish)
                if talk.core.pending:
                    talk.wake()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_SECONDS)
            self._pursuit.tick(trio.current_time())
            self._ask()

    # what came

    async def _judge_boxes(self) -> None:
        while True:
            if not self._boxes:
                await self._judging.park()
                continue
            batch = [self._boxes.popleft() for _ in range(min(BATCH, len(self._boxes)))]
            with self.guard():
                await self._in_thread(self._consider_boxes, [box for _, box in batch])
            for talk, _ in batch:
                talk.core.judged()
                if talk.core.pending:
                    talk.wake()

    def _consider_boxes(self, boxes: list[bytes]) -> None:
        with suppress(CannotCreateError, IoError):  # they come again from another
            self._registry.consider_descriptors(boxes, self._now())

    async def _judge_document(self, talk: Talk, head: Head, octets: bytearray) -> None:
        came: Verdict | None = Verdict.REFUSED  # so is what breaks us
        with self.guard():
            came = await self._in_thread(
                self._consider_document, talk.name, head, octets
            )
        now = trio.current_time()
        if came is None:
            self._pursuit.put_off(talk.identity, now)
        elif came is Verdict.UNTIMELY:
            self._pursuit.untimely(talk.identity, head, now)
        else:
            good = came is not Verdict.REFUSED
            self._pursuit.judged(talk.identity, head, now, good=good)
        self._ask()

    def _consider_document(
        self, name: str, head: Head, octets: bytearray
    ) -> Verdict | None:
        """What became of it; refused is also what is not what it was said to be.

        None: our disk does not let us know.
        """
        try:
            with calm_for(len(octets)):
                document = from_octets_untrusted(bytes(octets))
                if Head(*document.head) != head:
                    return Verdict.REFUSED
                where, now = f"directory from {name}", self._now()
                outcome = self._registry.consider_document(document, where, now)
        except DirectoryError:
            return Verdict.REFUSED
        except (CannotCreateError, IoError):
            return None
        return outcome.verdict

    # what we have

    async def _announce(self) -> None:
        while True:
            if not self._stale:
                await self._announcing.park()
                continue
            self._stale = False
            before = self._ledger
            self._ledger, self._shelf = await self._in_thread(self._written)
            if self._ledger.told != before.told:
                self._tell(before.head)
                await trio.sleep(ANNOUNCE_SECONDS)

    def _tell(self, before: Head) -> None:
        """Say on every link what we have now."""
        self._copy = None
        if self._ledger.head != before:
            self._pursuit.adopted(self._ledger.head, trio.current_time())
        for talks in self._talks.values():
            for talk in talks:
                talk.core.changed()
                talk.wake()
        self._ask()

    def _written(self) -> tuple[Ledger, dict[bytes, Descriptor]]:
        """Write down what the registry has."""
        registry, us = self._registry, node_of(self._identity)
        while True:
            head = Head(*registry.head)
            shared = {node_of(who): each for who, each in registry.members.items()}
            private = {node_of(who): each for who, each in registry.private.items()}
            own = registry.own
            if head == registry.head:  # all of one time
                break
        ledger = Ledger.of(
            us,
            own.serial if own else 0,
            head,
            {node: each.serial for node, each in shared.items()},
            {node: each.serial for node, each in private.items()},
        )
        return ledger, {**private, **shared, **({us: own} if own else {})}

    def _box_of(self, node: bytes) -> bytes | None:
        found = self._shelf.get(node)
        return None if found is None else found.box

    async def _serve(self, talk: Talk) -> None:
        """Hand our directory over, as it is asked for last."""
        while (want := talk.wanted) is not None:
            talk.wanted = None
            with self.guard():
                if self._copy is None:
                    self._copy = await self._in_thread(self._copied)
                if self._copy.head == want.head:
                    talk.core.hand_over(want, self._copy)
                    talk.wake()
        talk.serving = False

    def _copied(self) -> Copy:
        while True:
            head, octets = Head(*self._registry.head), self._registry.octets()
            if head == self._registry.head:
                return Copy.of(head, octets)
