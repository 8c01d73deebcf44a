# SPDX-License-Identifier: MIT
"""Who serves an address: us, one peer, nobody, or more than one claims it.

A peer's claim to an address counts when

    the address lies at a host that the peer speaks for (`hosts`), or
    the operator typed the pair, or the shared directory's signers did (`confirmed`).

A peer speaks for the hosts of the endpoints in its own descriptor, where somebody looked
at that very descriptor: the operator, or the signers.  A node renews its descriptor
alone, and a lying one could put anybody's host into it: so a renewed descriptor speaks
for the hosts of the one that was looked at, and for no others.

Other claims are as if not made, so a peer cannot block an address by naming it.  Our
own addresses are the operator's word.  A lookup is two table look-ups:

    address exact   its @domain      answer
    one owner       - or the same    the owner
    -               one owner        the owner
    one owner       another          Conflict
    two owners      any              Conflict
    -               two owners       Conflict
    -               -                None

Conflict: mail waits, nothing is given to either, and `conflicts` tells the operator.
Our own remailers are one owner here: among them the exact address wins.

Expired peers still own their addresses: their mail waits rather than leaks elsewhere.
What a removed peer served is withheld for a while: nobody serves it, and it must not
leave the mesh either, in clear and to whoever answers there.  Of a peer that is missing
without having been removed it is awaited: mail is taken, and waits.
Nothing here reads a clock or a file; who may sign a directory is trusted.py's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from mesh.core.descriptor import Descriptor
from mesh.core.names import domain_of, is_at_host, mail_domain


@dataclass(frozen=True, slots=True)
class Local:
    """One of our remailers, by its place in node.toml."""

    index: int


@dataclass(frozen=True, slots=True)
class ToPeer:
    """One peer, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """More than one claims it: wait."""


Route: TypeAlias = Local | ToPeer | Conflict


@dataclass(frozen=True)
class Us:
    """What of this node no other's descriptor may contradict.

    `serves` has the remailer of each address; `identity` is empty where nobody asks.
    """

    name: str
    network: str
    serves: Mapping[str, int]
    identity: bytes = b""


_CONFLICT: Final = Conflict()
_OURS: Final = ""
_NOTHING: Final[Mapping[str, int]] = {}


@dataclass(frozen=True)
class Listed:
    """A descriptor, and what others confirmed of its addresses and hosts.

    `hosts` are written as in endpoints; None: those of the descriptor's own endpoints.
    """

    descriptor: Descriptor
    confirmed: frozenset[str] = frozenset()
    hosts: frozenset[str] | None = None

    @property
    def counted(self) -> tuple[str, ...]:
        """The addresses that it serves as far as we are concerned."""
        return tuple(a for a in self.descriptor.serves if self._counts(a))

    @property
    def not_counted(self) -> tuple[str, ...]:
        """The addresses that it only says it serves."""
        return tuple(a for a in self.descriptor.serves if not self._counts(a))

    def _counts(self, address: str) -> bool:
        if address in self.confirmed:
            return True
        if self.hosts is None:
            return speaks_for(self.descriptor, address)
        return any(domain_of(address) == mail_domain(host) for host in self.hosts)


def speaks_for(descriptor: Descriptor, address: str) -> bool:
    """Whether the address lies at the descriptor's own host."""
    return any(is_at_host(address, endpoint) for endpoint in descriptor.addresses)


def keys_of(descriptor: Descriptor) -> tuple[bytes, ...]:
    """Give all public keys that must be one node's alone."""
    return (descriptor.identity, *descriptor.link_keys)


def hosts_of(descriptor: Descriptor) -> frozenset[str]:
    """Give the hosts of its endpoints, written as there."""
    return frozenset(each.rpartition(":")[0] for each in descriptor.addresses)


class Directory:
    """The table of all addresses; never changes, a new one takes its place."""

    def __init__(
        self,
        ours: Mapping[str, int],
        peers: Iterable[Listed],
        withheld: Mapping[str, int] = _NOTHING,
        awaited: Mapping[str, int] = _NOTHING,
    ) -> None:
        """Both have the UNIX time until which, of addresses and @domains."""
        self._withheld = withheld
        self._awaited = awaited
        self._routes: dict[str, Route] = {a: Local(i) for a, i in ours.items()}
        self._claims: dict[str, set[str]] = {a: {_OURS} for a in ours}
        for peer in peers:
            name = peer.descriptor.name
            for address in peer.counted:
                self._claims.setdefault(address, set()).add(name)
                self._routes.setdefault(address, ToPeer(name))
        for address, names in self._claims.items():
            if len(names) > 1:
                self._routes[address] = _CONFLICT

    def lists(self, address: str) -> bool:
        """Say whether somebody serves exactly this address, written so: canonical then."""
        return address in self._routes

    def route(self, address: str) -> Route | None:
        """Where mail for a canonical address goes; None where nobody serves it."""
        exact = self._routes.get(address)
        domain = self._routes.get("@" + domain_of(address))
        if exact is None or domain is None:
            return exact or domain
        if exact == domain or (isinstance(exact, Local) and isinstance(domain, Local)):
            return exact
        return _CONFLICT

    def is_withheld(self, address: str, now: float) -> bool:
        """Whether a removed peer served this canonical address not long ago."""
        return _is_in(self._withheld, address, now)

    def is_awaited(self, address: str, now: float) -> bool:
        """Whether a peer that served it may come back any moment."""
        return _is_in(self._awaited, address, now)

    def owners(self, address: str) -> frozenset[str]:
        """Names of the peers that a claim to this address would contradict; "" is us."""
        if not address.startswith("@"):
            return self._overlapping(address)
        inside = (
            self._claims[a] for a in self._claims if "@" + domain_of(a) == address
        )
        return frozenset().union(*inside)

    @property
    def places(
        self,
    ) -> tuple[Mapping[str, Route], Mapping[str, int], Mapping[str, int]]:
        """All that says where mail goes: routes, what is withheld, what is awaited."""
        return self._routes, self._withheld, self._awaited

    def lost_to(self, newer: "Directory") -> frozenset[str] | None:
        """Give the peers whose mail may be for somebody else by a newer directory.

        None: no address goes anywhere else than it did.
        """
        if self.places == newer.places:
            return None
        routes, _, _ = newer.places
        moved = {
            address
            for address in self._routes.keys() | routes.keys()
            if self._routes.get(address) != routes.get(address)
        }
        lost = [self._overlapping(address) for address in moved]
        lost += [
            frozenset(names)
            for address, names in self._claims.items()
            if "@" + domain_of(address) in moved
        ]
        return frozenset().union(*lost)

    @property
    def conflicts(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each address with two owners, and their names sorted; "" is us."""
        found = {a: tuple(sorted(self._overlapping(a))) for a in self._claims}
        return tuple(sorted((a, names) for a, names in found.items() if len(names) > 1))

    def _overlapping(self, address: str) -> frozenset[str]:
        """Owners of the address and of the domain that contains it."""
        places = (address, "@" + domain_of(address))
        return frozenset(name for at in places for name in self._claims.get(at, ()))


def _is_in(places: Mapping[str, int], address: str, now: float) -> bool:
    """Whether an address, or its whole domain, is there for now."""
    found = (places.get(place, 0) for place in (address, "@" + domain_of(address)))
    return any(now < until for until in found)
