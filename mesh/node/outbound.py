# SPDX-License-Identifier: MIT
"""Port 25: mail for addresses that no node serves, to their mail servers.

    tick     what the pool lets go may leave, nothing in an alarm      core/pool.py
             the domains with mail whose turn it is: a visit each      core/turns.py
    visit    the mail that was ready at the tick                       visit.py
             the places of the domain (mx.py; a fixed route; the smarthost), in order,
             until one answers: then one session                       session.py

    what came of it              the messages                      the domain
    a reply to a message         settled by it (qmgr.py)           -
    nobody answers, no DNS       all that wait: deferred           rests as long
    no such domain, null MX      all that wait: bounced            -
    a session that breaks        those under way: deferred         rests
    before it answers            the same, and the next place      -
    too slow, cut off            those under way: deferred; all
                                 that wait, if nobody answered     rests
    no room in its network       none was tried                    waits its turn
    nothing left to say          none was tried                    -

Lookups, connections and retries begin on the pool's ticks only, and carry nothing that
came later.  Where a TLS handshake fails the same place is tried in clear.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

import trio

from mesh.config import Config
from mesh.core.crypto import Entropy
from mesh.core.ip import network_of, parse
from mesh.core.pool import SET_ASIDE, Ticks
from mesh.core.reply import Reply
from mesh.core.turns import CUT_SECONDS, Turns
from mesh.node.mx import Fixed, Lookup, Place
from mesh.node.qmgr import QueueManager
from mesh.node.resolver import Resolver
from mesh.node.routing import EXIT, Routing, host_of
from mesh.node.session import Manner, Outcome, connect_and_send, opportunistic
from mesh.node.visit import Cargo, Visit

UNREACHED: Final = Reply(451, "4.4.1 no mail server of the domain answers")
CUT_OFF: Final = Reply(451, "4.4.2 its mail server is too slow, or breaks off")
DONE: Final = Reply(250, "done")


class PlacesOf(Protocol):
    """mx.Lookup.places."""

    async def __call__(self, domain: str) -> list[Place] | Reply:
        """Give the places to try, or why there are none."""


class Outbound:
    """Everything that leaves by port 25."""

    def __init__(
        self,
        *,
        qmgr: QueueManager,
        places: PlacesOf,
        ticks: Ticks,
        entropy: Entropy,
        helo: str,
        smarthost: str = "",
        routes: Mapping[str, str] | None = None,
        refuses: Callable[[str], bool] = lambda _: False,
        min_entropy: float = 0.0,
        is_alarmed: Callable[[], bool] = lambda: False,
    ) -> None:
        """Nobody leaves with less than `min_entropy` bits, robust: core/pool.py.

        While `is_alarmed` nobody leaves at all: core/alarm.py.
        """
        self._is_alarmed = is_alarmed
        self._ticked = trio.current_time()
        self._min_entropy = min_entropy
        self._qmgr = qmgr
        self._helo = helo
        self._refuses = refuses
        self._places = places
        self._ticks = ticks
        self._smarthost = smarthost
        self._routes = dict(routes or {})
        self._fixed = Fixed()
        self._turns = Turns(entropy)
        self._cargo = Cargo()
        self._visits: dict[str, Visit] = {}
        self._context = opportunistic()

    @classmethod
    def of(
        cls,
        config: Config,
        qmgr: QueueManager,
        routing: Routing,
        entropy: Entropy,
        is_alarmed: Callable[[], bool],
    ) -> "Outbound":
        """Make it as node.toml says."""
        host = host_of(config)
        own = [host, host.strip("[]").removeprefix("ipv6:")]
        return cls(
            qmgr=qmgr,
            places=Lookup(Resolver(entropy), entropy, own_hosts=own).places,
            ticks=Ticks(config.pool.tick_seconds, entropy),
            entropy=entropy,
            helo=host,
            smarthost=config.delivery.smarthost,
            routes=config.delivery.routes,
            refuses=routing.refuses,
            min_entropy=config.pool.min_entropy,
            is_alarmed=is_alarmed,
        )

    async def run(self) -> None:
        """Work on ticks, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep_until(self._ticks.after(trio.current_time()))
                await self._tick(nursery)

    def _holds(self) -> bool:
        """Say whether too few are in the pool for anybody to leave."""
        if not self._min_entropy:
            return False
        return self._qmgr.pool.crowd.robust(SET_ASIDE) < self._min_entropy

    async def _tick(self, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        last, self._ticked = self._ticked, now
        if self._is_alarmed():
            self._qmgr.stand(now - last)
        else:
            for _ in self._qmgr.depart(hold=self._holds()):
                await trio.lowlevel.checkpoint()
        self._make_room(now)
        tick = self._turns.tick(now, self._qmgr.exits())
        for destination in tick.hurried:
            self._visits[destination].hurry()
        for destination in tick.cut:
            self._visits[destination].scope.cancel()
        for destination in tick.begun:
            visit = Visit(self._qmgr, destination, self._refuses, self._cargo)
            self._visits[destination] = visit
            nursery.start_soon(self._visit, visit)

    def _make_room(self, now: float) -> None:
        """Cut off who has carried something large for long while others wait with it."""
        if self._cargo.refused:
            self._cargo.refused = False
            for visit in self._visits.values():
                if visit.is_laden and now - visit.begun >= CUT_SECONDS:
                    visit.scope.cancel()

    async def _visit(self, visit: Visit) -> None:
        reply: Reply | None = CUT_OFF
        try:
            with self._qmgr.guard(partial(visit.give_up, CUT_OFF)):
                with visit.scope:
                    reply = await self._try_places(visit)
                visit.give_up(CUT_OFF)
                if reply and (
                    reply.permanent or (reply.transient and not visit.answered)
                ):
                    await visit.fail_all(reply)
        finally:
            visit.end()
            del self._visits[visit.destination]
            self._turns.end(
                visit.destination,
                trio.current_time(),
                tried=reply is not None,
                failed=reply is not None and reply.transient,
            )

    async def _try_places(self, visit: Visit) -> Reply | None:
        """Go from place to place; positive: all was said; None: there was no room.

        Who has nothing to say, since it went another way or has no room, asks nobody.
        """
        if not await visit.has_more():
            return None
        places = await self._places_of(visit.destination.removeprefix(EXIT))
        if isinstance(places, Reply):
            return places
        reply = UNREACHED
        for place in places:
            address = parse(place.address)
            network = network_of(address) if address else place.address
            if not self._turns.enter(visit.destination, network):
                return None
            outcome = await self._session(place, visit, tls=True)
            if outcome is Outcome.NO_TLS:
                outcome = await self._session(place, visit, tls=False)
            if outcome is Outcome.DONE:
                return DONE
            if outcome is Outcome.BROKEN:
                reply = CUT_OFF
                if visit.answered:
                    break
        return reply

    async def _session(self, place: Place, visit: Visit, *, tls: bool) -> Outcome:
        return await connect_and_send(
            place, visit, Manner(self._helo, self._context, tls)
        )

    async def _places_of(self, domain: str) -> list[Place] | Reply:
        fixed = self._routes.get(domain, self._smarthost)
        if fixed:
            return await self._fixed.places(fixed)
        return await self._places(domain)
