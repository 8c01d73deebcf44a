# SPDX-License-Identifier: MIT
"""The origins' own case: three type-I remailers with encrypted address blocks.

    alpha ---- bravo ---- charlie ---- sink      tests/remailers.py: one layer off the
                                                 block at each hop, the body as it came

The same mail goes twice through a lab (mesh.audit.lab), by real nodes and over real wires:
from remailer to remailer by bare SMTP, and over links with cover.  Attackers
(tests/following.py) read each wire and follow messages through bravo, through charlie,
and from alpha to the sink.

What `mesh audit` brings against any mail follows them, too: its matchers of messages
through bravo (mesh.audit.matching), which see every cell, ACK and gap on both of its wires.

Over the mesh the last wire is port 25, in clear: a pool mixes what leaves there, and that
is the pool's promise, not a link's.  So by size and time they follow from covered link to
covered link, through bravo; by body everywhere.

All machines of a lab share one host.  Where it stands still, messages are long on their way
just where cells crowd, so a host with other work gives a few more than chance.

The run ends with 0 when at least ENOUGH are followed by bare SMTP, each way, and over
the mesh no more than chance explains; and when the matchers' AUC is as good as 1 there and
within the bound for so many messages here (mesh/audit/bounds.py).
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mesh.audit import judge
from mesh.audit.figures import Figure
from mesh.audit.lab import ATTEMPTS, Captured, Plan, capture
from mesh.audit.spaces import Wire
from mesh.errors import IoError, MeshError
from tests.following import (
    Followed,
    by_body,
    by_size_and_time,
    contents,
    judged,
    runs,
    trips,
    words_of,
)
from tests.remailers import AddressBlocks

PLACES: Final = ("alpha", "bravo", "charlie", "sink")
PLAN: Final = Plan(rate=64.0, load=0.2, octets=(2_000, 30_000), seconds=10.0)
"""Light, so that messages seldom lie one upon the other: with cover, nothing else helps."""
WIRES: Final = tuple(map(Wire, PLACES, PLACES[1:]))
WAYS: Final = {
    "through bravo": (0, 1),
    "through charlie": (1, 2),
    "alpha to sink": (0, 2),
}
"""From which wire to which."""
BODY: Final = "by body"
SIZE: Final = "by size and time"
ENOUGH: Final = 0.99
SEED: Final = 7
"""The matchers', so that the same wires give the same figures."""
MINUTES_MAX: Final = 10.0
"""All octets of a wire are in memory at once."""


class Way(NamedTuple):
    """What somebody did in one world."""

    where: str
    how: str


Result = Mapping[Way, Followed]


class Run(NamedTuple):
    """One world, and what was followed in it."""

    followed: Result
    captured: Captured


