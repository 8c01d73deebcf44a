# SPDX-License-Identifier: MIT
"""Real nodes on a bad network, and one whose pacer dies: mail gets through, once."""

import os
import signal
import time
from pathlib import Path

import pytest

from mesh.core.cell import CELL_LEN
from tests.system import nodes
from tests.system.client import Client
from tests.system.nodes import NodeProcess, World, eventually, find_tool
from tests.system.proxy import WINDOW, Proxy
from tests.system.test_control import status

RATE = 64
"""Cells a second: a second here is a minute of an ordinary link."""
CONTENT = b"0123456789abcd\r\n" * 1500
"""24 kB: six cells, and more than the window of the proxy."""


class Post:
    """What was handed over at each node, all of it for the other."""

    def __init__(self, one: NodeProcess, other: NodeProcess) -> None:
        self.ways = (one, other), (other, one)
        self.count = 0

    def send(self) -> None:
        """Another message each way."""
        for here, there in self.ways:
            with Client(here.socket) as client:
                content = b"%d\r\n" % self.count + CONTENT
                assert client.send(f"mix@{there.name}.test", content) == 250
        self.count += 1

    def all_there(self) -> None:
        """Everything has come, and once."""
        for _, there in self.ways:
            letters = there.arrived(self.count, 30)
            numbers = sorted(int(letter.split(b"\n")[0]) for letter in letters)
            assert numbers == list(range(self.count))
            assert all(len(letter) > len(CONTENT) // 16 * 15 for letter in letters)


def pacer_of(node: NodeProcess) -> int:
    assert node.process is not None
    pid = node.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def one_link(node: NodeProcess) -> bool:
    return bool(status(node)["links"][0]["up"])


def pass_by(seconds: float) -> None:
    """Wait until so much time of the network has passed."""
    until = time.monotonic() + seconds
    eventually("time", seconds + 30, lambda: time.monotonic() > until)


def behind(proxy: Proxy, node: NodeProcess) -> None:
    """Let peers dial the proxy."""
    text = node.config.read_text()
    ours = f'address = "127.0.0.1:{node.port}"'
    theirs = f'address = "127.0.0.1:{proxy.add(node.port)}"'
    assert text.count(ours) == 1
    node.config.write_text(text.replace(ours, theirs))


BOOT_ID = "/proc/sys/kernel/random/boot_id"
CAN_CLONE = os.geteuid() == 0 and find_tool("unshare") is not None


def with_a_boot_of_its_own(folder: Path) -> str:
    """Write a program that is ours on a machine whose boot a test may change."""
    boot, program = folder / "boot", folder / "mesh-elsewhere"
    boot.write_text("one\n")
    inner = f'mount --bind {boot} {BOOT_ID} && exec {nodes.MESH} "$@"'
    program.write_text(f"#!/bin/sh\nexec unshare -m sh -c '{inner}' sh \"$@\"\n")
    program.chmod(0o700)
    return str(program)


def test_mail_crosses_a_bad_network_and_the_end_of_pacers_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the end one pacer is killed, and the other finds itself in a clone."""
    with Proxy() as proxy:
        for name in ("alpha", "bravo"):
            node = world.node(name, clock='"renewal"', cells_per_second=str(RATE))
            behind(proxy, node)
        world.introduce()
        alpha, bravo = world.nodes
        bravo.start()
        if CAN_CLONE:
            monkeypatch.setattr(nodes, "MESH", with_a_boot_of_its_own(world.folder))
        alpha.start()
        post = Post(alpha, bravo)
        post.send()
        post.all_there()
        eventually("one connection", 30, lambda: proxy.open == 1)
        made = proxy.connections
        in_pieces_and_late(proxy, post)
        not_read_for_a_while(proxy, post)
        half_as_wide(proxy, post)
        assert (proxy.connections, proxy.open) == (made, 1)  # nobody gave up

        pacers = [pacer_of(node) for node in world.nodes]
        os.kill(pacers[1], signal.SIGKILL)
        if CAN_CLONE:
            (world.folder / "boot").write_text("two\n")
        post.send()
        eventually("the end", 30, lambda: proxy.open == 0 or proxy.connections > made)
        assert status(bravo)["state"] in ("ok", "down")  # it answers all the while
        post.all_there()
        assert proxy.connections > made
        eventually("links", 30, lambda: one_link(alpha) and one_link(bravo))
        assert pacer_of(bravo) != pacers[1]
        assert (pacer_of(alpha) != pacers[0]) is CAN_CLONE
    assert alpha.errors() == bravo.errors() == "mesh: ready\n"


def in_pieces_and_late(proxy: Proxy, post: Post) -> None:
    proxy.pieces, proxy.late = 97, 0.3
    post.send()
    pass_by(0.7)
    proxy.smooth()
    post.all_there()


def not_read_for_a_while(proxy: Proxy, post: Post) -> None:
    proxy.held = True
    post.send()
    pass_by(1.2)
    proxy.held = False
    since = time.monotonic()
    post.all_there()
    # What would have left meanwhile did not: the kernel held little more than
    # the reader's window, and no cell was sealed to wait behind it.
    assert proxy.octets(since, since + 0.1) < 2 * (2 * WINDOW + 12 * CELL_LEN)


def half_as_wide(proxy: Proxy, post: Post) -> None:
    proxy.narrow = RATE * CELL_LEN / 2
    post.send()
    pass_by(0.7)
    proxy.smooth()
    post.all_there()
