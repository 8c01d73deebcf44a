# SPDX-License-Identifier: MIT
"""Nodes on a machine whose clock is set while they run: nothing ends, and nothing comes back.

libfaketime stands between the nodes and the machine's clock and says what is in a file.
The clocks that count running time go on, as they do where somebody sets the other one.
"""

import json
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mesh.core.control import CONTROL_NAME, Ask, Request, encode_request
from tests.system.client import Client
from tests.system.nodes import NodeProcess, World, eventually

Tool = Callable[[str, str], str]

JUMPS = ("+1h", "-2h", "+400d", "-400d")
SECONDS = 20.0


def library(program: str) -> str:
    """The library of Debian's faketime, which the program would load."""
    prefix = Path(program).resolve().parent.parent
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


def doubts(node: NodeProcess) -> bool:
    return any("clock was set" in line for line in status(node).get("notices", []))


def is_sure(node: NodeProcess) -> bool:
    return not doubts(node)


def connections(*nodes: NodeProcess) -> set[str]:
    """The established connections with one of these nodes' ports, as the kernel lists them."""
    ports = {f"{node.port:04X}" for node in nodes}
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, state = line.split()[:4]
        if state == "01" and {here[-4:], there[-4:]} & ports:
            found.add(f"{here} {there}")
    return found


def send(node: NodeProcess, to: str, text: bytes) -> None:
    with Client(node.socket) as client:
        assert client.send(to, text + b"\r\n") == 250


def test_a_clock_that_jumps_ends_nothing(world: World, tool: Tool) -> None:
    clock = world.folder / "clock"

    def set_clock(offset: str) -> None:
        beside = clock.with_suffix(".new")
        beside.write_text(offset + "\n")
        beside.replace(clock)

    env = {
        "LD_PRELOAD": library(tool("faketime", "faketime")),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    set_clock("+0")
    for name in ("alpha", "bravo", "charlie"):
        paced = {"clock": '"renewal"', "cells_per_second": "64"}
        world.node(name, **paced).env = env
    alpha, bravo, charlie = world.nodes
    world.introduce()
    world.start([alpha, bravo])  # charlie is down: mail for it waits
    eventually("a link", SECONDS, lambda: is_up(alpha, bravo) and is_up(bravo, alpha))
    send(alpha, "mix@charlie.test", b"waits")
    # Both may have dialled: one of two links stays.
    eventually("one link", SECONDS, lambda: len(connections(alpha, bravo)) == 2)
    held = connections(alpha, bravo)
    for offset in JUMPS:
        set_clock(offset)
        for node in (alpha, bravo):
            eventually("a notice", SECONDS, partial(doubts, node))
        send(alpha, "mix@bravo.test", offset.encode())
        send(bravo, "mix@alpha.test", offset.encode())
    found = [b"%b\n" % offset.encode() for offset in JUMPS]
    assert sorted(bravo.arrived(len(JUMPS))) == sorted(found)
    assert sorted(alpha.arrived(len(JUMPS))) == sorted(found)  # and no bounce
    assert held <= connections(alpha, bravo)
    set_clock("+0")
    for node in (alpha, bravo):
        eventually("no notice", SECONDS, partial(is_sure, node))
    world.start([charlie])
    assert charlie.arrived(1, SECONDS) == [b"waits\n"]
    assert held <= connections(alpha, bravo)
    for node in world.nodes:
        assert node.stop() == 0
        assert node.errors() == "mesh: ready\n"
