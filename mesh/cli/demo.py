# SPDX-License-Identifier: MIT
"""`mesh demo`: two nodes on loopback, a message through them, what a wire-tap saw.

Everything is real: `mesh init`, `mesh export` and `mesh peers add` make the nodes in
a temporary folder, both run in this process, and a tap between them counts what
passes.  First the link is idle, then a message goes through it.  The tap sees cells,
all of one length, at the clock's instants, in both halves alike.

Last line on standard output: `demo: delivered 1 of 1; idle N, busy M cells/s a link`,
with exit code 0; anything else is exit code 1.
"""

import contextlib
import io
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    import trio

    from mesh.node.node import Node

CELLS_PER_SECOND: Final = 32
"""Enough cells for a picture in a few seconds."""
LOOK_SECONDS: Final = 5.0
"""Of idle link, and again of a link with mail."""
LINK_SECONDS: Final = 20.0
"""For the link to come up: a handshake takes 2 s, a lost race another 4."""
DELIVERY_SECONDS: Final = 30.0
COLUMNS: Final = 50
"""Of the drawing: one a tenth of a second."""
RECIPIENT: Final = "mix@bravo.test"
CONTENT: Final = b"Subject: first light\r\n\r\n" + b"nobody saw this pass\r\n" * 1500
"""33 kB: about a remailer's packet, nine cells."""


@click.command("demo")
def command() -> int:
    """Run two nodes on loopback, send a message through them, show the wire."""
    import trio

    with tempfile.TemporaryDirectory(prefix="mesh-demo-") as folder:
        return trio.run(_demo, Path(folder))


async def _demo(folder: Path) -> int:
    import trio

    from mesh.config import load
    from mesh.node.node import Node

    tap = _Tap()
    homes = {name: _make_node(folder, name, tap) for name in ("alpha", "bravo")}
    _introduce(homes)
    nodes = [Node(load(home / "node.toml")) for home in homes.values()]
    async with trio.open_nursery() as nursery:
        tap.start(nursery)
        stops = [await nursery.start(_run_node, node) for node in nodes]
        _say("two nodes run; they shake hands: three messages of 4,096 octets")
        delivered = await _watch(homes, tap)
        for stop in stops:
            stop.close()
        with trio.move_on_after(LINK_SECONDS):
            await tap.quiet()
        nursery.cancel_scope.cancel()
    idle, busy = tap.rate(0), tap.rate(1)
    _say(
        f"demo: delivered {delivered} of 1; idle {idle:.0f}, busy {busy:.0f} cells/s a link"
    )
    return 0 if delivered else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _mesh(*args: str) -> str:
    """Run one of our own commands; returns what it printed."""
    from mesh.cli.main import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(args)
    if code:
        raise click.ClickException(f"mesh {args[0]} ended with {code}")
    return printed.getvalue()


def _make_node(folder: Path, name: str, tap: "_Tap") -> Path:
    """Make a node that is dialled at the tap's port and listens at another."""
    home, inner = folder / name, _free_port()
    outer = tap.add(inner)
    _mesh(
        "init", str(home), "--name", name, "--address", f"127.0.0.1:{outer}",
        "--remailer", f"mix@{name}.test",
    )  # fmt: skip
    toml = home / "node.toml"
    lines = toml.read_text().splitlines()
    changed = {
        "listen": f'["127.0.0.1:{inner}"]',
        "cells_per_second": str(CELLS_PER_SECOND),
    }
    for at, line in enumerate(lines):
        key = line.partition(" = ")[0]
        if key in changed:
            lines[at] = f"{key} = {changed[key]}"
    toml.write_text("\n".join(lines) + "\n")
    return home


def _introduce(homes: dict[str, Path]) -> None:
    for name, home in homes.items():
        for other, there in homes.items():
            if other != name:
                file = home / f"{other}.mesh"
                file.write_text(_mesh("export", "-c", str(there / "node.toml")))
                _mesh(
                    "peers", "add", "-c", str(home / "node.toml"),
                    "--serves", f"mix@{other}.test", str(file),
                )  # fmt: skip


async def _run_node(
    node: "Node", *, task_status: "trio.TaskStatus[trio.MemorySendChannel[int]]"
) -> None:
    """Run a node; started with the channel whose closing ends it."""
    import trio

    send, signals = trio.open_memory_channel[int](0)
    await node.run(signals, lambda: task_status.started(send))


