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

    it is      fresh for `window` after it was sent, not after it came: who holds a link
               back for an hour gains nothing when he lets it go
    next beat  after `interval`, through the next peer of a round whose order is drawn;
               a peer whose link is down has its turn, too, and that beat is missing
    a tick     holds while no fresh one is there, HOLD_SECONDS at most; then nobody is
               held until a fresh one comes (`release`), or all go on waiting (`keep`)

    interval   the greater of tick / BEATS_A_TICK and what gives each link one beat in
               CELLS_A_BEAT of its cells
    window     LOST_MAX intervals and the time that a beat may take: ON_THE_WAY_CELLS of
               the slowest link, ON_THE_WAY_SECONDS for the disks

Invariants:
- Nobody's beat but ours counts, and each counts once.  Whatever has our mac is no mail,
  however old it is.
- A peer has turns while its link is up and for HOLD_SECONDS after its last beat: who cuts
  links and leaves his own one alone is heard one time in so many.
- The alarm begins with the first beat that comes back: a node without links has nothing
  to lose by an attack on them, and nothing of it says when mail leaves.

What it does not do: who has a share of the peers greater than about 1 / LOST_MAX may
return beats and nothing else.  Who can cut links can make mail wait for HOLD_SECONDS, and
again after each beat that he lets in.
"""

from collections.abc import Mapping
from typing import Final

from mesh.core.chance import uniform
from mesh.core.crypto import Entropy, Key, keyed_hash, same

BEATS_A_TICK: Final = 4
"""Beats for one tick, links allowing: LOST_MAX of them are little more than a tick."""
CELLS_A_BEAT: Final = 32
"""Of a link's cells one beat takes four: its own, the reply, and the same of the peer's."""
LOST_MAX: Final = 5
"""Beats that may be lost in a row: at 5 % loss 0.05**5, one false hold in 3.2 million
beats; a month has one million at one in 2.5 s."""
ON_THE_WAY_CELLS: Final = 12
"""Instants of a clock until a beat is back: two of ours, two of the peer's, each once
more as their gaps vary, and some mail in front of it."""
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
AFTER_HOLD: Final = ("release", "keep")
"""What may follow HOLD_SECONDS: all leave as without an alarm, or nobody does."""
DOWN: Final = float("inf")
"""The period of a link that is not up."""


class Alarm:
    """One node's.  Time is the caller's, in seconds."""

    def __init__(
        self, key: Key, entropy: Entropy, tick: float, *, release: bool = True
    ) -> None:
        self._key = key
        self._entropy = entropy
        self._tick = tick
        self._release = release
        self._sent: dict[bytes, tuple[float, str]] = {}
        self._heard: dict[str, float] = {}
        self._round: list[str] = []
        self._fresh_until = 0.0
        self._holding_since: float | None = None
        self._in_vain = 0
        self.interval = tick / BEATS_A_TICK
        """Seconds to the next beat."""
        self.window = 0.0
        """Seconds for which a beat is fresh."""

    @property
    def is_armed(self) -> bool:
        """Whether a beat has ever come back."""
        return self._fresh_until > 0

    def beat(self, now: float, links: Mapping[str, float]) -> tuple[str, bytes] | None:
        """Make a beat: through which peer, and its octets; None when nobody is there.

        `links` has the period of each peer's link in seconds, DOWN where none is up.
        A beat for a link that is down is lost.
        """
        expected = [name for name in links if self._is_expected(name, links, now)]
        self._pace([links[name] for name in expected if links[name] != DOWN])
        self._heard = {n: at for n, at in self._heard.items() if n in links}
        if not expected:
            return None
        self._round = [name for name in self._round if name in expected]
        if not self._round:
            self._round = self._shuffled(expected)
        self._forget_old(now)
        nonce = self._entropy.octets(_CODE_LEN)
        name = self._round.pop()
        self._in_vain += links[name] != DOWN
        self._sent[nonce] = now, name
        code = nonce.hex() + self._mac(nonce).hex()
        return name, _HEADER + code.encode() + _END

    def _is_expected(self, name: str, links: Mapping[str, float], now: float) -> bool:
        heard = self._heard.get(name)
        return links[name] != DOWN or (
            heard is not None and now - heard <= HOLD_SECONDS
        )

    def _pace(self, periods: list[float]) -> None:
        """Reckon how often, and for how long a beat is fresh."""
        if not periods:
            return
        slowest = max(periods)
        self.interval = max(
            self._tick / BEATS_A_TICK, CELLS_A_BEAT * slowest / len(periods)
        )
        on_the_way = ON_THE_WAY_SECONDS + ON_THE_WAY_CELLS * slowest
        self.window = LOST_MAX * self.interval + on_the_way

    def _shuffled(self, names: list[str]) -> list[str]:
        order = sorted(names)
        for at in range(len(order) - 1, 0, -1):
            other = int(uniform(self._entropy, 0, at + 1))
            order[at], order[other] = order[other], order[at]
        return order

    def _forget_old(self, now: float) -> None:
        while self._sent:
            nonce, (sent, _) = next(iter(self._sent.items()))
            if now - sent <= self.window:
                break
            del self._sent[nonce]

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
        sent, name = self._sent.pop(nonce, (None, ""))
        if sent is not None and now - sent <= self.window:
            self._heard[name] = now
            self._fresh_until = max(self._fresh_until, sent + self.window)
            if now <= self._fresh_until:
                self._holding_since = None
        return True

    def holds(self, now: float) -> bool:
        """Say whether nobody may leave on a tick now."""
        if not self.is_armed or now <= self._fresh_until:
            return False
        if self._holding_since is None:
            self._holding_since = now
        return not (self._release and now - self._holding_since >= HOLD_SECONDS)

    def notices(self, now: float) -> list[str]:
        """Say what the operator should know of it."""
        if not self.is_armed and self._in_vain > IN_VAIN_MAX:
            return ["no heartbeat has come back yet: do the peers list our address?"]
        if not self.is_armed or now <= self._fresh_until:
            return []
        seconds = now - self._fresh_until
        held = (
            "mail for port 25 waits" if self.holds(now) else "nobody is held any more"
        )
        return [f"no heartbeat came back for {seconds:.0f} s: {held}"]
