# SPDX-License-Identifier: MIT
"""Who takes mail for a domain: MX look-ups by RFC 5321 5.1 and RFC 7505.

    the domain has               where its mail goes
    MX records                   their hosts in order of preference, equal ones shuffled
    one MX "."                   nowhere: 556 (null MX)
    no MX, but A or AAAA         the domain itself
    neither, or no such domain   nowhere: 550
    no answer, a broken zone     451: later, unless another host or kind has an address
    an address literal           that address

CNAMEs are followed.  Of a host's addresses those are left out at which no mail server of
somebody else can be (core/ip.py: private, loopback, and the like), and this machine's
own, also those outside that our own name has there (behind a NAT); else a stranger's
zone could send us to a port of this machine or of its network.
A host that is this machine also ends the list, with all of its preference and behind it
(RFC 5321 5.1: no loops).  A fixed route may name what a zone may not; its name, if it
is one, is looked up as the machine does it, which blocks: in threads of a number of
their own, so that a slow resolver keeps nothing else of the node waiting.
"""

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from mesh.core.crypto import Entropy
from mesh.core.dns import Answer, Kind
from mesh.core.ip import Address, is_public, parse, within
from mesh.core.names import parse_endpoint
from mesh.core.reply import Reply
from mesh.node.resolver import NoAnswerError, Resolver

SMTP_PORT: Final = 25
FIXED_SECONDS: Final = 30.0
"""For the name of a fixed route: as long as the C library tries three servers."""
HOSTS_MAX: Final = 10
"""Mail servers looked at: RFC 5321 5.1 asks for two at least."""
ADDRESSES_MAX: Final = 10
"""Addresses that are tried in one visit."""
KIND_MAX: Final = 4
"""Of one host and kind: who has many leaves room for IPv6, and for the next host."""
OWN_SECONDS: Final = 600.0
"""Between two looks for our own addresses outside."""
THREADS_MAX: Final = 4
"""Names of fixed routes looked up at once: an operator has few of them."""

NULL_MX: Final = Reply(556, "5.1.10 the domain takes no mail")
NO_DOMAIN: Final = Reply(550, "5.1.2 no such domain, or no mail server for it")
NO_DNS: Final = Reply(451, "4.4.3 the domain's name servers do not answer")
NO_ROUTE: Final = Reply(451, "4.4.3 its route's name is not found")
LOOP: Final = Reply(550, "5.4.6 its mail server would be this machine: set a route")
PRIVATE: Final = Reply(550, "5.4.4 its mail server has no public address: set a route")


@dataclass(frozen=True)
class Place:
    """Where to connect; `host` for TLS's SNI."""

    host: str
    address: str
    port: int


def is_own(address: Address) -> bool:
    """Ask the kernel whether it would talk to itself; nothing is sent."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), SMTP_PORT))
            return parse(probe.getsockname()[0]) == address  # a number has spellings
    except OSError:
        return False  # no way there: connecting will say so


class Fixed:
    """Places that the operator names."""

    def __init__(self, seconds: float = FIXED_SECONDS) -> None:
        self._seconds = seconds
        self._threads = trio.CapacityLimiter(THREADS_MAX)

    async def places(self, endpoint: str) -> list[Place] | Reply:
        """Give the addresses of HOST:PORT, in the machine's order."""
        host, port = parse_endpoint(endpoint)
        if parse(host) is not None:
            return [Place(host, host, port)]
        with trio.move_on_after(self._seconds):
            try:
                found = await trio.to_thread.run_sync(
                    _addresses_of,
                    host,
                    abandon_on_cancel=True,
                    limiter=self._threads,
                )
            except OSError:
                return NO_ROUTE
            return [Place(host, address, port) for address in found[:ADDRESSES_MAX]]
        return NO_ROUTE