def follow(
    world: str,
    plan: Plan = PLAN,
    blocks: int = 1,
    seed: int | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Run:
    """Run one world, "plain" or "chain", all through with mail, and follow it.

    IoError: the lab broke off, each time.
    """
    for left in reversed(range(ATTEMPTS)):
        with tempfile.TemporaryDirectory(prefix="mesh-origins-") as name:
            try:
                captured = capture(
                    replace(plan, world=world), [True] * blocks,
                    letters=AddressBlocks(PLACES), rng=np.random.default_rng(seed),
                    tick=tick, keep=Path(name), snap=0,
                )  # fmt: skip
            except IoError:
                if not left:
                    raise
                continue
            return Run(attacked(captured, Path(name), world), captured)
    raise AssertionError  # the loop returns or raises


def attacked(captured: Captured, folder: Path, world: str) -> Result:
    """Let all attackers look at the capture files of a world."""
    files = {wire: folder / f"{wire}.pcap" for wire in WIRES}
    words = {wire: words_of(file) for wire, file in files.items()}
    begin, end = captured.blocks[0].begin, max(one.at for one in captured.events)
    found: dict[Way, Followed] = {}
    lengths = octets_on_wires()
    for where, (here, there) in WAYS.items():
        first, second = WIRES[here], WIRES[there]
        truth = trips(captured.events, first, second)
        named = by_body(words[first], words[second])
        found[Way(where, BODY)] = judged(named, truth, begin, end)
        if world == "plain":
            one, two = contents(files[first]), contents(files[second])
        elif there < 2:
            one, two = (runs(captured.traces[str(wire)]) for wire in (first, second))
        else:
            continue
        less = lengths[here] - lengths[there]
        named = by_size_and_time(one, two, truth, less)
        found[Way(where, SIZE)] = judged(named, truth, begin, end)
    return found


def matched(plain: Captured, mesh: Captured) -> list[Figure]:
    """What the audit's own matchers reach over the mesh; their control is bare SMTP.

    Empty where there are too few messages for them.
    """
    found = judge.matched(mesh, plain, np.random.default_rng(SEED))
    return [one for one in found if isinstance(one, Figure) and one.unit == "AUC"]


def octets_on_wires() -> list[int]:
    """Give what one message from alpha to the sink has on each wire."""
    letters = AddressBlocks(PLACES)
    content, lengths = letters.write(PLACES, 5_000, "0" * 16), []
    for place in PLACES[1:]:
        lengths.append(len(content))
        content = letters.take(place, content).content
    return lengths


def holds(plain: Result, mesh: Result, matchers: Sequence[Figure]) -> bool:
    """Whether all were followed without cover, and with it none but by chance.

    By body none is by chance: no two strings are alike.
    """
    bare = all(one.share >= ENOUGH and one.beyond_chance for one in plain.values())
    alike = sum(one.names for way, one in mesh.items() if way.how == BODY)
    lucky = not alike and not any(one.beyond_chance for one in mesh.values())
    return bare and lucky and all(one.holds for one in matchers)


# the script


def shown(plain: Result, mesh: Result, title: str) -> Table:
    """Both worlds beside each other."""
    table = Table(
        "where", "how", "by SMTP", "over the mesh", "by chance", "95 % below", "at most",
        title=title,
    )  # fmt: skip
    for way, bare in plain.items():
        row = [way.where, way.how, f"{bare.found} of {bare.messages}"]
        if way in mesh:
            one = mesh[way]
            row += [f"{one.found} of {one.messages}", f"{one.chance:.1f}"]
            row += [f"{one.usual:.0f}", f"{one.most:.1f}" if one.names else "0"]
        table.add_row(*row)
    return table


def told(matchers: Sequence[Figure]) -> Table:
    """The audit's matchers."""
    table = Table(
        "matching through bravo", "messages", "AUC by SMTP", "over the mesh",
        "95 %", "bound", "",
    )  # fmt: skip
    for one in matchers:
        bare = next(each for each in one.controls if each.name == "no cover")
        table.add_row(
            one.attacker, f"{one.count:,}", f"{bare.value:.3f}", f"{one.value:.3f}",
            f"{one.upper:.3f}", f"{one.bound or 0:.3f}", one.verdict,
        )  # fmt: skip
    return table


@contextmanager
def _bar(blocks: int) -> Iterator[Callable[[str], Callable[[], None]]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("origins", total=2 * blocks)

        def begins(world: str) -> Callable[[], None]:
            progress.update(task, description=world)
            return lambda: progress.advance(task)

        yield begins


def main() -> int:
    """Run as asked, print a table, and give the exit code."""
    parser = argparse.ArgumentParser(
        prog="origins", description="follow messages of type-I remailers, as root"
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of each world")
    parser.add_argument(
        "--clock", default="renewal", help="greedy: a mesh without cover"
    )
    args = parser.parse_args()
    if not 0 < args.minutes <= MINUTES_MAX:
        parser.error(f"--minutes: above 0, at most {MINUTES_MAX:g}")
    plan = replace(PLAN, clock=args.clock)
    blocks = max(1, round(60 * args.minutes / plan.seconds))
    try:
        with _bar(blocks) as begins:
            plain = follow("plain", plan, blocks, tick=begins("bare SMTP"))
            mesh = follow("chain", plan, blocks, tick=begins("the mesh"))
    except MeshError as error:
        Console(stderr=True).print(f"origins: {error}", markup=False)
        return error.exit_code
    title = (
        f"{args.minutes:g} minutes each; the mesh: {plan.clock}, {plan.rate:g} cells/s"
    )
    console = Console(width=110)
    console.print(shown(plain.followed, mesh.followed, title))
    matchers = matched(plain.captured, mesh.captured)
    console.print(told(matchers))
    good = holds(plain.followed, mesh.followed, matchers)
    console.print(
        "every message by SMTP, over the mesh none but by chance"
        if good
        else "not every message by SMTP, or more over the mesh than chance explains"
    )
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
