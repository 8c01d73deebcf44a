# SPDX-License-Identifier: MIT
"""Pieces of a world that lie in a folder, put one after the other.

    FOLDER/KEY-LINK/piece-NUMBER/    what was taken (lab.py)

Those that were taken side by side are moved apart, so that no window reaches across.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from mesh.audit.lab import Captured, load_captured, together
from mesh.audit.schedule import World

APART_SECONDS: Final = 60.0
"""Between pieces in one trace: more than any window lasts."""


def whole(folder: Path, world: World) -> Captured | None:
    """All pieces of a world, one after the other; None: there is none."""
    taken = [
        load_captured(piece) for piece in sorted(folder.glob(f"{world.key}-*/piece-*"))
    ]
    return together(list(apart(taken))) if taken else None


def apart(pieces: Sequence[Captured]) -> Iterator[Captured]:
    """The same pieces, each after the end of the one before, as windows need it."""
    end = 0.0
    for piece in pieces:
        first, last = _span(piece)
        shift = end - first
        end += last - first + APART_SECONDS
        traces = {}
        for name, one in piece.traces.items():
            rows = one.rows.copy()
            rows["at"] += shift
            traces[name] = one.with_rows(rows)
        events = [replace(event, at=event.at + shift) for event in piece.events]
        blocks = [
            block._replace(begin=block.begin + shift, end=block.end + shift)
            for block in piece.blocks
        ]
        yield Captured(traces, events, blocks, piece.late)


def _span(piece: Captured) -> tuple[float, float]:
    """From the first to the last that was seen: mail may come long after a last block."""
    rows = [one.rows["at"][[0, -1]] for one in piece.traces.values() if len(one.rows)]
    firsts = [piece.blocks[0].begin, *(float(at[0]) for at in rows)]
    lasts = [piece.blocks[-1].end, *(float(at[-1]) for at in rows)]
    return min(firsts), max(lasts)


def seconds(captured: Captured) -> float:
    """Of all blocks."""
    return sum(block.end - block.begin for block in captured.blocks)
