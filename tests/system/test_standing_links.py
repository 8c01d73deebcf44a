# SPDX-License-Identifier: MIT
"""What a standing link does not feel: a clock that is set, a disk that stands still.

libfaketime stands between the nodes and the machine's clock and says what is in a file.
The clocks that count running time go on, as they do where somebody sets the other one.
Between alpha and its disk stands faults.c.  The link goes through a wire that counts.
"""

import json
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mesh.core.cell import CELL_LEN
from mesh.core.control import CONTROL_NAME, Ask, Request, encode_request
from tests.system.client import Client
from tests.system.conftest import somebodys
from tests.system.counted import Proxy
from tests.system.faults import FailingDisk, build
from tests.system.nodes import NodeProcess, World, eventually

CELLS = 64
"""A second."""
SYNC_SECONDS = 2
JUMPS = {
    "+1h": "1:00:00 ahead of", "-2h": "2:00:00 behind",
    "+400d": "400 days, 0:00:00 ahead of", "-400d": "400 days, 0:00:00 behind",
}  # fmt: skip
"""And what a node says of it."""
SECONDS = 60.0
"""For what takes a handshake and more, on a machine that does much else."""


def library() -> str:
    """The library that Debian's faketime loads."""
    prefix = Path(somebodys("faketime", "faketime")).resolve().parent.parent
    (found,) = prefix.glob("lib/*/faketime/libfaketimeMT.so.1")
    return str(found)


def status(node: NodeProcess) -> dict[str, Any]:
    """What `mesh status --json` would print."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(node.home / "state" / CONTROL_NAME))
        asking.sendall(encode_request(Request(Ask.STATUS)))
        with asking.makefile("rb") as answer:
            told = json.loads(answer.read())["status"]
    assert isinstance(told, dict)
    return told


def is_up(node: NodeProcess, peer: NodeProcess) -> bool:
    links = {link["peer"]: link["up"] for link in status(node)["links"]}
    return bool(links[peer.name])


def doubts(node: NodeProcess, by: str) -> bool:
    """It says that the clock was set by so much; "": that it was not."""
    told = [line for line in status(node).get("notices", []) if "clock was set" in line]
    return bool(told) is bool(by) and all(f"to {by} " in line for line in told)


def is_called_at(node: NodeProcess, address: str) -> None:
    """Let its descriptor say that it is called there."""
    text, was = node.config.read_text(), f'address = "127.0.0.1:{node.port}"'
    assert was in text
    node.config.write_text(text.replace(was, f'address = "{address}"'))


def send(node: NodeProcess, to: str, text: bytes) -> None:
    with Client(node.socket) as client:
        assert client.send(to, text + b"\r\n") == 250


@dataclass
class Machine:
    """Two nodes with a paced link, its wire, and what stands between them and the machine."""

    world: World
    wire: Proxy
    disk: FailingDisk
    """Under alpha."""
    clock: Path
    """What libfaketime says."""

    def set_clock(self, offset: str) -> None:
        beside = self.clock.with_suffix(".new")
        beside.write_text(offset + "\n")
        beside.replace(self.clock)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    somebodys("gcc", "gcc")
    folder = tmp_path_factory.mktemp("machine")
    with Proxy() as wire, World(folder) as world:
        for name in ("alpha", "bravo", "charlie"):
            world.node(name, clock='"renewal"', cells_per_second=str(CELLS))
        alpha, bravo, _ = world.nodes
        # Bravo is called through the wire, and calls nobody.
        is_called_at(alpha, "")
        is_called_at(bravo, f"127.0.0.1:{wire.port}")
        wire.towards = bravo.port
        world.introduce()
        disk = FailingDisk(build(folder), folder / "faults", alpha.home)
        made = Machine(world, wire, disk, folder / "clock")
        made.set_clock("+0")
        env = {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(made.clock),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        for node in world.nodes:
            node.env = env
        both = f"{disk.env['LD_PRELOAD']} {env['LD_PRELOAD']}"
        alpha.env = env | disk.env | {"LD_PRELOAD": both}
        # Who is called first, or the caller would wait.  Charlie is down: its mail waits.
        world.start([bravo, alpha])
        up = partial(is_up, alpha, bravo)
        eventually("a link", SECONDS, lambda: up() and is_up(bravo, alpha))
        yield made
        for node in world.nodes:
            if node.process is not None:
                assert node.stop() == 0
                assert node.errors() == "mesh: ready\n"


def test_a_disk_that_stands_still_holds_up_no_cell(machine: Machine) -> None:
    """While one sync takes 2 s, cells go on both ways; the reply waits for the disk."""
    alpha, bravo, _ = machine.world.nodes
    calls = machine.wire.calls
    assert calls
    machine.disk.delay_syncs(SYNC_SECONDS)
    with Client(alpha.socket) as client:
        assert client.envelope("mix@bravo.test") == [250, 250]
        before = machine.disk.delayed
        client.raw(b"BDAT 6 LAST\r\nslow\r\n")
        eventually("a sync", SECONDS, lambda: machine.disk.delayed > before)
        began = Counter(machine.wire.octets)
        assert client.reply() == 250
        crossed = machine.wire.octets - began
    machine.disk.delay_syncs(0)
    # At least 2 s have passed.  The law's count for these is 128 each way, give or take
    # 11; a link that waited for the disk would have sent none.
    for way in ("out", "back"):
        assert crossed[way] > SYNC_SECONDS * CELLS * CELL_LEN / 2
    assert machine.wire.calls == calls
    assert bravo.arrived(1, SECONDS) == [b"slow\n"]


def test_a_clock_that_jumps_ends_nothing(machine: Machine) -> None:
    alpha, bravo, charlie = machine.world.nodes
    calls = machine.wire.calls
    was = [len(node.letters()) for node in (alpha, bravo)]
    send(bravo, "mix@charlie.test", b"waits")
    for offset, by in JUMPS.items():
        machine.set_clock(offset)
        for node in (alpha, bravo):
            eventually("a notice", SECONDS, partial(doubts, node, by))
        send(alpha, "mix@bravo.test", offset.encode())
        send(bravo, "mix@alpha.test", offset.encode())
    machine.set_clock("+0")
    for node, before in zip((alpha, bravo), was, strict=True):
        found = node.arrived(before + len(JUMPS), SECONDS)  # and no bounce
        assert {b"%b\n" % offset.encode() for offset in JUMPS} <= set(found)
    assert machine.wire.calls == calls
    charlie.start(wait=False)  # it calls bravo: nobody waits for the next try of a call
    for node in (alpha, bravo):
        eventually("no notice", SECONDS, partial(doubts, node, ""))
    assert charlie.arrived(1, SECONDS) == [b"waits\n"]
