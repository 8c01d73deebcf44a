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
own; else a stranger's zone could send us to a port of this machine or of its network.
A host that is this machine also ends the list, with all of its preference and behind it
(RFC 5321 5.1: no loops).  A fixed route may name what a zone may not; its name, if it
is one, is looked up as the machine does it, which blocks: in threads of a number of
their own, so that a slow resolver keeps nothing else of the node waiting.

dnspython takes 140 ms to import: a worker thread does it on the first look-up.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import trio

from mesh.core.ip import Address, is_public, parse, within
from mesh.core.names import parse_endpoint
from mesh.core.reply import Reply

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

SMTP_PORT: Final = 25
LOOKUP_SECONDS: Final = 30.0
"""For one question and all its tries."""
HOSTS_MAX: Final = 10
"""Mail servers looked at: RFC 5321 5.1 asks for two at least."""
ADDRESSES_MAX: Final = 10
"""Addresses that are tried in one visit."""
THREADS_MAX: Final = 4
"""Names of fixed routes looked up at once: an operator has few of them."""
UDP_MAX: Final = 1232
"""Octets of an answer that no network fragments (DNS flag day 2020)."""

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

    def __init__(self, seconds: float = LOOKUP_SECONDS) -> None:
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
    """Looks up mail servers; `name_servers` (address, port) in the place of the system's."""

    def __init__(
        self,
        *,
        own_hosts: Sequence[str] = (),
        name_servers: Sequence[tuple[str, int]] = (),
        port: int = SMTP_PORT,
        seconds: float = LOOKUP_SECONDS,
        own: Callable[[Address], bool] = is_own,
        public: Callable[[Address], bool] = is_public,
    ) -> None:
        """`own_hosts`: names and addresses under which this node is known outside."""
        self._own_hosts = frozenset(own_hosts)
        self._name_servers = name_servers
        self._port = port
        self._seconds = seconds
        self._own = own
        self._public = public
        self._dns: ModuleType | None = None

    async def places(self, domain: str) -> list[Place] | Reply:
        """Give the places to try for a domain, in order; a Reply: there are none."""
        if domain.startswith("["):
            return self._literal(domain)
        try:
            return await self._look_up(domain)
        except _NoDomainError:
            return NO_DOMAIN
        except _NoAnswerError:
            return NO_DNS

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

    async def _look_up(self, domain: str) -> list[Place] | Reply:
        hosts = await self._exchanges(domain)
        if [host for _, host in hosts] == [""]:
            return NULL_MX
        places: list[Place] = []
        found = dark = False
        end = None
        for preference, host in hosts[:HOSTS_MAX]:
            if end is not None and preference >= end:
                break
            addresses, is_whole = await self._addresses(host)
            found = found or bool(addresses)
            if host in self._own_hosts or any(map(self._is_own, addresses)):
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
        return str(address) in self._own_hosts or (
            not address.is_loopback and self._own(address)
        )

    @staticmethod
    def _before(place: Place, hosts: Sequence[tuple[int, str]], end: int) -> bool:
        return any(host == place.host and level < end for level, host in hosts)

    async def _exchanges(self, domain: str) -> list[tuple[int, str]]:
        """Give (preference, host) in the order to try; a host "" is the null MX."""
        answer = await self._resolve(domain, "MX")
        if answer is None:
            return [(0, domain)]
        order = answer.processing_order()
        return [(each.preference, _text(each.exchange)) for each in order]

    async def _addresses(self, host: str) -> tuple[list[Address], bool]:
        """Give a host's addresses, and whether that is all of them.

        IPv4 first: more servers trust our name there.  A kind that gets no answer takes
        nothing from the other; nor does one that "does not exist" (RFC 4074 4.2).
        """
        found: list[Address] = []
        is_whole = True
        for kind in ("A", "AAAA"):
            try:
                answer = await self._resolve(host, kind)
            except _NoDomainError:
                continue
            except _NoAnswerError:
                is_whole = False
                continue
            found += [ip_address(each.address) for each in answer or ()]
        return found, is_whole

    async def _resolve(self, name: str, kind: str) -> Any:
        """Ask one question: records, or None when the name has none of this kind."""
        dns = self._dns
        if dns is None:
            dns = self._dns = await trio.to_thread.run_sync(_import_dns)
        try:
            answer = await self._resolver(dns).resolve(
                dns.name.from_text(name + "."),
                kind,
                raise_on_no_answer=False,
                search=False,
                lifetime=self._seconds,
                backend=dns.asyncbackend.get_backend("trio"),
            )
        except dns.resolver.NXDOMAIN:
            raise _NoDomainError from None
        except (dns.name.LabelTooLong, dns.name.EmptyLabel, dns.name.NameTooLong):
            raise _NoDomainError from None
        except (dns.exception.DNSException, OSError, ValueError):
            # ValueError: a resolv.conf that is half written, or wrong.
            raise _NoAnswerError from None
        return answer.rrset

    def _resolver(self, dns: ModuleType) -> "Resolver":
        """Make a resolver; the system's settings are read anew, they may change."""
        resolver: Resolver = dns.asyncresolver.Resolver(
            configure=not self._name_servers
        )
        if self._name_servers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(*server) for server in self._name_servers
            ]
        resolver.use_edns(0, 0, UDP_MAX)
        return resolver


class _NoDomainError(Exception):
    """The name does not exist, or has no address."""


class _NoAnswerError(Exception):
    """Nobody can say now."""


def _text(name: Any) -> str:
    return (
        str(name.to_text(omit_final_dot=True)).lower() if name.labels != (b"",) else ""
    )


def _import_dns() -> ModuleType:
    import dns.asyncbackend
    import dns.asyncresolver
    import dns.exception
    import dns.name
    import dns.nameserver
    import dns.resolver

    return dns
