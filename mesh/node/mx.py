# SPDX-License-Identifier: MIT
"""Who takes mail for a domain: MX look-ups by RFC 5321 5.1 and RFC 7505.

    the domain has               where its mail goes
    MX records                   their hosts in order of preference, equal ones shuffled
    one MX "."                   nowhere: 556 (null MX)
    no MX, but A or AAAA         the domain itself
    neither, or no such domain   nowhere: 550
    no answer, a broken zone     451: later, unless another host or kind has an address
    an address literal           that address

CNAMEs are followed.  Of a host's addresses those that no mail server of somebody else
can have are left out: loopback, link-local, multicast, reserved, and this machine's
own; else a stranger's zone could send us to a port of this machine.  A host that is
this machine also ends the list, with all of its preference and behind it (RFC 5321
5.1: no loops).  A fixed route may name what a zone may not.

dnspython takes 140 ms to import: a worker thread does it on the first look-up.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import trio

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
UDP_MAX: Final = 1232
"""Octets of an answer that no network fragments (DNS flag day 2020)."""

NULL_MX: Final = Reply(556, "5.1.10 the domain takes no mail")
NO_DOMAIN: Final = Reply(550, "5.1.2 no such domain, or no mail server for it")
NO_DNS: Final = Reply(451, "4.4.3 the domain's name servers do not answer")
LOOP: Final = Reply(550, "5.4.6 its mail server would be this machine: set a route")


@dataclass(frozen=True)
class Place:
    """Where to connect: an address or, on fixed routes, a name; `host` for TLS's SNI."""

    host: str
    address: str
    port: int


def is_own(address: str) -> bool:
    """Ask the kernel whether it would talk to itself; nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, SMTP_PORT))
            near = ipaddress.ip_address(probe.getsockname()[0])
            return near == ipaddress.ip_address(address)  # one number has spellings
    except OSError:
        return False  # no way there: connecting will say so


def is_public(address: str) -> bool:
    """Say whether somebody's mail server can be there, as far as numbers tell."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            return is_public(str(inner))
    return not (
        ip.is_loopback
        or ip.is_link_local
        or ip.is_multicast
        or ip.is_unspecified
        or ip.is_reserved
        or ip in _THIS_NETWORK
    )


_THIS_NETWORK: Final = ipaddress.ip_network("0.0.0.0/8")  # Linux: this host


class Lookup:
    """Looks up mail servers; `name_servers` (address, port) in the place of the system's."""

    def __init__(
        self,
        *,
        own_hosts: Sequence[str] = (),
        name_servers: Sequence[tuple[str, int]] = (),
        port: int = SMTP_PORT,
        seconds: float = LOOKUP_SECONDS,
        own: Callable[[str], bool] = is_own,
        public: Callable[[str], bool] = is_public,
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
        text = text[5:] if text.lower().startswith("ipv6:") else text
        try:
            address = str(ipaddress.ip_address(text))
        except ValueError:
            return NO_DOMAIN
        if "%" in address:  # a zone of this machine's: nobody else's to name
            return NO_DOMAIN
        if not self._public(address) or self._is_own(address):
            return LOOP
        return [Place("", address, self._port)]

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
                end, found = preference, True
                places = [place for place in places if self._before(place, hosts, end)]
                continue
            dark = dark or not is_whole
            places += [
                Place(host, address, self._port)
                for address in addresses
                if self._public(address)
            ]
        if dark and not places:
            return NO_DNS
        return places[:ADDRESSES_MAX] or (LOOP if found else NO_DOMAIN)

    def _is_own(self, address: str) -> bool:
        return address in self._own_hosts or (
            self._public(address) and self._own(address)
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

    async def _addresses(self, host: str) -> tuple[list[str], bool]:
        """Give a host's addresses, and whether that is all of them.

        IPv4 first: more servers trust our name there.  A kind that gets no answer takes
        nothing from the other; nor does one that "does not exist" (RFC 4074 4.2).
        """
        found: list[str] = []
        is_whole = True
        for kind in ("A", "AAAA"):
            try:
                answer = await self._resolve(host, kind)
            except _NoDomainError:
                continue
            except _NoAnswerError:
                is_whole = False
                continue
            found += [each.address for each in answer or ()]
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
