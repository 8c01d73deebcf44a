# SPDX-License-Identifier: MIT
"""How many messages a second a server accepts, each durable before its 250.

    smtp-source -> alpha's local socket -> spool              (its peer is not there)
    smtp-source -> smtpd, cleanup -> incoming queue           (there is no qmgr)

Both take 10 kB over 20 kept-open sessions, in turns.  When the clock has stopped for good
the peer and the qmgr come, and every message must be at a sink, once and whole.
"""

import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from benchmarks import postfix
from benchmarks.mail import Load, Sink, kind_of, source
from benchmarks.pairs import Mesh
from benchmarks.processes import BenchmarkError, Group
from benchmarks.result import Figure, Result, Scale, Series, Tell

TITLE: Final = "Accepting, each message durable before its 250"
BOUND: Final = 8.0
LOAD: Final = Load(5000)
RIVAL_SLOWER: Final = 5


@dataclass
class Taker:
    """One that accepts; `release` lets it deliver to its sink."""

    name: str
    entry: str
    path: Path
    group: Group
    release: Callable[[], None]
    load: Load
    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    sent: int = 0

    def take(self, load: Load, *, warm: bool) -> None:
        """Hand it messages."""
        cpu, start = self.group.cpu(), time.monotonic()
        subprocess.run(source(self.entry, load), check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
        self.sent += load.messages
        if not warm:
            self.rates.append(load.messages / seconds)
            self.cpu_us.append((self.group.cpu() - cpu) / load.messages * 1e6)


def run(scale: Scale, tell: Tell) -> Result:
    """Take turns, then look at every message."""
    load = replace(LOAD, messages=scale.of(LOAD.messages, 40))
    notes = []
    settings: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="mesh-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o711)
        takers = [_ours(stack, folder, load)]
        if why := postfix.is_there():
            notes.append(f"without Postfix: {why}")
        else:
            takers.append(_postfix(stack, folder, load))
            settings["Postfix"] = postfix.version()
        for number in range(-1, scale.rounds):
            for taker in takers if number % 2 else takers[::-1]:
                tell(taker.name, 0.7 * max(number, 0) / scale.rounds)
                warm = number < 0
                mine = replace(load, messages=load.sessions) if warm else taker.load
                taker.take(mine, warm=warm)
        for taker in takers:
            tell(f"{taker.name}: every message is looked at", 0.8)
            _look(taker, load)
    return Result(
        "accept",
        TITLE,
        (
            _figure("messages accepted, 10 kB, 20 sessions", "messages/s", takers, 0),
            _figure("CPU of it, the server alone", "us a message", takers, 1),
        ),
        settings=settings,
        notes=tuple(notes),
    )


def _ours(stack: ExitStack, folder: Path, load: Load) -> Taker:
    path = folder / "ours.sock"
    pair = Mesh(folder / "ours", path)
    stack.callback(pair.close)
    pair.start_nodes("alpha")
    return Taker(
        "mesh", pair.entry, path, pair.parts["alpha"],
        lambda: pair.start_nodes("bravo"), load,
    )  # fmt: skip


def _postfix(stack: ExitStack, folder: Path, load: Load) -> Taker:
    path = folder / "postfix.sock"
    instance = postfix.Instance(
        folder / "postfix", "alpha", "qmgr", default_transport=f"lmtp:unix:{path}"
    )
    stack.enter_context(instance.group)
    instance.start()
    fewer = max(load.messages // RIVAL_SLOWER, load.sessions)
    return Taker(
        "Postfix smtpd", f"inet:127.0.0.1:{instance.port}", path, instance.group,
        instance.complete, replace(load, messages=fewer),
    )  # fmt: skip


def _look(taker: Taker, load: Load) -> None:
    with Sink(taker.path, copies=True) as sink:
        taker.release()
        sink.wait(taker.sent)
        if wrong := sink.collect().mistake(taker.sent, kind_of(load.length)):
            raise BenchmarkError(f"{taker.name}: {wrong}")


def _figure(name: str, unit: str, takers: list[Taker], what: int) -> Figure:
    series = tuple(
        Series(taker.name, tuple((taker.rates, taker.cpu_us)[what])) for taker in takers
    )
    if what:
        return Figure(name, unit, series, at_least=False)
    return Figure(name, unit, series, BOUND, of_rival=True)
