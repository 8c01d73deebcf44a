# SPDX-License-Identifier: MIT
"""Captures in a folder, piece by piece, so that a run of hours can be ended and go on.

    FOLDER/KEY-NUMBER/         a piece: of which world, and which of its pieces
        wire-1.npz, ...        one trace a wire, in the order of the way (trace.py)
        events.jsonl           when messages came and went

A piece that is being written ends in `.part`; the name without it comes in one step, so a
piece is there whole or not at all.  What else lies in the folder is let be.

`joined` makes one capture of the pieces of one world: each piece begins APART_SECONDS
after the end of the one before, whatever the hour at which it was made, since pieces may
have been made side by side; idents get the piece's number, so that none is met twice.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Final

from mesh.audit import trace
from mesh.audit.trace import Event, Trace, load, load_events, save_events

APART_SECONDS: Final = 60.0
"""More than any window lasts that is looked at across its edges."""
_NAME: Final = re.compile(r"(.+)-(\d{4,})")


@dataclass(frozen=True)
class Taken:
    """One capture: a trace a wire, and the truth."""

    wires: tuple[Trace, ...]
    events: tuple[Event, ...] = ()


class Pieces:
    """The pieces in a folder, which is made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def numbers(self, key: str) -> list[int]:
        """The pieces of a world that are there."""
        found = (_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(name[2]) for name in found if name and name[1] == key)

    def put(self, key: str, number: int, taken: Taken) -> None:
        """Keep a piece."""
        place = self._folder / f"{key}-{number:04d}"
        part = place.with_name(f"{place.name}.part")
        if part.exists():  # of a run that was ended while it wrote
            rmtree(part)
        part.mkdir()
        for at, wire in enumerate(taken.wires, 1):
            wire.save(part / f"wire-{at}.npz")
        save_events(taken.events, part / "events.jsonl")
        part.rename(place)

    def get(self, key: str, number: int) -> Taken:
        """Read a piece back; ValueError: it is something else."""
        place = self._folder / f"{key}-{number:04d}"
        wires = sorted(place.glob("wire-*.npz"))
        return Taken(
            tuple(map(load, wires)), tuple(load_events(place / "events.jsonl"))
        )

    def all(self, key: str) -> Iterator[Taken]:
        """Every piece of a world, by number."""
        for number in self.numbers(key):
            yield self.get(key, number)


def joined(pieces: Iterable[Taken]) -> Taken | None:
    """Pieces of one world, one after the other; None: there is none."""
    wires: list[list[Trace]] = []
    events: list[Event] = []
    begin = 0.0
    for number, piece in enumerate(pieces):
        first, last = _span(piece)
        shift = begin - first
        begin += last - first + APART_SECONDS
        wires.append([_later(wire, shift) for wire in piece.wires])
        events += [
            replace(event, at=event.at + shift, ident=f"{number}/{event.ident}")
            for event in piece.events
        ]
    if not wires:
        return None
    whole = tuple(trace.joined(mine) for mine in zip(*wires, strict=True))
    return Taken(whole, tuple(events))


def _span(piece: Taken) -> tuple[float, float]:
    """From the first cell or event to the last one."""
    at = [float(wire.rows["at"][edge]) for wire in piece.wires for edge in (0, -1)]
    at += [event.at for event in piece.events]
    return min(at), max(at)


def _later(wire: Trace, shift: float) -> Trace:
    rows = wire.rows.copy()
    rows["at"] += shift
    return wire.with_rows(rows)


def seconds_of(pieces: Sequence[Taken]) -> float:
    """How long they were listened to, all together."""
    return sum(last - first for first, last in map(_span, pieces))
