# SPDX-License-Identifier: MIT
"""`mesh demo`: three nodes and a mail sink on loopback, and what a snooper saw.

    a client -> alpha ==== bravo's remailer ==== charlie's remailer -> port 25: the sink

Everything is real: `mesh init`, `mesh export` and `mesh peers add` make the nodes in a
temporary folder; all run in this process, each behind a wire-tap (tap.py); the sink is
aiosmtpd, reached by the rules of port 25.  The demo's remailers are a few lines: each
takes a letter out of its Maildir, reads from the first line where to pass it, and hands
the rest to its own node.  First the links are idle, then the message goes through.

Last line on standard output: `demo: delivered 1 of 1; idle N, busy M cells/s a link`,
with exit code 0; anything else is exit code 1.  A signal that would end the process ends
the nodes and removes the folder first; then it is 130.
"""

import contextlib
import io
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mesh.errors import UnavailableError

if TYPE_CHECKING:
    import trio

    from mesh.cli.tap import Tap
    from mesh.node.node import Node

NAMES: Final = ("alpha", "bravo", "charlie")
CELLS_PER_SECOND: Final = 32
"""Enough cells for a picture in a few seconds."""
LINK_SECONDS: Final = 20.0
"""For the links to come up: a handshake takes 2 s, a lost race another 4."""
DELIVERY_SECONDS: Final = 30.0
FIRST_CELLS: Final = 8
"""Cells each way that show that a link is up."""
READER: Final = "reader@sink.example"
LETTER: Final = b"Subject: first light\r\n\r\n" + b"nobody saw this pass\r\n" * 1300
"""28 kB: a remailer's packet, eight cells."""
SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@click.command("demo")
def command() -> int:
    """Run three nodes on loopback, pass a message through them, show the wires."""
    import trio

    try:
        code = trio.run(_demo_until_a_signal)
    except BaseExceptionGroup as errors:
        if errors.split(BrokenPipeError)[1] is None:  # nobody reads what we say
            raise BrokenPipeError from errors
        raise
    if code is None:
        raise click.Abort
    return code


async def _demo_until_a_signal() -> int | None:
    """Give the exit code, None after a signal; whatever happens the folder is gone."""
    import trio

    code = None
    with (
        trio.open_signal_receiver(*SIGNALS) as signals,
        tempfile.TemporaryDirectory(prefix="mesh-demo-") as folder,
    ):
        async with trio.open_nursery() as nursery:

            async def heed() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(heed)
            code = await _demo(Path(folder))
            nursery.cancel_scope.cancel()
    return code


async def _demo(folder: Path) -> int:
    import trio

    from mesh.cli.tap import Tap
    from mesh.config import load
    from mesh.node.node import Node
    from mesh.node.pacing import Pacer

    tap = Tap()
    with _reserved_ports(1 + len(NAMES)) as (port, *ports), _sink(port) as sink:
        homes = {
            name: _make_node(folder, name, inner, tap.add(name, inner), sink.port)
            for name, inner in zip(NAMES, ports, strict=True)
        }
        _introduce(homes)
        nodes = [
            Node(load(home / "node.toml"), pacer=Pacer()) for home in homes.values()
        ]
        async with trio.open_nursery() as nursery:
            tap.start(nursery)
            stops = [await nursery.start(_run_node, node) for node in nodes]
            for name in NAMES[1:]:
                nursery.start_soon(_remail, homes[name])
            _say("three nodes run, and greet each other with three messages a link")
            idle, busy = await _watch(homes["alpha"], tap, sink)
            for stop in stops:
                stop.close()
            with trio.move_on_after(LINK_SECONDS):
                while not tap.is_quiet:  # noqa: ASYNC110  # a tap looks, nobody tells it
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
    delivered = sum(letter == LETTER for letter in sink.letters)
    _say(
        f"demo: delivered {delivered} of 1; "
        f"idle {idle:.0f}, busy {busy:.0f} cells/s a link"
    )
    return 0 if delivered == 1 and len(sink.letters) == 1 else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# the nodes


@contextlib.contextmanager
def _reserved_ports(count: int) -> Iterator[list[int]]:
    """Give ports that nobody else gets within: who says so may bind one once more."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            ports.append(int(sock.getsockname()[1]))
        yield ports


def _mesh(*args: str) -> str:
    """Run one of our own commands; returns what it printed."""
    from mesh.cli.main import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(args)
    if code:
        raise click.ClickException(f"mesh {args[0]} ended with {code}")
    return printed.getvalue()


def _make_node(folder: Path, name: str, inner: int, outer: int, sink: int) -> Path:
    """Make a node that is dialled at the port `outer`, the tap's, and has `inner`."""
    home = folder / name
    _mesh(
        "init", str(home), "--name", name, "--address", f"127.0.0.1:{outer}",
        "--remailer", f"mix@{name}.test",
    )  # fmt: skip
    changed = {
        "listen": f'["127.0.0.1:{inner}"]',
        "cells_per_second": str(CELLS_PER_SECOND),
        "routes": f'{{ "sink.example" = "127.0.0.1:{sink}" }}',
        "tick_seconds": "0.25",
    }
    toml = home / "node.toml"
    lines = toml.read_text().splitlines()
    for at, line in enumerate(lines):
        key = line.partition(" = ")[0]
        if key in changed:
            lines[at] = f"{key} = {changed[key]}"
    toml.write_text("\n".join(lines) + "\n")
    return home


