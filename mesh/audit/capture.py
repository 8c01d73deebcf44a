# SPDX-License-Identifier: MIT
"""A capture file of somebody's link, with or without events: how it looks to a snooper.

Without events nobody knows when there was mail: idle and busy are drawn by a coin, so each
value is a guess's, and what is told are the planted leaks that would have been found.
With them, leaks are planted in as many of the busy cells as mail was in.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import mesh
from mesh.audit import judge, schedule, trace
from mesh.audit.cells import trace_of
from mesh.audit.figures import Figure
from mesh.audit.report import Cost, Report
from mesh.audit.suite import SEED
from mesh.audit.trace import Event, Floats, Trace, load_events
from mesh.audit.view import (
    clock_in,
    filled,
    in_halves,
    labelled,
    latency,
    room_for,
    unpaired,
    wire_of,
)
from mesh.errors import MessageError, NoInputError


def of_capture(capture: Path, events: Path | None) -> Report:
    """Look at a capture of a link; NoInputError, MessageError: it cannot be."""
    seen = _read(capture)
    if not len(seen.rows):
        raise MessageError(f"{capture}: no cells in it: capture more of it")
    notes = [seen.source] * seen.source.startswith(f"{capture}: ")
    notes += [
        f"gaps vary as those of {seen.clock or 'no clock'}; {seen.rate:g} cells/s"
    ]
    title = f"{capture.name}, {seen.rate:g} cells/s"
    at = seen.rows["at"]
    told: list[Event] = []
    load = 1.0
    if events is None:
        notes.append("no events: idle and busy were drawn by a coin, so each value is a guess's, and what is found are planted leaks")  # fmt: skip
    else:
        told = _events(events)
        _check(told, at, capture, events)
        load = filled(seen, told)
        notes.append(f"busy, it carried {load:.0%} of all it can")
        if lone := unpaired(told):
            notes.append(f"{lone} idents are only in, or only out: when they may have been on their way is left out")  # fmt: skip
    found: list[Figure] = []
    for cells in schedule.LENGTHS:
        rng = np.random.default_rng(SEED)
        if events is None:
            parted = in_halves(seen, rng, cells)
        else:
            parted = labelled(seen, told, cells)
        if few := judge.too_few(parted, cells):
            notes.append(f"too few windows of {few}: it takes {_enough(cells, seen)}")
            continue
        for one in judge.pair(parted, cells, None, np.random.default_rng(SEED), load):
            figure = replace(one, world=title, rate=seen.rate)
            found.append(_blind(figure) if events is None else _seen(figure, load))
    wire = wire_of(labelled(seen, told), title)
    return Report(
        mesh.__version__,
        f"capture {capture.name}",
        float(at[-1] - at[0]),
        len(at),
        tuple(found),
        (Cost(title, seen.clock, seen.rate),),
        (wire,) if wire else (),
        tuple(notes),
    )


def _blind(figure: Figure) -> Figure:
    """Of one who knows nothing nothing is promised."""
    return replace(figure, bound=None)


def _seen(figure: Figure, load: float) -> Figure:
    mail = judge.mail_was_there(load, "of what it can carry")
    return replace(figure, controls=(*figure.controls, mail))


def _enough(cells: int, seen: Trace) -> str:
    """Say how long a capture is that has windows of so many cells, rounded up."""
    least = room_for(cells) / seen.rate
    seconds = 2 * judge.WINDOWS_MIN * least
    unit, name = (3600, "hours") if seconds > 2 * 3600 else (60, "minutes")
    long = f"{math.ceil(seconds / unit)} {name}"
    return f"{long}, half busy, in stretches of {math.ceil(least)} s or more"


def _check(told: Sequence[Event], at: Floats, capture: Path, events: Path) -> None:
    """MessageError: these events are of no use for this capture."""
    if not any(at[0] <= event.at <= at[-1] for event in told):
        raise MessageError(f"{events}: no event is within {capture}: name its own")
    if latency(told) is None:
        raise MessageError(f"{events}: no ident is both in and out: name both")


def _read(capture: Path) -> Trace:
    if capture.suffix != ".npz":
        seen = trace_of(capture)
        return replace(seen, clock=clock_in(seen))
    try:
        return trace.load(capture)
    except OSError as error:  # bz2 gives no number of one
        raise NoInputError(f"{capture}: {error.strerror or error}") from error
    except ValueError as error:
        raise MessageError(f"{capture}: {error}") from error


def _events(path: Path) -> list[Event]:
    try:
        return load_events(path)
    except OSError as error:
        raise NoInputError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise MessageError(
            f"{path}, {error}: no event; one JSON object a line, see `mesh help audit`"
        ) from error
