# SPDX-License-Identifier: MIT
"""Two links to one peer: which one stays, by election.py's rules, alike at both ends."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from mesh.core.clock import period_of
from mesh.core.election import Candidate, winner
from mesh.core.handshake import Session


class Rival(Protocol):
    """A link that is up."""

    session: Session
    heard: float
    came_up: int


R = TypeVar("R", bound=Rival)


def best_of(rivals: Sequence[R], *, smaller: bool, klass: int, now: float) -> R:
    """Give the link that stays; `smaller`: ours is the smaller ID of the two."""
    in_turn = sorted(rivals, key=lambda rival: rival.came_up)
    candidates = [
        Candidate(
            dialled_by_smaller=rival.session.we_initiated == smaller,
            counter=rival.session.counter,
            last_heard=rival.heard,
        )
        for rival in in_turn
    ]
    return in_turn[winner(candidates, period_of(klass), now)]
