# SPDX-License-Identifier: MIT
"""Who dials whom and when, and which of two links stays: rules without a clock.

    a node starts        it dials every peer that has an address, at once
    a link is lost       the smaller ID dials after 0.2 to 1 s; the other one when
                         there has been no link for 2 to 4 s
    a dial has failed    again after a drawn 0.2 to 1 times 1, 2, 4, 8, 16, then
                         30 s; a link that came up sets this back to 1

A link is *up* at an end when that end has opened one cell of the other side.  Of
several that are up at one end one stays, and that end closes the others:

    1. one that has been silent for 2 T + 2 s goes when any newer one is up
    2. of the rest, the one that the smaller ID dialled
    3. of these, the one with the greatest counter (that of its message 1)

Invariant: rules 2 and 3 are one order, the same at both ends, and no two links of a
pair are equal in it (a counter is used once).  An end closes a link only for a greater
one, so the greatest that ever came up anywhere is closed by nobody: both ends keep it
without a word about it.  Rule 1 acts where a link is dead or stalled, and the ends may
for a moment differ about that; then the greater counter, or the next dial, decides.
IDs are compared as octets.  No dial is ever caused by mail: no mail is known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mesh.core.chance import uniform
from mesh.core.crypto import Entropy

RETRY_SECONDS: Final = (0.2, 1.0)
"""The first wait: short enough to be up 4 s after the other is ready, drawn so that
two nodes fall out of step and a hundred peers do not return as one."""
YIELD_SECONDS: Final = (2.0, 4.0)
"""What the greater ID leaves the smaller: a handshake takes at most 2.2 s of delays."""
BACKOFF_MAX: Final = 30.0
"""Factor and, as a draw is below 1, seconds: a peer that is back waits no longer."""
SILENT_PERIODS: Final = 2.0
SILENT_SECONDS: Final = 2.0
"""Two mean gaps of the clock and a network's worst second or two."""


def we_are_smaller(our_identity: bytes, their_identity: bytes) -> bool:
    """Whether ours is the ID that dials."""
    return our_identity < their_identity


class Redial:
    """When to dial one peer again; the caller dials at once when it starts."""

    __slots__ = ("_factor", "_smaller")

    def __init__(self, *, smaller: bool) -> None:
        """Begin as after a link: `smaller` says that our ID is the smaller."""
        self._smaller = smaller
        self._factor = 1.0

    def link_up(self) -> None:
        """Note that a link came up, whoever dialled it."""
        self._factor = 1.0

    def after_loss(self, entropy: Entropy) -> float:
        """Seconds to wait, with no link, before the first dial."""
        bounds = RETRY_SECONDS if self._smaller else YIELD_SECONDS
        return uniform(entropy, *bounds)

    def after_failure(self, entropy: Entropy) -> float:
        """Seconds to wait after a dial that brought no link; longer each time."""
        low, high = RETRY_SECONDS
        delay = uniform(entropy, low * self._factor, high * self._factor)
        self._factor = min(2.0 * self._factor, BACKOFF_MAX)
        return delay


@dataclass(frozen=True)
class Candidate:
    """A link that is up: who dialled it, its counter, when it last was heard (s)."""

    dialled_by_smaller: bool
    counter: int
    last_heard: float


def winner(candidates: Sequence[Candidate], period: float, now: float) -> int:
    """Index of the link that stays; the candidates in the order in which they came up.

    `period` is T, in seconds: the mean gap between two cells.  ValueError when there
    is no candidate.
    """
    silent_since = now - (SILENT_PERIODS * period + SILENT_SECONDS)
    newest = len(candidates) - 1
    living = [
        index
        for index, candidate in enumerate(candidates)
        if index == newest or candidate.last_heard > silent_since
    ]
    return max(
        living,
        key=lambda at: (candidates[at].dialled_by_smaller, candidates[at].counter),
    )
