# SPDX-License-Identifier: MIT
"""Half a node that is an exit: its queue and port 25, against servers on loopback.

Real time, since the servers have threads of their own; ticks are short.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from mesh.core.pool import Manner, Ticks
from mesh.core.reply import Reply
from mesh.node.mx import Lookup, Place
from mesh.node.outbound import Outbound
from mesh.node.visit import Cargo, Visit
from tests.harness import FixedEntropy, Half, half, until

US = "mix@alpha.test"
WHO = "who@x.test"
TICK = 0.05
EHLO = b"250-x\r\n250-PIPELINING\r\n250 SIZE\r\n"


class Routes(dict[str, str]):
    """Who is not a key goes outside, as long as there is a domain."""

    smarthost = False

    def get(self, address: str, default: object = None) -> str | None:  # type: ignore[override]
        domain = address.rpartition("@")[2]
        if address in self:
            return self[address]
        return ("exit:" if self.smarthost else f"exit:{domain}") if domain else None


@asynccontextmanager
async def exit_node(
    folder: Path,
    places: Mapping[str, list[Place] | Reply] | Lookup,
    *,
    tick: float = TICK,
    manner: Manner | None = None,
    **options: object,
) -> AsyncIterator[tuple[Half, Outbound]]:
    async def of(domain: str) -> list[Place] | Reply:
        return (
            await places.places(domain)
            if isinstance(places, Lookup)
            else places[domain]
        )

    routes = Routes({US: "local:0"})
    routes.smarthost = bool(options.get("smarthost"))
    async with (
        half(folder, "alpha", routes, manner=manner) as alpha,
        trio.open_nursery() as nursery,
    ):
        entropy = FixedEntropy()
        outbound = Outbound(
            qmgr=alpha.qmgr,
            places=of,
            ticks=Ticks(tick, entropy),
            entropy=entropy,
            helo="alpha.test",
            **options,  # type: ignore[arg-type]
        )
        nursery.start_soon(outbound.run)
        yield alpha, outbound
        nursery.cancel_scope.cancel()


def here(*ports: int) -> list[Place]:
    return [Place("mx.elsewhere.test", "127.0.0.1", port) for port in ports]


async def gone(alpha: Half, count: int = 0) -> None:
    """Wait until so many records are left."""
    await until(lambda: alpha.spool.waiting == count, 15)


async def stored(alpha: Half, content: bytes, *to: str, rp: str = US) -> None:
    replies = alpha.submit(content, *to, reverse_path=rp)
    await until(lambda: replies, 15)
    assert replies[0].code == 250


async def tick_of(outbound: Outbound) -> None:
    """One tick now, and the end of all that it began."""
    async with trio.open_nursery() as nursery:
        await outbound._tick(nursery)


def outside(alpha: Half) -> int:
    """Messages that wait for x.test, or for the pool's tick."""
    return len(alpha.qmgr.pool) + len(alpha.qmgr.queue("exit:x.test").ready)


def visit_of(alpha: Half, cargo: Cargo | None = None) -> Visit:
    """What a visit that begins now would carry, of all that the pool has."""
    alpha.tick()
    return Visit(alpha.qmgr, "exit:x.test", lambda _: False, cargo or Cargo())
