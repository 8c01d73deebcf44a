# SPDX-License-Identifier: MIT
"""Port 25: mail for addresses that no node serves, to their mail servers.

    tick     each `exit:DOMAIN` queue with mail, no visit under way and no rest: a visit
    visit    the mail that was ready at the tick      visit.py
             the places of the domain (mx.py; a fixed route; the smarthost), in order,
             until one greets us: then one session   session.py

    what came of it              the messages                      the domain
    a reply to a message         settled by it (qmgr.py)           -
    nobody greets, no DNS        all that wait: deferred           rests as long
    no such domain, null MX      all that wait: bounced            -
    a session that breaks        those under way: deferred         rests

Lookups, connections and retries begin on the pool's ticks only, and carry nothing that
came later.  Where a TLS handshake fails the same place is tried in clear.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from mesh.config import Config
from mesh.core.crypto import Entropy
from mesh.core.names import parse_endpoint
from mesh.core.pool import Ticks
from mesh.core.reply import TRY_LATER, Reply
from mesh.core.retry import OUTSIDE, retry_delay
from mesh.node.mx import Lookup, Place
from mesh.node.qmgr import QueueManager
from mesh.node.routing import EXIT, Routing, host_of
from mesh.node.session import Manner, Outcome, connect_and_send, opportunistic
from mesh.node.visit import Visit

VISITS_MAX: Final = 64
"""Domains visited at once: each holds a socket and up to two messages."""
VISIT_SECONDS: Final = 7200.0
"""For a whole visit: a server that drips must end."""

UNREACHED: Final = Reply(451, "4.4.1 no mail server of the domain answers")


class PlacesOf(Protocol):
    """mx.Lookup.places."""

    async def __call__(self, domain: str) -> list[Place] | Reply:
        """Give the places to try, or why there are none."""


@dataclass
class _Site:
    """What is remembered of a domain between two visits."""

    busy: bool = False
    failures: int = 0
    rests_until: float = float("-inf")


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
    ) -> None:
        self._qmgr = qmgr
        self._helo = helo
        self._refuses = refuses
        self._places = places
        self._ticks = ticks
        self._entropy = entropy
        self._smarthost = smarthost
        self._routes = dict(routes or {})
        self._sites: dict[str, _Site] = {}
        self._context = opportunistic()

    @classmethod
    def of(
        cls, config: Config, qmgr: QueueManager, routing: Routing, entropy: Entropy
    ) -> "Outbound":
        """Make it as node.toml says."""
        host = host_of(config)
        own = [host, host.strip("[]").removeprefix("ipv6:")]
        return cls(
            qmgr=qmgr,
            places=Lookup(own_hosts=own).places,
            ticks=Ticks(config.pool.tick_seconds, entropy),
            entropy=entropy,
            helo=host,
            smarthost=config.delivery.smarthost,
            routes=config.delivery.routes,
            refuses=routing.refuses,
        )

    async def run(self) -> None:
        """Work on ticks, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep_until(self._ticks.after(trio.current_time()))
                self._tick(nursery)

    def _tick(self, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        visits = sum(site.busy for site in self._sites.values())
        for destination in self._qmgr.exits():
            site = self._sites.setdefault(destination, _Site())
            if site.busy or now < site.rests_until or visits >= VISITS_MAX:
                continue
            visits += 1
            site.busy = True
            visit = Visit(self._qmgr, destination, self._refuses)
            nursery.start_soon(self._visit, visit, site)
        # A domain that was quiet for the longest rest begins anew.
        for destination, site in list(self._sites.items()):
            if not site.busy and now > site.rests_until + 2 * OUTSIDE.longest:
                del self._sites[destination]

    async def _visit(self, visit: Visit, site: _Site) -> None:
        try:
            reply = TRY_LATER
            with trio.move_on_after(VISIT_SECONDS):
                reply = await self._try_places(visit)
        finally:
            visit.end()
            site.busy = False
        if reply.positive or reply.permanent:
            site.failures = 0
            return
        site.failures += 1
        rest = retry_delay(site.failures, self._entropy, OUTSIDE)
        site.rests_until = trio.current_time() + rest

    async def _try_places(self, visit: Visit) -> Reply:
        """Go from place to place; positive: all that could be said was said."""
        places = await self._places_of(visit.destination.removeprefix(EXIT))
        if isinstance(places, Reply):
            await visit.fail_all(places)
            return places
        for place in places:
            outcome = await self._session(place, visit, tls=True)
            if outcome is Outcome.NO_TLS:
                outcome = await self._session(place, visit, tls=False)
            if outcome is Outcome.DONE:
                return Reply(250, "done")
            if outcome is Outcome.BROKEN:
                return TRY_LATER
        await visit.fail_all(UNREACHED)
        return UNREACHED

    async def _session(self, place: Place, visit: Visit, *, tls: bool) -> Outcome:
        return await connect_and_send(
            place, visit, Manner(self._helo, self._context, tls)
        )

    async def _places_of(self, domain: str) -> list[Place] | Reply:
        fixed = self._routes.get(domain, self._smarthost)
        if fixed:
            host, port = parse_endpoint(fixed)
            return [Place(host, host, port)]
        return await self._places(domain)
