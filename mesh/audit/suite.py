# SPDX-License-Identifier: MIT
"""The whole of it: worlds of our own lab are taken, each is judged, and there is a report.

    FOLDER/KEY-LINK/piece-NUMBER/    what was taken (lab.py)
    FOLDER/judged/NAME-DIGEST.json   what was found in so many pieces, as a report (kept.py)

What is there is not made again, so a run that was ended goes on; one of other minutes has
other blocks, and wants a folder of its own.  `tell` hears what is being done, and which
share of all is.  In a run of hours a figure that could not be made is missing, and nothing
holds; but for windows that its planned blocks have no room for.  In one of minutes that is
a note.
"""

import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from signal import SIGTERM, signal
from typing import Final, TypeAlias

import numpy as np

import mesh
from mesh.audit import judge, lab, pieces, probing, schedule, spaces
from mesh.audit.bounds import PROBES, bound_of
from mesh.audit.cells import GUARD_SECONDS
from mesh.audit.figures import Figure
from mesh.audit.kept import kept
from mesh.audit.lab import Captured, capture_pieces
from mesh.audit.report import Cost, Report, Wire
from mesh.audit.schedule import Job, Schedule, World
from mesh.audit.view import carried, latency, wire_of
from mesh.errors import IoError

Tell: TypeAlias = Callable[[str, float], None]

FIRST_WIRE: Final = "alpha-bravo"
SECOND: Final = "bravo"
SEED: Final = 7
"""The same captures give the same figures."""
TAKING: Final = 0.8
"""Of a run's time, about; the rest is judging."""
PROBES_A_SECOND: Final = 10.0
"""All kinds together: 48 at once, of some 4 s each."""
PROBES_MIN: Final = 80
"""Of each kind."""
PROBES_WHOLE: Final = 2 * PROBES.enough
"""Of each kind, in a run of hours: half an hour of them, and twice as many as promised,
since who is judged by one fold only has few."""
BARE_SECONDS: Final = 2.0
"""Drawn of a wire without a clock: long enough to see mail come."""


def live(minutes: float, folder: Path | None, tell: Tell, links: int = 1) -> Report:
    """Take the worlds of a schedule and judge them; folder: where pieces are kept.

    NotPermittedError, UnavailableError: there can be no lab here.
    """
    spaces.check()
    plan = Schedule(minutes, links)
    with ExitStack() as stack:
        if folder is None:
            name = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="mesh-audit-")
            )
            folder = Path(name)
        _take(plan, folder, tell)
        return judged(plan, folder, tell)


def _take(plan: Schedule, folder: Path, tell: Tell) -> None:
    """Take what is not there yet, links of one world side by side."""
    rounds = plan.rounds()
    whole, done = sum(beside[0].seconds for beside in rounds), 0.0
    for beside in rounds:
        world, seconds = beside[0].world, beside[0].seconds
        tell(
            f"{plan.title(world)}: listening for {seconds:.0f} s", TAKING * done / whole
        )
        with lab.burning() if world.burn else nullcontext():
            _side_by_side(beside, folder)
        done += seconds


def _side_by_side(jobs: Sequence[Job], folder: Path) -> None:
    """Do jobs, each in a process of its own where there are several: so are labs."""
    if len(jobs) == 1:
        _piece(jobs[0], folder)
        return
    spawn = get_context("spawn")
    processes = [spawn.Process(target=_beside, args=(job, folder)) for job in jobs]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
    if failed := [process for process in processes if process.exitcode]:
        raise IoError(f"{len(failed)} of {len(processes)} links broke off")


def _beside(job: Job, folder: Path) -> None:
    """Be one of those processes: what it made goes with it when it is ended."""
    signal(SIGTERM, lambda *_: sys.exit(1))
    _piece(job, folder)


def _piece(job: Job, folder: Path) -> None:
    """Take the pieces of one link up to the job's."""
    place = folder / f"{job.world.key}-{job.link}"
    capture_pieces(job.plan, place, pieces=job.pieces, blocks=job.blocks)


def judged(plan: Schedule, folder: Path, tell: Tell) -> Report:
    """Judge all that lies in a folder."""
    made = {
        world.key: whole
        for world in plan.worlds
        if (whole := pieces.whole(folder, world)) is not None
    }
    seconds = sum(map(pieces.seconds, made.values()))
    cells = sum(len(one.rows) for each in made.values() for one in each.traces.values())
    left = [plan.title(world) for world in schedule.WORLDS if world not in plan.worlds]
    notes = [f"{title}: not in a run of {plan.minutes:g} minutes" for title in left]
    costs: list[Cost] = []
    wires: list[Wire] = []
    found: list[Figure] = []
    missing: list[str] = []
    for number, world in enumerate(plan.worlds):
        tell(
            f"{world.title}: judging", TAKING + (1 - TAKING) * number / len(plan.worlds)
        )
        if world is schedule.PROBED:
            part = kept(folder, "probed", lambda: _probed(plan))
        elif world.key in made:
            part = _Judge(plan, folder, made).world(world)
            costs.append(_cost(plan, world, made))
            wires += _wires(plan, world, made[world.key])
        else:
            missing += [f"{plan.title(world)}: nothing was taken"] * plan.is_long
            continue
        notes += part.notes
        missing += part.missing
        found += part.figures
    source = f"live, {plan.minutes:g} minutes"
    if plan.links > 1:
        source += f", {plan.links} links side by side"
    return Report(
        mesh.__version__, source, seconds, cells,
        tuple(found), tuple(costs), tuple(wires), tuple(notes), tuple(missing),
    )  # fmt: skip


