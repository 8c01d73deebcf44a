# SPDX-License-Identifier: MIT
"""Which directory is fetched from whom: at most three at once, each from one peer.

A head is wanted when ours is some directory, for nobody's first one comes by a link,
and it is a later one, or another of the same order as ours: that is evidence of signers
who said two things.  A head that was judged, by whomever it came, is wanted
no more: what it is worth is known.

    a fetch    fetching -> whole -> judged      its octets are given out once
               fetching -> given up             its octets are dropped

One head is fetched from one peer at a time, and goes on at its octet when that peer
comes back on another link.  Given up is a fetch

    P1  whose head is not wanted any more, or that its peer no longer says it has
    P2  that brought less than 1/32 of what the link's cells could carry in 10 minutes
        (an honest peer's is a half, less what mail's replies take)
    P3  whose peer has no link for a minute, when another has that head
    P4  with the worst claim, when all places are taken and another has a better one: a
        peer that has failed less often, or else a head that more peers have

A failure is a fetch given up by P2, or octets that were refused.  That head is not
asked for again from that peer until ours is another, and the peer is asked for
nothing for 2 minutes, doubling with each failure, at most a day.  So liars who drip or
send garbage keep three places from an honest majority for one fetch, not for ever, and
cost a verification in minutes, then hours.

A head whose time has passed, or has not come, is nobody's lie, and it may be our clock
that is wrong: it is wanted again after an hour, by anybody's hand.

Nothing here reads a clock, believes an octet, or keeps more than FETCHES_MAX documents.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mesh.core.frames import COPY_LEN, NO_HEAD, Head, Part

FETCHES_MAX: Final = 3
"""Documents in memory: two liars do not keep the third from coming."""
PROGRESS_SECONDS: Final = 600.0
"""For P2: long beside a link that is lost and dialled again."""
SLOWEST_SHARE: Final = 32
PROGRESS_MAX_LEN: Final = 1_048_576
"""Octets that are progress at any rate: a fast class does not mean a fast line."""
COPIES_MAX: Final = 8
"""Times that a fetch may begin anew because the peer's copy is another one now: on
each of its links at the worst.  More often begun would look like progress."""
RETURN_SECONDS: Final = 60.0
FAILED_SECONDS: Final = 60.0
FAILED_DOUBLINGS_MAX: Final = 10
"""2**10 minutes are 17 hours; and that is how long an honest peer may be passed over."""
REFUSED_MAX: Final = 8
UNTIMELY_SECONDS: Final = 3600.0
"""A clock that was wrong at the start is right by then; and it costs a verification."""
SETTLED_MAX: Final = 64
"""Heads remembered, the last ones: whoever has more lies takes longer than that."""
_NO_COPY: Final = bytes(COPY_LEN)


class Wish(NamedTuple):
    """What to ask one peer for: the octets of a head from one on."""

    head: Head
    copy: bytes
    offset: int


@dataclass
class _Peer:
    """What a peer says it has, and what it was worth so far."""

    head: Head = NO_HEAD
    linked: bool = False
    left: float = 0.0
    pace: float = 0.0
    failures: int = 0
    not_before: float = 0.0
    refused: deque[Head] = field(default_factory=lambda: deque(maxlen=REFUSED_MAX))


@dataclass
class _Fetch:
    """One document on its way; `whole`: its octets are being judged."""

    head: Head
    marked_at: float
    octets: bytearray = field(default_factory=bytearray)
    copy: bytes = _NO_COPY
    copies: int = 0
    marked: int = 0
    whole: bool = False


class Pursuit:
    """All fetches of this node; see the module's text.  Peers are known by identity."""

    def __init__(self, ours: Head) -> None:
        self._ours = ours
        self._peers: dict[bytes, _Peer] = {}
        self._fetches: dict[bytes, _Fetch] = {}
        self._settled: deque[Head] = deque(maxlen=SETTLED_MAX)
        self._untimely: deque[tuple[Head, float]] = deque(maxlen=SETTLED_MAX)

    # what happens

    def adopted(self, ours: Head, now: float) -> None:
        """Take note of the directory that is now in force here."""
        self._ours = ours
        self._settled.clear()
        for peer in self._peers.values():
            peer.refused.clear()
        self._arrange(now)

    def heard(self, peer: bytes, head: Head, pace: float, now: float) -> None:
        """Take what a peer says it has; its link carries `pace` octets a second."""
        known = self._peers.setdefault(peer, _Peer())
        before = known.linked, known.head
        known.linked, known.head, known.pace = True, head, pace
        if before != (True, head):  # said again, it costs nothing
            self._arrange(now)

    def left(self, peer: bytes, now: float) -> None:
        """Take note that a peer has no link any more."""
        if known := self._peers.get(peer):
            known.linked, known.left = False, now
        self._arrange(now)

    def tick(self, now: float) -> None:
        """Let time pass: to be called each minute or so."""
        for peer, fetch in list(self._fetches.items()):
            if fetch.whole or now - fetch.marked_at < PROGRESS_SECONDS:
                continue
            least = self._peers[peer].pace * PROGRESS_SECONDS / SLOWEST_SHARE
            if len(fetch.octets) - fetch.marked < min(least, PROGRESS_MAX_LEN):
                self._fail(peer, fetch.head, now)  # P2
            fetch.marked_at, fetch.marked = now, len(fetch.octets)
        self._arrange(now)

    def part(self, peer: bytes, part: Part) -> bytearray | None:
        """Take octets; the whole document when these were the last.

        What was not asked for changes nothing; what overlaps counts once.
        """
        fetch = self._fetches.get(peer)
        if fetch is None or fetch.whole or fetch.head != part.head:
            return None
        if part.copy != fetch.copy:
            if part.offset or fetch.copies == COPIES_MAX:
                return None
            fetch.octets, fetch.copy, fetch.marked = bytearray(), part.copy, 0
            fetch.copies += 1
        have = len(fetch.octets)
        if part.offset <= have:
            fetch.octets += part.octets[have - part.offset :]
        if len(fetch.octets) < part.total:
            return None
        fetch.whole = True
        octets, fetch.octets = fetch.octets, bytearray()
        return octets

    def judged(self, peer: bytes, head: Head, now: float, *, good: bool) -> None:
        """Say what a whole document was worth: signed as it must be, or not."""
        if good:
            del self._fetches[peer]
            self._peers[peer].failures = 0
            self._settled.append(head)
        else:
            self._fail(peer, head, now)
        self._arrange(now)

    def untimely(self, peer: bytes, head: Head, now: float) -> None:
        """Say that a whole document is good, and not now."""
        del self._fetches[peer]
        self._untimely.append((head, now + UNTIMELY_SECONDS))
        self._arrange(now)

    def put_off(self, peer: bytes, now: float) -> None:
        """Say that a whole document could not be judged: our own disk's fault."""
        del self._fetches[peer]
        self._peers[peer].not_before = now + FAILED_SECONDS
        self._arrange(now)

    # what follows

    @property
    def wishes(self) -> dict[bytes, Wish]:
        """What to ask which peers for now."""
        return {
            peer: Wish(fetch.head, fetch.copy, len(fetch.octets))
            for peer, fetch in self._fetches.items()
            if not fetch.whole
        }

    def _fail(self, peer: bytes, head: Head, now: float) -> None:
        del self._fetches[peer]
        known = self._peers[peer]
        known.failures += 1
        minutes = 1 << min(known.failures, FAILED_DOUBLINGS_MAX)
        known.not_before = now + minutes * FAILED_SECONDS
        known.refused.append(head)

    def _wanted(self, head: Head, now: float) -> bool:
        ours = self._ours
        if not ours.order or head in self._settled or head == ours:
            return False
        if any(head == known and now < until for known, until in self._untimely):
            return False
        return head.order >= ours.order

    def _arrange(self, now: float) -> None:
        """Give up what is to be given up, and fill the places."""
        for peer, fetch in list(self._fetches.items()):
            known = self._peers[peer]
            if fetch.whole:
                continue
            if not self._wanted(fetch.head, now) or (
                known.linked and known.head != fetch.head
            ):
                del self._fetches[peer]  # P1
        haves = Counter(known.head for known in self._peers.values() if known.linked)
        for peer in self._candidates(haves, now):
            self._begin(peer, haves, now)

    def _candidates(self, haves: Counter[Head], now: float) -> list[bytes]:
        """Peers that may be asked for what they have, the best claim first."""
        may = [
            peer
            for peer, known in self._peers.items()
            if known.linked
            and peer not in self._fetches
            and now >= known.not_before
            and self._wanted(known.head, now)
            and known.head not in known.refused
        ]
        return sorted(may, key=lambda peer: self._claim(peer, haves))

    def _claim(self, peer: bytes, haves: Counter[Head]) -> tuple[int, int]:
        """The smaller the better; of equal ones the first to have come."""
        known = self._peers[peer]
        return known.failures, -haves[known.head]

    def _begin(self, peer: bytes, haves: Counter[Head], now: float) -> None:
        head = self._peers[peer].head
        for other, fetch in list(self._fetches.items()):
            if fetch.head == head:
                known = self._peers[other]
                if fetch.whole or known.linked or now < known.left + RETURN_SECONDS:
                    return
                del self._fetches[other]  # P3
        if len(self._fetches) >= FETCHES_MAX:
            held = [who for who, fetch in self._fetches.items() if not fetch.whole]
            worst = max(held, key=lambda who: self._claim(who, haves), default=None)
            if worst is None or self._claim(worst, haves) <= self._claim(peer, haves):
                return
            del self._fetches[worst]  # P4
        self._fetches[peer] = _Fetch(head, now)
