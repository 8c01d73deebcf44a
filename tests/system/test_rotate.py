# SPDX-License-Identifier: MIT
"""`mesh rotate` and `mesh withdraw` beside real processes that carry mail."""

from tests.system.client import Client
from tests.system.nodes import NodeProcess, World, ask_here, eventually, mesh, mesh_here

BRAVO = "mix@bravo.test"


def send(node: NodeProcess, first: int, count: int) -> None:
    with Client(node.socket) as client:
        for number in range(first, first + count):
            assert client.send(BRAVO, b"%d\r\n" % number) == 250


def notes(node: NodeProcess) -> str:
    """What `mesh status` says besides."""
    return ask_here("status", "-c", str(node.config)).err


def test_a_rotation_and_a_kill_lose_nothing(pair: World) -> None:
    """Bravo does nothing; alpha is killed before, while and after it takes the key up."""
    alpha, bravo = pair.nodes
    pair.start()
    send(alpha, 0, 50)
    bravo.arrived(50)
    send(alpha, 50, 50)
    mesh("rotate", "-c", str(alpha.config))
    send(alpha, 100, 50)
    alpha.kill()
    alpha.start()
    send(alpha, 150, 50)
    eventually("both keys", 5, lambda: "still opens" in notes(alpha))
    alpha.kill()
    mesh_here("rotate", "-c", str(alpha.config), code=75)
    alpha.start()
    send(alpha, 200, 50)
    letters = bravo.arrived(250, 40)
    assert sorted(map(int, letters)) == list(range(250))
    assert bravo.stop() == 0
    bravo.start()  # and who was away finds it
    send(alpha, 250, 1)
    assert sorted(map(int, bravo.arrived(251, 40))) == list(range(251))
    left = sorted(path.name for path in (alpha.home / "state").glob("link*"))
    assert left == ["link-before.key", "link.key"]


def test_who_leaves_says_so_to_the_other(pair: World) -> None:
    alpha, bravo = pair.nodes
    pair.start()
    send(alpha, 0, 1)
    bravo.arrived(1)
    mesh("withdraw", "-c", str(alpha.config), "--in", "5")
    eventually("here", 5, lambda: "this node leaves the mesh" in notes(alpha))
    eventually("there", 10, lambda: "alpha leaves the mesh" in notes(bravo))
    mesh_here("withdraw", "-c", str(alpha.config), "--cancel")
    eventually("nothing", 10, lambda: "leaves" not in notes(alpha) + notes(bravo))
    send(alpha, 1, 1)
    bravo.arrived(2)
