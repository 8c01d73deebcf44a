# SPDX-License-Identifier: MIT
"""Whose word lists a node: the operator's by hand, the signers', the node's own.

    listed by            descriptor in force    speaks for
    hand                 the newest             hosts of the one that was listed, and
                                                addresses confirmed by hand
    signers              the newest             hosts and pairs that they vouched for
    both, one identity   the newest             all of these
    both, two identities the one by hand        as by hand; a line says so
    signers, distrusted  -                      `mesh peers remove` took it off here
    signers: ourselves   -

The newest is by serial and among those that the node's identity signed; a node renews
itself alone, and what it then says of hosts counts no more than before (directory.py).

A name or a key is one node's.  Who was listed by hand has his; whoever comes later with
the same, by the signers' list or by a renewal, does not count with it, and a line says
so: otherwise a listed node could push another out by claiming its key.

A descriptor without link keys is one whose keys are in doubt (registry.py): it keeps its
addresses, and takes nobody's place.

Nothing here verifies anything: that is descriptor.py's and trusted.py's.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from mesh.core.descriptor import Descriptor
from mesh.core.directory import Listed, Us, hosts_of, keys_of


@dataclass(frozen=True)
class Shared:
    """What does not come from the operator's hand; all of it is verified.

    `listed` are the signers' nodes; `renewed` has by identity what nodes said later of
    themselves; `withheld` the UNIX time until which, of addresses that left the list.
    """

    listed: tuple[Listed, ...] = ()
    renewed: Mapping[bytes, Descriptor] = field(default_factory=dict)
    withheld: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Blend:
    """All peers, who listed them (by name), and a line for what does not count."""

    listed: tuple[Listed, ...] = ()
    by_hand: frozenset[str] = frozenset()
    by_signers: frozenset[str] = frozenset()
    mistakes: tuple[str, ...] = ()


def blend(
    us: Us,
    by_hand: Iterable[Listed],
    shared: Shared,
    distrusted: Container[bytes] = (),
    contested: Iterable[object] = (),
) -> Blend:
    """Join the sources.

    `distrusted` are identities; `contested` names and keys that stand in peers.d and do
    not count there, because two claim them: the signers do not decide that.
    """
    table = _Table(us, {one.descriptor.name: one for one in by_hand}, contested)
    for one in shared.listed:
        if one.descriptor.identity not in distrusted:
            table.take(one)
    for name in table.hand:
        table.renew(name, shared.renewed)
    good = sorted(table.good, key=lambda one: one.descriptor.name)
    return Blend(
        tuple(good),
        frozenset(table.hand),
        frozenset(table.vouched),
        tuple(table.mistakes),
    )


class _Table:
    """Who has which name and key."""

    def __init__(
        self, us: Us, hand: Mapping[str, Listed], contested: Iterable[object]
    ) -> None:
        self.us = us
        self.hand = hand
        self.good: list[Listed] = []
        self.vouched: dict[str, Listed] = {}
        self.mistakes: list[str] = []
        self.owners: dict[object, str] = dict.fromkeys(contested, "another in peers.d")
        self.owners[us.name] = self.owners[us.identity] = "this node"
        for one in hand.values():
            self.claim(one.descriptor)

    def claim(self, descriptor: Descriptor) -> None:
        for key in (descriptor.name, *keys_of(descriptor)):
            self.owners.setdefault(key, descriptor.name)

    def other(self, descriptor: Descriptor, keys: Iterable[object]) -> str | None:
        """Who else has one of these."""
        for key in keys:
            owner = self.owners.get(key, descriptor.name)
            if owner != descriptor.name:
                return owner
        return None

    def take(self, one: Listed) -> None:
        """List a node of the signers', unless somebody has its name or a key."""
        descriptor = one.descriptor
        name = descriptor.name
        if (name, descriptor.identity) == (self.us.name, self.us.identity):
            return
        mine = self.hand.get(name)
        if mine and mine.descriptor.identity == descriptor.identity:
            self.vouched[name] = one
            return
        other = self.other(descriptor, (name, *keys_of(descriptor)))
        if mine:
            self.mistakes.append(
                f"{name}: the shared directory has another key for it than peers.d: "
                f"yours counts; if it is not right, `mesh peers remove {name}`"
            )
        elif other:
            self.mistakes.append(
                f"{name}: the shared directory gives it a name or key of {other}: "
                "it does not count here: tell the signers"
            )
        else:
            self.claim(descriptor)
            self.vouched[name] = one
            self.good.append(one)

    def renew(self, name: str, renewed: Mapping[bytes, Descriptor]) -> None:
        """List a node of the operator's, with its newest descriptor."""
        mine, theirs = self.hand[name], self.vouched.get(name)
        old = newest = mine.descriptor
        for later in (theirs and theirs.descriptor, renewed.get(old.identity)):
            if later and later.name == name and later.link_keys:
                newest = max(newest, later, key=lambda one: one.serial)
        if newest is not old and (other := self.other(newest, keys_of(newest))):
            newest = old
            self.mistakes.append(
                f"{name}: its new descriptor has a key of {other}: "
                "the one before it counts: ask its operator"
            )
        self.claim(newest)
        hosts, confirmed = hosts_of(old), mine.confirmed
        if theirs:
            hosts |= (
                hosts_of(theirs.descriptor) if theirs.hosts is None else theirs.hosts
            )
            confirmed |= theirs.confirmed
        elif newest is old:
            self.good.append(mine)
            return
        self.good.append(Listed(newest, confirmed & frozenset(newest.serves), hosts))
