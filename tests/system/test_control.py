# SPDX-License-Identifier: MIT
"""What an operator asks of running nodes: each verb by the real program at least once.

Where the same is asked again and again, until it holds, no process is started for it.
"""

import json
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.system.client import Client
from tests.system.nodes import (
    MESH,
    NodeProcess,
    World,
    ask_here,
    eventually,
    mesh,
    mesh_here,
)

Tool = Callable[[str, str], str]
BRAVO = "mix@bravo.test"


def status(node: NodeProcess, code: int | None = None) -> dict[str, Any]:
    said = ask_here("status", "--json", "-c", str(node.config))
    assert code in (None, said.code), said
    told = json.loads(said.out)
    assert isinstance(told, dict)
    return told


def up(node: NodeProcess) -> bool:
    return ask_here("status", "-c", str(node.config)).code == 0


def test_status_tells_what_is_down_and_why(pair: World) -> None:
    alpha, bravo = pair.nodes
    assert "node not running" in mesh("status", "-c", str(alpha.config), code=69)
    assert status(alpha, 69)["state"] == "down"
    alpha.start()
    assert alpha.home.joinpath("state/control.sock").stat().st_mode & 0o777 == 0o600
    eventually("a reason", 5, lambda: "port" in status(alpha, 69)["links"][0]["reason"])
    with Client(alpha.socket) as client:
        assert client.send(BRAVO, b"waits\r\n") == 250
    told = status(alpha, 69)
    assert told == {
        "schema": 1,
        "name": "alpha",
        "state": "down",
        "links": [
            {
                "peer": "bravo",
                "up": False,
                "reason": told["links"][0]["reason"],
                "clock": "greedy",
                "cells_per_second": 1.0,
                "insecure": ["greedy clock"],
            }
        ],
        "queue": {"waiting": 0, "deferred": 0, "corrupt": 0},
    }
    bravo.start()
    eventually("a link", 15, lambda: up(alpha) and up(bravo))
    assert status(alpha, 0)["links"][0]["up"] is True
    screen = mesh("status", "-c", str(alpha.config)).splitlines()
    assert screen[0] == "alpha: ok, 1 of 1 links up"
    assert len(screen) <= 24
    assert alpha.stop() == 0
    assert not alpha.home.joinpath("state/control.sock").exists()


def test_ping(pair: World) -> None:
    alpha, bravo = pair.nodes
    pair.start()
    eventually("a link", 15, lambda: up(alpha))
    assert "bravo: up, answered in" in mesh("ping", "-c", str(alpha.config), "bravo")
    assert "no such peer" in mesh_here(
        "ping", "-c", str(alpha.config), "carol", code=67
    )
    bravo.kill()
    eventually("no link", 15, lambda: not up(alpha))
    assert "no link" in mesh_here("ping", "-c", str(alpha.config), "bravo", code=69)
    assert bravo.home.joinpath("state/control.sock").exists()  # nobody answers on it
    assert "node not running" in mesh_here("status", "-c", str(bravo.config), code=69)
    bravo.start()
    eventually("a link", 15, lambda: up(bravo))


def test_swaks_through_a_pipe(pair: World, tool: Tool) -> None:
    program = tool("swaks", "swaks")
    pair.start()
    alpha, bravo = pair.nodes

    def swaks(to: str, *options: str) -> int:
        command = f"{MESH} connect -c {alpha.config} bravo"
        return subprocess.run(
            [program, "--pipe", command, "--to", to, "--from", "x@y.test", *options],
            check=False, capture_output=True, timeout=60,
        ).returncode  # fmt: skip

    assert swaks(BRAVO, "--body", "by hand") == 0
    (letter,) = bravo.arrived(1)
    assert b"\nby hand\n" in letter
    assert swaks("who@example.org") == 24  # swaks: no recipient was accepted
    assert swaks("mix@alpha.test") == 24
    assert up(alpha)


