# SPDX-License-Identifier: MIT
"""Two exchanges, each on a spool of its own, joined by fake wires."""

from pathlib import Path

import trio

from mesh.core.clock import Clock
from mesh.core.reply import Reply
from mesh.node.qmgr import STORED
from tests.harness import Half, Patience, connect, half, until

ROUTES = {"mix@bravo": "local:0", "mix@alpha": "alpha", "b@bravo": "local:1"}


def alpha_routes() -> dict[str, str]:
    return {"mix@bravo": "bravo", "b@bravo": "bravo", "mix@alpha": "local:0"}


async def test_a_message_crosses_is_stored_and_forgotten(
    tmp_path: Path, patience: Patience
) -> None:
    async with (
        half(tmp_path, "alpha", alpha_routes()) as alpha,
        half(tmp_path, "bravo", dict(ROUTES)) as bravo,
        trio.open_nursery() as nursery,
    ):
        await connect(nursery, alpha, bravo)
        replies = alpha.submit(b"hello\r\n", "mix@bravo")
        await until(lambda: bravo.spool.waiting)
        assert replies == [STORED]
        await until(lambda: not alpha.spool.waiting)
        assert await bravo.arrived() == [b"hello\r\n"]
        nursery.cancel_scope.cancel()