def _found(figures: Sequence[Figure], notes: Sequence[str]) -> Report:
    """A part of a report."""
    return Report(mesh.__version__, "", 0.0, 0, tuple(figures), notes=tuple(notes))


@dataclass(frozen=True)
class _Judge:
    """What all judging needs."""

    plan: Schedule
    folder: Path
    made: dict[str, Captured]

    def world(self, world: World) -> Report:
        """What is found in one of the lab's worlds, window by window."""
        found: list[Report] = []
        notes: list[str] = []
        missing: list[str] = []
        for name, (promised, make) in self._parts(world).items():
            part = kept(self.folder, name, make)
            found.append(part)
            (missing if promised and self.plan.is_long else notes).extend(part.notes)
        if notes and world is not schedule.CHAIN:  # from here on they are lengths
            notes = [f"too few windows of {', '.join(notes)}"]
        figures = [figure for part in found for figure in part.figures]
        share = self._carried(world)
        if share is not None and world.plan is not None:
            notes.append(f"busy, it carried {share:.0%} of all it can")
            mail = (
                judge.mail_was_there(share / world.plan.load, "of what was planned"),
            )
            figures = [replace(one, controls=one.controls + mail) for one in figures]
        told, lost = (
            tuple(f"{self.plan.title(world)}: {each}" for each in some)
            for some in (notes, missing)
        )
        return replace(_found(figures, told), missing=lost)

    def _parts(self, world: World) -> dict[str, tuple[bool, Callable[[], Report]]]:
        """By name: whether its figures have to be there in a run of hours; and its making."""
        size = len(self.made[world.key].blocks)
        if world in (schedule.GREEDY, schedule.PLAIN):  # those are controls
            return {}
        if world is schedule.CHAIN:
            return {f"{world.key}-{size}": (True, partial(self._messages, world))}
        seconds = self._block_seconds(world) - 2 * GUARD_SECONDS
        parts: dict[str, tuple[bool, Callable[[], Report]]] = {
            f"{world.key}-{size}-{cells}": (
                seconds * self.plan.rate_of(world) >= cells,
                partial(self._windows, world, cells),
            )
            for cells in schedule.LENGTHS
        }
        box = partial(self._white_box, world)
        return {**parts, f"{world.key}-{size}-white-box": (True, box)}

    def _block_seconds(self, world: World) -> float:
        """As planned."""
        jobs = self.plan.jobs()
        return next(job.plan.seconds for job in jobs if job.world is world)

    def _carried(self, world: World) -> float | None:
        """How full the link was; None: it is no pair's, or a control's."""
        if world.plan is None or world.plan.world != "pair" or world is schedule.GREEDY:
            return None
        mine = self.made[world.key]
        plan = replace(world.plan, rate=self.plan.rate_of(world))
        return carried(mine.events, mine.blocks, SECOND, plan.octets_a_second)

    def _windows(self, world: World, cells: int) -> Report:
        mine = self.made[world.key].traces[FIRST_WIRE]
        if few := judge.too_few(mine, cells):
            return _found([], [few])
        bare = self.made.get(schedule.GREEDY.key)
        rng = np.random.default_rng(SEED)
        wire = bare.traces[FIRST_WIRE] if bare else None
        # Leaks are planted in as many cells as mail was in, whatever was planned.
        load = min(1.0, self._carried(world) or 0.0)
        return self._of(world, judge.pair(mine, cells, wire, rng, load))

    def _white_box(self, world: World) -> Report:
        rng = np.random.default_rng(SEED)
        return self._of(world, judge.white_box(self.made[world.key], world.clock, rng))

    def _messages(self, world: World) -> Report:
        bare = self.made.get(schedule.PLAIN.key)
        rng = np.random.default_rng(SEED)
        return self._of(world, judge.messages(self.made[world.key], bare, rng))

    def _of(self, world: World, found: Iterable[Figure | str]) -> Report:
        """Figures of a world, and notes."""
        title, rate = self.plan.title(world), self.plan.rate_of(world)
        told = list(found)
        figures = [one for one in told if isinstance(one, Figure)]
        return _found(
            [replace(one, world=title, rate=rate) for one in figures],
            [one for one in told if isinstance(one, str)],
        )


def _probed(plan: Schedule) -> Report:
    each = math.ceil(plan.seconds_of(schedule.PROBED) * PROBES_A_SECOND / 3)
    each = PROBES_WHOLE if plan.is_long else max(PROBES_MIN, each)
    figures = probing.figures(each, np.random.default_rng(SEED))
    title = plan.title(schedule.PROBED)
    return _found(
        [
            replace(one, world=title, bound=bound_of(PROBES, one.count))
            for one in figures
        ],
        [],
    )


def _cost(plan: Schedule, world: World, made: dict[str, Captured]) -> Cost:
    """What cover costs there: by the law, and as it was measured where links were free."""
    mine = made[world.key]
    is_free = world.plan is not None and world.plan.load < 1
    bare = made.get("plain") if world is schedule.CHAIN else None
    return Cost(
        plan.title(world),
        world.clock,
        plan.rate_of(world) if world.clock not in ("", "greedy") else 0.0,
        latency(mine.events) if is_free else None,
        latency(bare.events) if bare else None,
    )


def _wires(plan: Schedule, world: World, captured: Captured) -> list[Wire]:
    covered = world.clock not in ("", schedule.GREEDY.clock)
    seconds = None if covered else BARE_SECONDS
    wire = wire_of(captured.traces[FIRST_WIRE], plan.title(world), seconds)
    return [wire] if wire else []