def talk(node: NodeProcess, said: bytes, code: int = 0) -> bytes:
    done = subprocess.run(
        [MESH, "connect", "-c", str(node.config), "bravo"],
        check=False, input=said, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done
    return done.stdout


def test_connect_by_hand(pair: World) -> None:
    pair.start()
    alpha, bravo = pair.nodes
    said = talk(alpha, b"XYZZY\r\nTURN\r\nVRFY x\r\nQUIT\r\n").splitlines()
    assert [line[:3] for line in said] == [b"220", b"500", b"502", b"252", b"221"]
    mail = b"MAIL FROM:<>\r\nRCPT TO:<mix@bravo.test>\r\n"
    assert b"\n354 " in talk(alpha, mail + b"DATA\r\nhalf", 69)
    assert talk(alpha, mail + b"BDAT 6 LAST\r\nwhole\nQUIT\r\n").count(b"\n554 ") == 1
    assert b"\n221 " in talk(alpha, mail + b"BDAT 7 LAST\r\nwhole\r\nQUIT\r\n")
    assert bravo.arrived(1) == [b"whole\n"]
    assert talk(alpha, b"BDAT x\r\n", 69).splitlines()[-1][:3] == b"501"


def test_connect_without_a_link_waits_and_says_why(pair: World) -> None:
    alpha, bravo = pair.nodes
    assert talk(alpha, b"", 69) == b""
    alpha.start()
    with subprocess.Popen(
        [MESH, "connect", "-c", str(alpha.config), "bravo"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as waiting:  # fmt: skip
        time.sleep(0.5)
        bravo.start()
        said, _ = waiting.communicate(b"QUIT\r\n", timeout=30)
    assert waiting.returncode == 0
    assert said.endswith(b"221 bye\r\n")


def test_a_stopping_node_ends_a_dialogue(pair: World) -> None:
    pair.start()
    alpha = pair.nodes[0]
    with subprocess.Popen(
        [MESH, "connect", "-c", str(alpha.config), "bravo"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as open_:  # fmt: skip
        assert open_.stdout is not None
        assert open_.stdout.readline()[:4] == b"220 "
        started = time.monotonic()
        assert alpha.stop() == 0
        assert time.monotonic() - started < 10
        assert open_.stdout.readline()[:4] == b"421 "
        assert open_.wait(5) == 69


def test_queue(pair: World) -> None:
    alpha = pair.nodes[0]
    assert "node not running" in mesh_here("queue", "-c", str(alpha.config), code=69)
    alpha.start()
    with Client(alpha.socket) as client:
        assert client.send(BRAVO, b"waits\r\n") == 250
    told = json.loads(mesh_here("queue", "--json", "-c", str(alpha.config)))
    assert told["schema"] == 1
    assert told["waiting"] == 0  # counts change on the node's ticks only
    assert alpha.stop() == 0
    alpha.start()
    told = json.loads(mesh("queue", "-c", str(alpha.config), "--json"))
    assert (told["waiting"], told["peers"], told["deferred"]) == (1, 1, 0)
    assert mesh("queue", "retry", "-c", str(alpha.config)).startswith("done: ")
    dropped = ("queue", "drop", "-c", str(alpha.config))
    assert "name what to drop" in mesh_here(*dropped, code=64)
    assert "--yes" in mesh_here(*dropped, "--unrouted", code=64)
    mesh_here("peers", "remove", "-c", str(alpha.config), "bravo")
    eventually("bravo is left", 10, lambda: up(alpha))
    assert not status(alpha, 0)["links"]
    for type_ in (mesh, mesh_here):
        said = type_(*dropped, "--unrouted", "--yes")
        assert said == "done: unrouted mail is dropped\n"
    assert alpha.stop() == 0
    alpha.start()
    told = json.loads(mesh_here("queue", "-c", str(alpha.config), "--json"))
    assert (told["waiting"], told["unrouted"]) == (0, 0)


def test_removed_peers_link_ends_at_once_and_hang_up_adopts(pair: World) -> None:
    alpha, bravo = pair.nodes
    pair.start()
    eventually("a link", 15, lambda: up(alpha) and up(bravo))
    mesh_here("peers", "remove", "-c", str(alpha.config), "bravo")
    eventually("bravo hears no more", 2, lambda: not up(bravo))
    assert status(alpha, 0)["links"] == []


def test_nonsense_on_the_control_socket_hurts_nobody(world: World) -> None:
    alpha = world.node("alpha")
    alpha.start()
    for octets in (b"", b"\n", b"x" * 5000, b'{"ask":"x"}\n'):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(alpha.home / "state" / "control.sock"))
            sock.sendall(octets)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(5)
            answer = sock.recv(4096)
        assert b'"ok":false' in answer if octets else not answer
        assert status(alpha, 0)["state"] == "ok"
    assert alpha.errors() == "mesh: ready\n"
