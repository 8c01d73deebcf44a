# SPDX-License-Identifier: MIT
"""An active attacker: is there a node behind this port, or one that only reads.

He asks two ports, the node's and that of reader.py, each time at the throw of a coin,
so that what else the machine does meets both alike.  Of each probe he has

    octets      how many came back
    ended       how: not at all, FIN, reset
    seconds     from our FIN, or from our last octet, to the other side's end
    window      what its kernel had room for at the end: whether it reads
    segments    how many came from it: acknowledgements, which show when it reads

    learned     gradient boosting over all of that, and which probe it was
    seconds     the time alone

Controls: the same attacker against a port that greets, as a mail server does; labels
shuffled; and the smallest of some delays that, planted into half of what the reader did,
he would have found.
"""

import enum
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import trio

from mesh.audit.attackers import Learned
from mesh.audit.figures import Control, Figure
from mesh.audit.probes import KINDS, Kind, Probe
from mesh.audit.statistics import Measured, measured, roc
from mesh.audit.trace import Bools, Floats, Ints

LISTEN_SECONDS: Final = 2.2
"""After our last act: an answer leaves 0.1 to 1.1 s after a look, a close a look later."""
AT_ONCE: Final = 48
"""Connections open at once: well below what a port keeps of strangers."""
BLOCK: Final = 50
"""Probes, one after the other, that may have something in common."""
BOUND: Final = 0.52
BROKEN: Final = 0.99
"""What an attacker is to reach against a port that greets."""
PLANTED: Final = (0.0002, 0.001, 0.005, 0.02, 0.05, 0.2)
"""Seconds later."""
_WINDOW: Final = struct.Struct("=136xII88xI")
"""segs_out, segs_in and snd_wnd of the kernel's tcp_info; the last since Linux 5.4."""
_READ: Final = 65536

Address: TypeAlias = tuple[str, int]


class Ended(enum.IntEnum):
    """How a port ended a connection."""

    OPEN = 0
    FIN = 1
    RESET = 2


@dataclass(frozen=True)
class Answer:
    """What one probe brought."""

    kind: Kind
    name: str
    close: float | None
    """The probe's."""
    port: int
    """Which of the two was asked."""
    octets: int
    ended: Ended
    seconds: float
    """The whole listening time when it did not end."""
    window: int
    segments: int


async def ask(
    address: Address, probe: Probe, port: int, listen: float = LISTEN_SECONDS
) -> Answer:
    """Send one probe and listen; OSError: nobody takes the connection."""
    octets, ended = 0, Ended.OPEN
    stream = await trio.open_tcp_stream(*address)
    with stream.socket as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begin = seconds = 0.0
        try:
            if probe.octets:
                await stream.send_all(probe.octets)
            if probe.close is not None:
                await trio.sleep(probe.close)
                sock.shutdown(socket.SHUT_WR)
        except (OSError, trio.BrokenResourceError):
            ended = Ended.RESET
        begin = trio.current_time()
        with trio.move_on_after(listen):
            while ended is Ended.OPEN:
                count = await _heard(sock)
                octets += max(count, 0)
                if count <= 0:
                    ended = Ended.FIN if count == 0 else Ended.RESET
        seconds = trio.current_time() - begin if ended else listen
        _, segments, window = _kernel_says(sock)
    return Answer(
        probe.kind, probe.name, probe.close, port, octets, ended, seconds,
        window, segments,
    )  # fmt: skip


async def _heard(sock: trio.socket.SocketType) -> int:
    """Give the octets of one read; 0: the end, -1: a reset."""
    try:
        return len(await sock.recv(_READ))
    except OSError:
        return -1


def _kernel_says(sock: trio.socket.SocketType) -> tuple[int, int, int]:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _WINDOW.size)
    if len(info) < _WINDOW.size:
        return 0, 0, 0
    sent, heard, window = _WINDOW.unpack(info)
    return sent, heard, window


