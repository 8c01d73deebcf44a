# SPDX-License-Identifier: MIT
"""Nodes made by our own commands, run in this process under fake time."""

import contextlib
import io
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from mesh.cli.main import main
from mesh.config import load
from mesh.node.node import Node
from tests.node.test_submission import Client


def mesh(*args: str) -> str:
    """Run one of our commands that must succeed; returns what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(args) == 0
    return printed.getvalue()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Home:
    """A node's folder and, while it runs, its node."""

    def __init__(
        self, folder: Path, name: str, deliver: str = "maildir:Maildir"
    ) -> None:
        self.name = name
        self.path = folder / name
        self.port = free_port()
        self.toml = self.path / "node.toml"
        self.socket = self.path / "local.sock"
        self.maildir = self.path / "Maildir"
        self.node: Node
        mesh(
            "init", str(self.path), "--name", name,
            "--address", f"127.0.0.1:{self.port}",
            "--remailer", f"mix@{name}.test={deliver}",
        )  # fmt: skip
        self.set(listen=f'["127.0.0.1:{self.port}"]', exit="false")

    def set(self, **values: str) -> None:
        text = self.toml.read_text()
        for key, value in values.items():
            text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
            assert count == 1
        self.toml.write_text(text)

    def deliver(self, way: str) -> None:
        """Give mail for the remailer another way out."""
        text = self.toml.read_text()
        self.toml.write_text(text.replace('"maildir:Maildir"', f'"{way}"'))

    def add(self, *others: "Home") -> None:
        for other in others:
            file = self.path / f"{other.name}.asc"
            file.write_text(mesh("export", "-c", str(other.toml)))
            mesh(
                "peers", "add", "-c", str(self.toml),
                "--serves", f"mix@{other.name}.test", str(file),
            )  # fmt: skip

    def remove(self, other: "Home") -> None:
        mesh("peers", "remove", "-c", str(self.toml), other.name)

    def make(self) -> Node:
        self.node = Node(load(self.toml), pacer=None)
        return self.node

    def found(self) -> list[bytes]:
        return sorted(p.read_bytes() for p in (self.maildir / "new").glob("*"))

    def up(self, other: "Home") -> bool:
        peer = self.node._exchange.peers.get(other.name)
        return peer is not None and peer.up

    async def submit(self, to: str, content: bytes = b"hello\r\n") -> list[int]:
        """Hand a message over; the codes of RCPT and of its octets."""
        stream = await trio.open_unix_socket(str(self.socket))
        async with stream:
            client = Client(stream)
            await client.code()
            await client.say(b"LHLO x\r\n")
            await client.say(b"MAIL FROM:<>\r\n")
            codes = await client.say(b"RCPT TO:<%s>\r\n" % to.encode())
            return codes + await client.say(
                b"BDAT %d LAST\r\n%s" % (len(content), content)
            )


@asynccontextmanager
async def running(
    *homes: Home,
) -> AsyncIterator[list[trio.MemorySendChannel[int]]]:
    """Run nodes; gives what their signals come from.  All are ended at the end."""
    async with trio.open_nursery() as nursery:
        sends = [await nursery.start(_run, home) for home in homes]
        yield sends
        for send in sends:
            send.close()


async def _run(
    home: Home, task_status: trio.TaskStatus[trio.MemorySendChannel[int]]
) -> None:
    send, signals = trio.open_memory_channel[int](0)
    await home.make().run(signals, lambda: task_status.started(send))
