# SPDX-License-Identifier: MIT
"""Whether others' mail still comes in: an alarm against the n-1 attack on the pool.

Who can keep all mail but one message from a pool learns where that one goes.  So the
node sends heartbeats round through its peers, as mail that comes back as mail (Danezis
and Sassaman, "Heartbeat traffic to counter (n-1) attacks", WPES 2003).  Inside a link
nobody can tell them from mail: who stops the one stops the other.

    a beat     a message to one of our own addresses, handed to a peer whose rule it is
               to give its sender's own mail back

        Subject: mesh heartbeat CRLF CRLF  nonce 32 hex  mac 32 hex  CRLF

               mac = keyed_hash(key, "mesh/1 heartbeat" nonce)[:16]

    it is      fresh for a window after it was sent, not after it came: who holds a link
               back for an hour gains nothing when he lets it go
    a peer     has a beat each interval while its link is up; with its link down, and no
               fresh beat, it still counts, until HOLD_SECONDS after its last one
    a tick     holds while fewer than half of the peers that count have a fresh beat,
               HOLD_SECONDS at most; then nobody is held until half have (`release`), or
               all go on waiting, and who counts goes on counting (`keep`)

    interval   the greater of tick / BEATS_A_TICK and CELLS_A_BEAT periods of the link
    window     LOST_MAX intervals and the time that a beat may take: ON_THE_WAY_CELLS
               periods of the link, ON_THE_WAY_SECONDS for the disks; fixed at its sending
    late       after a cut of all links the ticks go on for the median link's window at
               most; `notices` says so where that is more than TICKS_MAX ticks

Invariants:
- Nobody's beat but ours counts, and each counts once.  Whatever has our mac is no mail,
  however old it is.
- The alarm begins with the first beat that comes back.  Who gave one back before a restart
  counts after it, as one whose link is down does, as if his last one came at the start:
  no tick goes on until half of them are heard anew, and HOLD_SECONDS begin anew.
- A peer that no longer counts, counts again with a beat, not with its link.

What it does not do.  Who leaves half of the links alone is not heard, nor is who, as half
of the peers, gives beats back and keeps mail.  Slow links miss late: with ticks of 10 s and
one cell a second 20 ticks after the cut, when the pool has emptied, so that it helps nobody.
Who can cut links can make mail wait for HOLD_SECONDS, and again after each beat that he
lets in; a link that is full of mail brings beats back late, and so can whoever fills it.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from mesh.core.chance import uniform
from mesh.core.crypto import Entropy, Key, keyed_hash, same

BEATS_A_TICK: Final = 4
"""Beats for one tick, links allowing: LOST_MAX of them are little more than a tick."""
CELLS_A_BEAT: Final = 32
"""Of a link's cells one beat takes four: its own, the reply, and the same of the peer's."""
LOST_MAX: Final = 5
"""Beats of a peer that may be lost in a row: at 5 % loss 0.05**5, one in 3.2 million; a
month has one million at one in 2.5 s."""
ON_THE_WAY_CELLS: Final = 32
"""Instants of a clock until a beat is back: two of ours and two of the peer's, among some
other mail that shares the link."""
ON_THE_WAY_SECONDS: Final = 2.0
"""Two commits on busy disks."""
HOLD_SECONDS: Final = 6 * 3600.0
"""For which a tick may hold: mail waits for hours elsewhere, too, and nobody notices."""
IN_VAIN_MAX: Final = 2 * LOST_MAX
"""Beats through links that are up, none of which came back, before it is said so."""
_HEADER: Final = b"Subject: mesh heartbeat\r\n\r\n"
_END: Final = b"\r\n"
_CODE_LEN: Final = 16
BEAT_LEN: Final = len(_HEADER) + 4 * _CODE_LEN + len(_END)
_LABEL: Final = b"mesh/1 heartbeat"
TICKS_MAX: Final = 3
"""Ticks from a cut to the hold that leave a target in company.  With ten messages a tick
and half of a `timed` pool leaving on each, 3 ticks leave it alone in 2 of 20,000 attacks
(`benchmarks.alarm`), below the promised 1e-3; 4 do in 1 of 20."""
AFTER_HOLD: Final = ("release", "keep")
"""What may follow HOLD_SECONDS: all leave as without an alarm, or nobody does."""
DOWN: Final = float("inf")
"""The period of a link that is not up."""
SHORT: Final = "[pool] tick_seconds: the n-1 alarm comes up to"
IN_VAIN: Final = "no heartbeat has come back yet: do the peers list our address?"
MISSING: Final = "no heartbeats from more than half of the peers"


def _median(periods: Collection[float]) -> float:
    """The period of the link by whose silence fewer than half are heard."""
    return sorted(periods)[len(periods) // 2]


def long_enough(periods: Collection[float]) -> int:
    """Whole seconds of a tick of which TICKS_MAX are a window of such links."""
    period = _median(periods)
    on_the_way = ON_THE_WAY_SECONDS + ON_THE_WAY_CELLS * period
    # The interval is the greater of two, one of which grows with the tick.
    by_cells = (LOST_MAX * CELLS_A_BEAT * period + on_the_way) / TICKS_MAX
    by_ticks = on_the_way / (TICKS_MAX - LOST_MAX / BEATS_A_TICK)
    return math.ceil(max(by_cells, by_ticks))


@dataclass(slots=True)
class _Peer:
    """What is known of one peer's beats."""

    due: float = -math.inf
    heard: float = -math.inf
    fresh_until: float = -math.inf