def _introduce(homes: dict[str, Path]) -> None:
    """Give every node the others' descriptors, as operators do by mail."""
    for there, home in homes.items():
        file = home.parent / f"{there}.mesh"
        file.write_text(_mesh("export", "-c", str(home / "node.toml")))
    for here, home in homes.items():
        others = [name for name in homes if name != here]
        served = [arg for name in others for arg in ("--serves", f"mix@{name}.test")]
        files = [str(home.parent / f"{name}.mesh") for name in others]
        _mesh("peers", "add", "-c", str(home / "node.toml"), *served, *files)


async def _run_node(
    node: "Node", *, task_status: "trio.TaskStatus[trio.MemorySendChannel[int]]"
) -> None:
    """Run a node; started with the channel whose closing ends it."""
    import trio

    send, signals = trio.open_memory_channel[int](0)
    await node.run(signals, lambda: task_status.started(send))


# the mail


def _wrap(path: list[str], letter: bytes) -> bytes:
    """Put a letter into one envelope a remailer, the first outermost."""
    for address in reversed(path):
        letter = b"Pass-To: " + address.encode() + b"\r\n\r\n" + letter
    return letter


async def _remail(home: Path) -> None:
    """Be a remailer: pass on each letter of the Maildir as its first line says."""
    import trio

    new = home / "Maildir" / "new"
    while True:
        await trio.sleep(0.1)
        for path in new.glob("*") if new.is_dir() else ():
            head, _, rest = path.read_bytes().partition(b"\n\n")
            path.unlink()
            to = head.removeprefix(b"Pass-To: ").decode()
            content = rest.replace(b"\n", b"\r\n")
            await trio.to_thread.run_sync(_submit, home, to, content)


def _submit(home: Path, to: str, content: bytes) -> None:
    """Hand a message over as a remailer does, with the standard library's client."""
    import smtplib

    folder = os.open(home, os.O_PATH)
    try:  # a socket's path has at most 107 octets, wherever TMPDIR is
        with smtplib.LMTP(f"/proc/self/fd/{folder}/local.sock") as client:
            client.sendmail(f"mix@{home.name}.test", [to], content)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _sink(port: int) -> Any:
    """Run a mail server that keeps what it gets; UnavailableError without aiosmtpd."""
    try:
        from aiosmtpd.controller import Controller
    except ImportError as error:
        raise UnavailableError(
            "the demo's mail sink is not installed: pip install 'remailer-mesh[demo]'"
        ) from error

    class Sink(Controller):
        """Keeps the letters."""

        letters: list[bytes]

        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
            self.letters.append(envelope.original_content)
            return "250 ok"

    sink = Sink(None, hostname="127.0.0.1", port=port)
    sink.handler, sink.letters = sink, []
    sink.start()
    try:
        yield sink
    finally:
        sink.stop()


# the snooper


async def _watch(home: Path, tap: "Tap", sink: Any) -> tuple[float, float]:
    """Look at idle links, send, look again; returns cells a second of both looks."""
    import trio

    from mesh.cli.tap import LOOK_SECONDS

    links = len(NAMES) * (len(NAMES) - 1)  # directions
    with trio.move_on_after(LINK_SECONDS):
        # Two that dialled each other at once give one of their connections up.
        while (  # noqa: ASYNC110  # as above
            len(tap.wires(FIRST_CELLS)) != links or tap.connections != links // 2
        ):
            await trio.sleep(0.05)
    up = len(tap.wires(FIRST_CELLS)) // 2
    _say(f"{up} of {links // 2} links are up; nothing is sent")
    tap.look()
    await trio.sleep(LOOK_SECONDS)
    tap.look()
    started = trio.current_time()
    letter = _wrap(["mix@charlie.test", READER], LETTER)
    await trio.to_thread.run_sync(_submit, home, "mix@bravo.test", letter)
    _say("a message was handed to alpha: for bravo's remailer, charlie's, then port 25")
    with trio.move_on_after(DELIVERY_SECONDS):
        while not sink.letters:  # noqa: ASYNC110  # the sink is a thread of its own
            await trio.sleep(0.05)
        _say(f"the sink has it, {trio.current_time() - started:.1f} s later")
    await trio.sleep_until(started + LOOK_SECONDS)
    return _tell(tap)


def _tell(tap: "Tap") -> tuple[float, float]:
    """Draw what was on each wire, idle above busy, and say what that tells."""
    wires = tap.wires(FIRST_CELLS)
    rates: list[list[float]] = [[], []]
    odd = 0
    for number, link in enumerate(dict.fromkeys(link for _, link in wires), 1):
        _say(f"wire {number}")
        for wire in (wire for wire in wires if wire[1] == link):
            arrow = "->" if wire[0].startswith("to ") else "<-"
            for look, name in enumerate(("idle", "busy")):
                sight = tap.sight(look, wire)
                rates[look].append(sight.cells_per_second)
                odd += sight.odd_lengths
                _say(
                    f"  {name} {arrow} {tap.drawing(look, wire)}  "
                    f"{sight.cells_per_second:4.1f}/s, gaps {sight.gap_mean * 1e3:.0f} "
                    f"+- {sight.gap_spread * 1e3:.0f} ms"
                )
    _say("a mark is a tenth of a second: . no cell, else how many")
    _say(
        f"a snooper saw cells of one length ({odd} others), at instants that know no "
        "mail;\nthe message crossed two of these wires, one way each: which, and when?\n"
        "he saw besides who has links, and how fast they are; and at port 25 the letter,\n"
        "in clear where the other server has no STARTTLS, as this sink has none"
    )
    idle, busy = (sum(rate) / max(len(rate), 1) for rate in rates)
    return idle, busy