async def ask_both(
    addresses: Sequence[Address],
    probes: Iterable[Probe],
    rng: np.random.Generator,
    *,
    listen: float = LISTEN_SECONDS,
    at_once: int = AT_ONCE,
    tick: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """Send each probe to one of the ports; the answers by when they were asked."""
    answers: dict[int, Answer] = {}
    places = trio.Semaphore(at_once)

    async def one(number: int, probe: Probe) -> None:
        port = int(rng.integers(len(addresses)))
        try:
            answers[number] = await ask(addresses[port], probe, port, listen)
        finally:
            places.release()
        tick()

    async with trio.open_nursery() as nursery:
        for number, probe in enumerate(probes):
            await places.acquire()
            nursery.start_soon(one, number, probe)
    return [answers[number] for number in sorted(answers)]


# What he makes of it


def matrix(answers: Sequence[Answer]) -> Floats:
    """Give all that he has of each probe, as numbers."""
    names = sorted({(each.kind, each.name) for each in answers})
    return np.array(
        [
            [
                names.index((each.kind, each.name)),
                -1.0 if each.close is None else each.close,
                each.octets, each.ended, each.seconds, each.window, each.segments,
            ]
            for each in answers
        ]
    )  # fmt: skip


SECONDS: Final = 4
"""The time's column."""


def learned(
    table: Floats, label: Bools, block: Ints, rng: np.random.Generator
) -> Floats:
    """Score by gradient boosting, each probe by a fit that did not see it."""
    del block  # what neighbours have in common is no label's
    return Learned().tell(table, label, np.arange(len(label), dtype=np.int64), rng)


def by_time(
    table: Floats, label: Bools, block: Ints, rng: np.random.Generator
) -> Floats:
    """Score by how long the end took."""
    del label, block, rng
    seconds: Floats = table[:, SECONDS]
    return seconds


Judge: TypeAlias = Callable[[Floats, Bools, Ints, np.random.Generator], Floats]
JUDGES: Final[dict[str, Judge]] = {"learned": learned, "seconds": by_time}


def judge(
    answers: Sequence[Answer],
    greeted: Sequence[Answer],
    rng: np.random.Generator,
    world: str = "",
    judges: Iterable[str] = ("learned", "seconds"),
) -> list[Figure]:
    """Say how well each kind of prober tells port 0 from port 1, by each means.

    `greeted` are answers of a port that greets (0) and one that only reads (1).
    """
    figures = []
    for kind in KINDS:
        mine = [each for each in answers if each.kind == kind]
        if not mine:
            continue
        table, label, block = _parts(mine)
        control = _parts([each for each in greeted if each.kind == kind])
        for name in judges:
            how = JUDGES[name]
            score = how(table, label, block, rng)
            found = measured(score, label, block, rng)
            controls = _controls(name, how, (table, label, block), control, rng)
            figures.append(
                Figure(
                    name=f"prober, {kind}",
                    attacker=name,
                    value=found.value,
                    upper=found.upper,
                    bound=BOUND,
                    unit="AUC",
                    count=found.count,
                    smallest=_smallest(how, mine, rng),
                    controls=controls,
                    roc=roc(score, label),
                    world=world,
                )
            )
    return figures


_Parts: TypeAlias = tuple[Floats, Bools, Ints]


def _parts(answers: Sequence[Answer]) -> _Parts:
    label = np.array([each.port == 0 for each in answers])
    block = np.arange(len(answers), dtype=np.int64) // BLOCK
    return matrix(answers), label, block


def _measure(how: Judge, parts: _Parts, rng: np.random.Generator) -> Measured:
    return measured(how(*parts, rng), parts[1], parts[2], rng)


def _controls(
    name: str, how: Judge, parts: _Parts, control: _Parts, rng: np.random.Generator
) -> tuple[Control, ...]:
    table, label, block = parts
    shuffled = _measure(how, (table, rng.permutation(label), block), rng)
    null = Control("labels shuffled", shuffled.signed, "0.5", shuffled.null)
    if name == "seconds":  # a greeting takes no other time to end
        late = _measure(how, planted(parts, 10.0, rng), rng)
        seen = Control("10 s later", late.value, f">= {BROKEN}", late.value >= BROKEN)
        return seen, null
    greets = _measure(how, control, rng).value
    return Control("a port that greets", greets, f">= {BROKEN}", greets >= BROKEN), null


def planted(parts: _Parts, seconds: float, rng: np.random.Generator) -> _Parts:
    """Answers of one port, by coins labelled anew, half of them so much later."""
    table, label, block = parts
    table, block = table[~label].copy(), block[~label]
    new: Bools = rng.random(len(table)) < 0.5
    table[new, SECONDS] += seconds
    return table, new, block


def _smallest(how: Judge, answers: Sequence[Answer], rng: np.random.Generator) -> str:
    """Name the smallest delay such that he finds it, and all that are longer."""
    ended = _parts([each for each in answers if each.ended])
    smallest = ""
    for seconds in reversed(PLANTED):
        if not _measure(how, planted(ended, seconds, rng), rng).found:
            break
        smallest = f"closed {1e3 * seconds:g} ms later"
    return smallest