class Alarm:
    """One node's.  Time is the caller's, in seconds."""

    def __init__(
        self,
        key: Key,
        entropy: Entropy,
        tick: float,
        *,
        release: bool = True,
        before: Collection[str] = (),
    ) -> None:
        """`before`: what `heard` gave before a restart."""
        self._key = key
        self._entropy = entropy
        self._tick = tick
        self._release = release
        self._sent: dict[bytes, tuple[float, str]] = {}
        self._before = before
        self._peers: dict[str, _Peer] = {}
        self._up: dict[str, float] = {}
        self._holding_since: float | None = None
        self._in_vain = 0
        self._swept = -math.inf
        self.is_armed = False
        """A beat has come back since the start."""

    def interval(self, period: float) -> float:
        """Seconds between two beats of a link of this period."""
        return max(self._tick / BEATS_A_TICK, CELLS_A_BEAT * period)

    def window(self, period: float) -> float:
        """Seconds for which a beat by such a link is fresh."""
        on_the_way = ON_THE_WAY_SECONDS + ON_THE_WAY_CELLS * period
        return LOST_MAX * self.interval(period) + on_the_way

    def late(self, periods: Collection[float]) -> float:
        """Seconds from a cut of links of these periods until ticks hold, at most."""
        return self.window(_median(periods))

    def ticks_late(self, periods: Collection[float]) -> int:
        """Ticks that there may be until then."""
        return math.ceil(self.late(periods) / self._tick)

    def beats(self, now: float, links: Mapping[str, float]) -> list[tuple[str, bytes]]:
        """Make the beats that are due: through which peer, and its octets.

        `links` has the period of each listed peer's link in seconds, DOWN where none
        is up.
        """
        self._recall(now)
        self._peers = {name: self._peers.get(name, _Peer()) for name in links}
        self._up = {name: each for name, each in links.items() if each != DOWN}
        for name, peer in self._peers.items():
            if name not in self._up and self._is_forgotten(peer, now):
                peer.heard = -math.inf
        if now >= self._swept + self._tick:
            self._swept = now
            self._sent = {n: sent for n, sent in self._sent.items() if sent[0] >= now}
        return [
            (name, self._beat(name, now, links[name]))
            for name, peer in self._peers.items()
            if name in self._up and peer.due <= now
        ]

    def _beat(self, name: str, now: float, period: float) -> bytes:
        peer = self._peers[name]
        # The first one anywhere: links that come up together are to part.
        first = peer.due == -math.inf
        share = uniform(self._entropy, 0.0, 1.0) if first else 1.0
        peer.due = now + share * self.interval(period)
        nonce = self._entropy.octets(_CODE_LEN)
        self._sent[nonce] = now + self.window(period), name
        self._in_vain += 1
        code = nonce.hex() + self._mac(nonce).hex()
        return _HEADER + code.encode() + _END

    def next_due(self, now: float) -> float:
        """Say when `beats` is to be asked again."""
        dues = [self._peers[name].due for name in self._up]
        return max(now, min(dues, default=now + self._tick / BEATS_A_TICK))

    def _mac(self, nonce: bytes) -> bytes:
        return keyed_hash(self._key, _LABEL + nonce, _CODE_LEN)

    def came_untrusted(self, content: bytes, now: float) -> bool:
        """Take a message that a peer brought; False: it is no beat of ours, but mail."""
        if len(content) != BEAT_LEN or not content.startswith(_HEADER):
            return False
        try:
            code = bytes.fromhex(content[len(_HEADER) :].decode("ascii"))
        except ValueError:
            return False
        nonce, mac = code[:_CODE_LEN], code[_CODE_LEN:]
        if not same(mac, self._mac(nonce)):
            return False
        fresh_until, name = self._sent.pop(nonce, (-math.inf, ""))
        peer = self._peers.get(name)
        if peer is not None and now <= fresh_until:
            self.is_armed = True
            peer.heard = now
            peer.fresh_until = max(peer.fresh_until, fresh_until)
        return True

    def _recall(self, now: float) -> None:
        """The first time that anybody asks: let those of before the restart count."""
        self._peers.update({name: _Peer(heard=now) for name in self._before})
        self._before = ()

    def heard(self) -> list[str]:
        """Name the peers that count, to be remembered over a restart."""
        return sorted(
            name for name, peer in self._peers.items() if peer.heard > -math.inf
        )

    def _misses(self, now: float) -> bool:
        """Whether fewer than half of those that count have a fresh beat."""
        self._recall(now)
        counts = [
            peer
            for name, peer in self._peers.items()
            if peer.heard > -math.inf
            and (name in self._up or not self._is_forgotten(peer, now))
        ]
        fresh = sum(now <= peer.fresh_until for peer in counts)
        return 2 * fresh < len(counts)

    def _is_forgotten(self, peer: _Peer, now: float) -> bool:
        return self._release and now - peer.heard > HOLD_SECONDS

    def holds(self, now: float) -> bool:
        """Say whether nobody may leave on a tick now."""
        if not self._misses(now):
            self._holding_since = None
            return False
        if self._holding_since is None:
            self._holding_since = now
        return not (self._release and now - self._holding_since >= HOLD_SECONDS)

    def notices(self, now: float) -> list[str]:
        """Say what the operator should know of it."""
        return [*self._short(), *self._missing(now)]

    def _short(self) -> list[str]:
        """Say so if ticks are short for the links; no beat counts here, nor does time."""
        periods = self._up.values()
        if not periods or (late := self.ticks_late(periods)) <= TICKS_MAX:
            return []
        return [
            f"{SHORT} {late} ticks late: "
            f"have {long_enough(periods)} at least for these links"
        ]

    def _missing(self, now: float) -> list[str]:
        if not self.is_armed and self._in_vain > IN_VAIN_MAX:
            return [IN_VAIN]
        if not self._misses(now):
            return []
        held = (
            "mail for port 25 waits" if self.holds(now) else "nobody is held any more"
        )
        return [f"{MISSING}: {held}"]