def _addresses_of(host: str) -> list[str]:
    # As octets: nothing is to be made of a name that is no IDNA, like _smtp.example.
    found = socket.getaddrinfo(host.encode(), None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Lookup:
    """Looks up mail servers."""

    def __init__(
        self,
        resolver: Resolver,
        entropy: Entropy,
        *,
        own_hosts: Sequence[str] = (),
        port: int = SMTP_PORT,
        own: Callable[[Address], bool] = is_own,
        public: Callable[[Address], bool] = is_public,
    ) -> None:
        """`own_hosts`: names and addresses under which this node is known outside."""
        self._resolver = resolver
        self._entropy = entropy
        self._own_hosts = frozenset(own_hosts)
        self._own_addresses: frozenset[Address] = frozenset()
        self._learned = float("-inf")
        self._learning = trio.Lock()
        self._port = port
        self._own = own
        self._public = public

    async def places(self, domain: str) -> list[Place] | Reply:
        """Give the places to try for a domain, in order; a Reply: there are none."""
        await self._learn_own()
        if domain.startswith("["):
            return self._literal(domain)
        try:
            answer = await self._resolver.ask(domain, Kind.MX)
        except ValueError:
            return NO_DOMAIN
        except NoAnswerError:
            return NO_DNS
        if not answer.exists:
            return NO_DOMAIN
        if answer.exchanges and not any(host != "" for _, host in answer.exchanges):
            return NULL_MX
        return await self._look_up(
            self._in_order(answer.exchanges or [(0, answer.name)])
        )

    def _literal(self, domain: str) -> list[Place] | Reply:
        text = domain[1:-1]
        address = parse(text[5:] if text.lower().startswith("ipv6:") else text)
        if address is None:
            return NO_DOMAIN
        if address.is_loopback or self._is_own(address):
            return LOOP
        return (
            [Place("", str(address), self._port)] if self._public(address) else PRIVATE
        )

    def _in_order(
        self, exchanges: Sequence[tuple[int, str | None]]
    ) -> list[tuple[int, str]]:
        """Sort by preference, shuffling what is equal; each host once, nobody never."""
        draws = sorted(
            (preference, self._entropy.octets(4), host)
            for preference, host in exchanges
            if host
        )
        first = {host: preference for preference, _, host in reversed(draws)}
        return [(first[host], host) for host in dict.fromkeys(h for *_, h in draws)]

    async def _look_up(self, hosts: Sequence[tuple[int, str]]) -> list[Place] | Reply:
        places: list[Place] = []
        found = dark = False
        end = None
        for preference, host in hosts[:HOSTS_MAX]:
            if end is not None and preference >= end:
                break
            names, addresses, is_whole = await self._addresses(host)
            found = found or bool(addresses)
            if names & self._own_hosts or any(map(self._is_own, addresses)):
                end = preference
                places = [place for place in places if self._before(place, hosts, end)]
                continue
            dark = dark or not is_whole
            places += [
                Place(host, str(address), self._port)
                for address in addresses
                if self._public(address)
            ]
        if dark and not places:
            return NO_DNS
        if end is not None:
            return places[:ADDRESSES_MAX] or LOOP
        return places[:ADDRESSES_MAX] or (PRIVATE if found else NO_DOMAIN)

    def _is_own(self, address: Address) -> bool:
        """Say whether it is this machine; loopback is every machine's, so nobody's."""
        inner = within(address)
        if inner is not None and self._is_own(inner):
            return True
        return (
            str(address) in self._own_hosts
            or address in self._own_addresses
            or (not address.is_loopback and self._own(address))
        )

    async def _learn_own(self) -> None:
        """Look up where our names are outside: behind a NAT the kernel cannot say."""
        async with self._learning:
            now = trio.current_time()
            if now < self._learned + OWN_SECONDS:
                return
            self._learned = now
            own: list[Address] = []
            for host in self._own_hosts:
                if "." in host and parse(host) is None:
                    own += (await self._addresses(host))[1]
            self._own_addresses = frozenset(own) or self._own_addresses

    @staticmethod
    def _before(place: Place, hosts: Sequence[tuple[int, str]], end: int) -> bool:
        return any(host == place.host and level < end for level, host in hosts)

    async def _addresses(self, host: str) -> tuple[set[str], list[Address], bool]:
        """Give a host's names and addresses, and whether that is all of them.

        IPv4 first: more servers trust our name there.  A kind that gets no answer takes
        nothing from the other; nor does one that "does not exist" (RFC 4074 4.2).
        """
        answers: dict[Kind, Answer] = {}

        async def ask(kind: Kind) -> None:
            with suppress(NoAnswerError):
                answers[kind] = await self._resolver.ask(host, kind)

        kinds = (Kind.A, Kind.AAAA)
        async with trio.open_nursery() as nursery:
            for kind in kinds:
                nursery.start_soon(ask, kind)
        known = [answers[kind] for kind in kinds if kind in answers]
        return (
            {host, *(answer.name for answer in known)},
            [address for each in known for address in each.addresses[:KIND_MAX]],
            len(known) == len(kinds),
        )
