# SPDX-License-Identifier: MIT
"""Which descriptor stands for each node of a roster.

    candidates of an entry   when                                          its keys are
    the one that was seen    serial and digest are the entry's             its own
    the one that we held     it still belongs to the entry                 its own, unless
                                                                           another was
                                                                           seen with one
    a later one              its identity signed it, of the same name      its own, unless
                                                                           anybody else
                                                                           has or claims one

Of those whose keys are all their own the greatest serial stands.  A node that claims
another's key is a liar, or was copied by one: a line names it.  Where nothing stands the
last candidate is kept, doubted.

Invariant: what signers saw is never pushed aside by what a node says alone, nor what we
held by what comes later.  Nothing here verifies a signature: document.py has.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mesh.core.descriptor import Descriptor
from mesh.core.roster import Entry, Roster
from mesh.errors import DirectoryError


@dataclass(frozen=True, slots=True)
class Member:
    """A node of a directory.

    `descriptor` is the newest that stands.  It speaks for addresses at `entry.hosts`
    and for `addresses`, the pairs that were vouched for, and for no others.

    `doubted`: none stands, this one was passed over.  Its addresses are its own, so
    that their mail waits, and nobody is to be called or answered by its link keys.
    """

    entry: Entry
    descriptor: Descriptor
    addresses: frozenset[str] = frozenset()
    doubted: bool = False


@dataclass(frozen=True, slots=True)
class Members:
    """Each node of a roster, by identity.

    `liars` are the names of those that claimed another's key since this roster came.
    """

    by_identity: Mapping[bytes, Member] = field(default_factory=dict)
    liars: frozenset[str] = frozenset()
    _owners: Mapping[bytes, bytes] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def believed(self) -> dict[bytes, Descriptor]:
        """What stands, by identity."""
        return {
            who: member.descriptor
            for who, member in self.by_identity.items()
            if not member.doubted
        }

    def renewed(self, roster: Roster, descriptors: Iterable[Descriptor]) -> "Members":
        """With newer descriptors of its nodes; self when none is newer and stands.

        What no entry stands for is passed over.
        """
        newer: dict[bytes, Descriptor] = {}
        for one in descriptors:
            held = newer.get(one.identity) or self._held(one.identity)
            if held is None or one.serial > held.serial:
                newer[one.identity] = one
        return self._extended(roster, newer) or self._settled(roster, newer)

    def _held(self, identity: bytes) -> Descriptor | None:
        member = self.by_identity.get(identity)
        return None if member is None or member.doubted else member.descriptor

    def _extended(
        self, roster: Roster, newer: Mapping[bytes, Descriptor]
    ) -> "Members | None":
        """With these where no key is in question: thousands may come one at a time.

        None where one is, and all must be looked at.
        """
        if self.liars:
            return None
        owners, members = dict(self._owners), dict(self.by_identity)
        changed = False
        for who, one in newer.items():
            member = members.get(who)
            if member and _usable(member.entry, one, roster.network):
                if not _claim(owners, one):
                    return None
                members[who] = replace(member, descriptor=one)
                changed = True
        return replace(self, by_identity=members, _owners=owners) if changed else self

    def _settled(self, roster: Roster, newer: Mapping[bytes, Descriptor]) -> "Members":
        """With these, each that stands; those in doubt are looked at again."""
        offered = []
        for entry in roster.entries:
            member = self.by_identity[entry.identity]
            one = _usable(entry, newer.get(entry.identity), roster.network)
            offered.append(one or (member.descriptor if member.doubted else None))
        try:
            settled = settle(roster, offered, self.believed)
        except DirectoryError:
            return self  # two that signers saw: a later one hid it in the document
        told = {
            member.entry.name
            for who, member in self.by_identity.items()
            if member.entry.name in self.liars
            and settled.by_identity[who].descriptor == member.descriptor
        }
        settled = replace(settled, liars=settled.liars | told)
        return self if settled == self else settled


def settle(
    roster: Roster,
    offered: Sequence[Descriptor | None],
    known: Mapping[bytes, Descriptor],
) -> Members:
    """Choose for each entry among what is offered for it and what we knew.

    DirectoryError when signers saw one key at two nodes.
    """
    entries = roster.entries
    held = [_usable(e, known.get(e.identity), roster.network) for e in entries]
    owners = owners_of_keys(
        roster,
        [
            one if one and one.serial == entry.serial else mine
            for entry, one, mine in zip(entries, offered, held, strict=True)
        ],
    )
    for one in filter(None, held):
        _claim(owners, one)
    fresh = Counter(
        key
        for one in filter(None, offered)
        for key in one.link_keys
        if key not in owners
    )

    def stands(one: Descriptor) -> bool:
        return all(
            owners.get(key, one.identity) == one.identity and fresh[key] <= 1
            for key in one.link_keys
        )

    pairs: dict[str, list[str]] = {}
    for address, name in roster.pairs:
        pairs.setdefault(name, []).append(address)
    members: dict[bytes, Member] = {}
    liars = set()
    for entry, *both in zip(entries, held, offered, strict=True):
        candidates = [one for one in both if one]
        standing = [one for one in candidates if stands(one)]
        if len(standing) < len(candidates):
            liars.add(entry.name)
        best = max(standing or candidates, key=lambda one: one.serial)  # R14
        vouched = frozenset(pairs.get(entry.name, ()))
        members[entry.identity] = Member(entry, best, vouched, not standing)
        if standing:
            _claim(owners, best)
    return Members(members, frozenset(liars), owners)


def check_entry(entry: Entry, descriptor: Descriptor, network: str) -> None:
    """Raise DirectoryError unless this is a descriptor that the entry stands for."""
    d = descriptor
    if (d.name, d.identity, d.network) != (entry.name, entry.identity, network):
        raise DirectoryError(f"the descriptor of {entry.name} is of somebody else")
    if d.serial < entry.serial:
        raise DirectoryError(
            f"the descriptor of {entry.name} is older than what was signed"
        )
    if d.serial == entry.serial and d.digest != entry.digest:
        raise DirectoryError(f"the descriptor of {entry.name} is not what was signed")


def owners_of_keys(
    roster: Roster, descriptors: Iterable[Descriptor | None]
) -> dict[bytes, bytes]:
    """Whose each key is: of those descriptors, in the roster's order, that signers saw.

    DirectoryError when two nodes have one.
    """
    owners = {entry.identity: entry.identity for entry in roster.entries}
    for entry, descriptor in zip(roster.entries, descriptors, strict=True):
        if descriptor is not None and descriptor.serial == entry.serial:
            for key in descriptor.link_keys:
                if owners.setdefault(key, entry.identity) != entry.identity:
                    raise DirectoryError(f"{entry.name} has another node's key")
    return owners


def _claim(owners: dict[bytes, bytes], descriptor: Descriptor) -> bool:
    """Give it its keys that nobody has; False when another has one."""
    got = [owners.setdefault(key, descriptor.identity) for key in descriptor.link_keys]
    return all(owner == descriptor.identity for owner in got)


def _usable(entry: Entry, held: Descriptor | None, network: str) -> Descriptor | None:
    """What we hold, if the entry still stands for it."""
    if held is not None:
        try:
            check_entry(entry, held, network)
        except DirectoryError:
            return None
    return held