async def _watch(homes: dict[str, Path], tap: "_Tap") -> int:
    """Look at the idle link, send, look again; returns how many were delivered."""
    import trio

    with trio.move_on_after(LINK_SECONDS):
        await tap.busy_with(cells=6)
    tap.look()
    await trio.sleep(LOOK_SECONDS)
    _say("idle   " + tap.drawing(0))
    tap.look()
    started = trio.current_time()
    await trio.to_thread.run_sync(_submit, homes["alpha"] / "local.sock")
    new = homes["bravo"] / "Maildir" / "new"
    found: list[Path] = []
    with trio.move_on_after(DELIVERY_SECONDS):
        while not found:
            await trio.sleep(0.05)
            found = list(new.glob("*"))
    took = trio.current_time() - started
    await trio.sleep_until(started + LOOK_SECONDS)
    _say("busy   " + tap.drawing(1))
    same = bool(found) and found[0].read_bytes() == CONTENT.replace(b"\r\n", b"\n")
    if same:
        _say(f"bravo's Maildir has the same {len(CONTENT):,} octets after {took:.1f} s")
        _say(
            "each mark is a tenth of a second of one direction: . no cell, 1 to 9 cells"
        )
        _say(
            "all cells have one length; when they left was drawn before there was mail"
        )
    return int(same)


def _submit(path: Path) -> None:
    """Hand the message over as a remailer does, with the standard library's client."""
    import smtplib

    class Client(smtplib.LMTP):
        """LMTP over the local socket."""

    with Client(str(path)) as client:
        client.sendmail("mix@alpha.test", [RECIPIENT], CONTENT)


class _Tap:
    """Forwards connections and notes when how many octets passed, as a snooper would."""

    def __init__(self) -> None:
        self._ports: list[tuple[socket.socket, int]] = []
        self._seen: list[tuple[float, int, int]] = []
        self._looks: list[float] = []
        self._open = 0

    def add(self, inner: int) -> int:
        """Listen on a port that leads to `inner`."""
        sock = socket.create_server(("127.0.0.1", 0))
        self._ports.append((sock, inner))
        return int(sock.getsockname()[1])

    def start(self, nursery: "trio.Nursery") -> None:
        """Begin to forward."""
        import trio

        for sock, inner in self._ports:
            sock.setblocking(False)
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
            nursery.start_soon(self._serve, listener, inner)

    async def _serve(self, listener: "trio.SocketListener", inner: int) -> None:
        import trio

        async def forward(near: trio.SocketStream) -> None:
            self._open += 1
            try:
                far = await trio.open_tcp_stream("127.0.0.1", inner)
                async with near, far, trio.open_nursery() as nursery:
                    nursery.start_soon(self._copy, near, far, 0, nursery)
                    nursery.start_soon(self._copy, far, near, 1, nursery)
            except OSError:
                pass  # the node behind is not there yet: the dialler comes again
            finally:
                self._open -= 1

        await trio.serve_listeners(forward, [listener])

    async def _copy(
        self,
        source: "trio.SocketStream",
        target: "trio.SocketStream",
        direction: int,
        nursery: "trio.Nursery",
    ) -> None:
        import trio

        with contextlib.suppress(trio.BrokenResourceError):
            async for data in source:
                self._seen.append((trio.current_time(), direction, len(data)))
                await target.send_all(data)
        nursery.cancel_scope.cancel()

    async def busy_with(self, cells: int) -> None:
        """Return when so many cells have passed each way."""
        import trio

        from mesh.core.cell import CELL_LEN

        while any(  # noqa: ASYNC110  # a tap looks, it is not told
            sum(octets for _, way, octets in self._seen if way == direction)
            < cells * CELL_LEN
            for direction in (0, 1)
        ):
            await trio.sleep(0.05)

    async def quiet(self) -> None:
        """Return when no connection is left."""
        import trio

        while self._open:  # noqa: ASYNC110
            await trio.sleep(0.05)

    def look(self) -> None:
        """Begin another look."""
        import trio

        self._looks.append(trio.current_time())

    def _window(self, look: int) -> list[tuple[float, int]]:
        start = self._looks[look]
        return [
            (at - start, octets)
            for at, direction, octets in self._seen
            if direction == 0 and 0 <= at - start < LOOK_SECONDS
        ]

    def rate(self, look: int) -> float:
        """Cells a second of one direction in that look."""
        from mesh.core.cell import CELL_LEN

        return sum(octets for _, octets in self._window(look)) / CELL_LEN / LOOK_SECONDS

    def drawing(self, look: int) -> str:
        """One mark a tenth of a second: how many cells passed."""
        from mesh.core.cell import CELL_LEN

        counts = [0.0] * COLUMNS
        for at, octets in self._window(look):
            counts[int(at / LOOK_SECONDS * COLUMNS)] += octets / CELL_LEN
        return "".join("." if not c else str(min(round(c), 9)) for c in counts)
