# SPDX-License-Identifier: MIT
"""The example mesh in peers.d: whole, signed, and good at a day of its year."""

from datetime import UTC, datetime
from pathlib import Path

from mesh.core.clock import Clock
from mesh.core.directory import ToPeer, Us
from mesh.node.peers import Peers

FOLDER = Path(__file__).parent.parent / "peers.d"
DAY = datetime(2026, 12, 1, tzinfo=UTC).timestamp()


def test_the_example_mesh() -> None:
    peers = Peers(FOLDER, Us("yours", "main", {}))
    peers.poll()
    found = peers.snapshot
    assert found.mistakes == ()
    assert list(found.by_name) == ["alpha", "bravo", "charlie", "delta", "echo"]
    for name, listed in found.by_name.items():
        descriptor = listed.descriptor
        assert descriptor.valid_at(DAY)
        assert not listed.not_counted
        for address in descriptor.serves:
            assert found.directory.route(address) == ToPeer(name)
        for endpoint in descriptor.addresses:
            assert ".example.net:" in endpoint or "[2001:db8:" in endpoint
    echo = found.by_name["echo"].descriptor
    assert (echo.clock, echo.insecure) == (Clock.GREEDY, ("greedy clock",))
    assert found.by_name["delta"].descriptor.addresses == ()
    assert found.directory.route("anybody@bravo.example.net") == ToPeer("bravo")
