# SPDX-License-Identifier: MIT
"""The prober's world: a node that runs, one that it listed once, and ports that read.

    alpha       the node that is probed: default clock, one listed peer, a link that is up
    charlie     that peer
    bravo       was listed: it said one hello, and was removed; it never runs
    reader      a port that only reads; and one that greets

All on loopback, in a folder of their own, made by our own commands.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import trio

from mesh.audit.figures import Figure
from mesh.audit.prober import AT_ONCE, LISTEN_SECONDS, Address, Answer, ask_both, judge
from mesh.audit.probes import KINDS, Script, Target
from mesh.audit.reader import READY
from mesh.core.cell import CELL_LEN
from mesh.core.descriptor import parse_untrusted
from mesh.core.handshake import PeerKeys
from mesh.node.keys import load_identity, load_link_keys

HOST: Final = "127.0.0.1"
NAMES: Final = ("alpha", "bravo", "charlie")
MESH: Final = (sys.executable, "-m", "mesh")
READY_SECONDS: Final = 30.0
STEP_SECONDS: Final = 0.05
FOLLOWS_SECONDS: Final = 2.0
"""A running node follows `mesh peers remove` within."""
GREETING: Final = "220 mail.example ready\r\n"
CONTROL_SHARE: Final = 10
"""Of the probes, one in so many also goes to the port that greets, or as many as
CONTROL_MIN."""
CONTROL_MIN: Final = 200


class ProbingError(Exception):
    """The world for the prober does not come up."""


def free_port() -> int:
    """Give a port of loopback that nobody has now."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def mesh(*words: str) -> str:
    """Run one of our commands; its output."""
    done = subprocess.run([*MESH, *words], check=True, capture_output=True, text=True)  # noqa: S603
    return done.stdout


@contextmanager
def running(words: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program until the end of the context."""
    process = subprocess.Popen(  # noqa: S603
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()


def make_node(folder: Path, name: str) -> Address:
    """Make a node with the defaults, on a port of its own."""
    port = free_port()
    where = f"{HOST}:{port}"
    mesh("init", str(folder / name), "--name", name, "--address", where,
         "--remailer", f"mix@{name}.test")  # fmt: skip
    config = folder / name / "node.toml"
    lines = [
        f'listen = ["{where}"]' if line.startswith("listen =") else line
        for line in config.read_text().splitlines()
    ]
    config.write_text("\n".join(lines) + "\n")
    (folder / f"{name}.mesh").write_text(mesh("export", "-c", str(config)))
    return HOST, port


def wait(what: str, holds: Callable[[], bool]) -> None:
    """Wait until it holds; ProbingError: it never does."""
    until = time.monotonic() + READY_SECONDS
    while not holds():
        if time.monotonic() > until:
            raise ProbingError(f"not within {READY_SECONDS:.0f} s: {what}")
        time.sleep(STEP_SECONDS)


def linked(folder: Path, name: str) -> bool:
    """Whether a node's links are up."""
    words = [*MESH, "status", "-c", str(folder / name / "node.toml")]
    return not subprocess.run(words, check=False, capture_output=True).returncode  # noqa: S603


@contextmanager
def node(folder: Path) -> Iterator[tuple[Address, Target]]:
    """Run alpha and charlie; alpha's address, and what a prober knows of it."""
    alpha, _, _ = (make_node(folder, name) for name in NAMES)
    configs = [str(folder / name / "node.toml") for name in NAMES]
    for one, others in ((0, (1, 2)), (2, (0,))):
        files = [str(folder / f"{NAMES[other]}.mesh") for other in others]
        confirmed = [f"--serves=mix@{NAMES[other]}.test" for other in others]
        mesh("peers", "add", "-c", configs[one], *confirmed, *files)
    (descriptor,) = parse_untrusted((folder / "alpha.mesh").read_text())
    state = folder / "bravo" / "state"
    target = Target(
        network=descriptor.network,
        keys=PeerKeys(descriptor.name, descriptor.identity, descriptor.link_keys),
        heard=b"", identity=load_identity(state), static=load_link_keys(state)[0],
        earlier=b"",
    )  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(running([*MESH, "run", "-c", configs[0]]))
        wait("alpha takes mail", (folder / "alpha" / "local.sock").exists)
        script = Script(target, np.random.default_rng())
        hello = script.hello(target.identity, target.static)
        trio.run(_say, alpha, hello)
        mesh("peers", "remove", "-c", configs[0], "bravo")
        stack.enter_context(running([*MESH, "run", "-c", configs[2]]))
        wait("the link is up", lambda: linked(folder, "alpha"))
        time.sleep(FOLLOWS_SECONDS)
        yield alpha, replace(target, heard=hello, earlier=hello)


async def _say(address: Address, hello: bytes) -> None:
    """Say a hello as who is listed; ProbingError: it is not answered."""
    stream = await trio.open_tcp_stream(*address)
    async with stream:
        await stream.send_all(hello)
        heard = 0
        with trio.move_on_after(READY_SECONDS):
            while heard < CELL_LEN and (data := await stream.receive_some()):
                heard += len(data)
    if heard != CELL_LEN:
        raise ProbingError("alpha does not answer a listed peer")


@contextmanager
def port_that_reads(greeting: str = "") -> Iterator[Address]:
    """Run reader.py; its address."""
    port = free_port()
    words = [sys.executable, "-m", "mesh.audit.reader", f"{HOST}:{port}"]
    with running([*words, *([greeting] if greeting else [])]) as process:
        if process.stderr is None or os.read(process.stderr.fileno(), 99) != READY:
            raise ProbingError("the port that only reads does not come up")
        yield HOST, port


def probe(
    count: int,
    rng: np.random.Generator,
    *,
    listen: float = LISTEN_SECONDS,
    at_once: int = AT_ONCE,
    tick: Callable[[], None] = lambda: None,
) -> tuple[list[Answer], list[Answer]]:
    """Send `count` probes of each kind to a node and a port that reads; and controls.

    Returns the answers, and those of a port that greets beside one that does not.
    """
    control = min(count, max(CONTROL_MIN, count // CONTROL_SHARE))

    async def ask(
        ports: Sequence[Address], script: Script, number: int
    ) -> list[Answer]:
        probes = (script.next(KINDS[n % len(KINDS)]) for n in range(number))
        return await ask_both(
            ports, probes, rng, listen=listen, at_once=at_once, tick=tick
        )

    with (
        tempfile.TemporaryDirectory() as name,
        node(Path(name)) as (alpha, target),
        port_that_reads() as reader,
        port_that_reads(GREETING) as greeter,
    ):
        script = Script(target, rng)
        answers = trio.run(ask, (alpha, reader), script, count * len(KINDS))
        greeted = trio.run(ask, (greeter, reader), script, control * len(KINDS))
    return answers, greeted


def figures(
    count: int, rng: np.random.Generator, tick: Callable[[], None] = lambda: None
) -> list[Figure]:
    """Probe so many times as each kind, and judge."""
    answers, greeted = probe(count, rng, tick=tick)
    return judge(answers, greeted, rng, "loopback, renewal, 1 cells/s")
