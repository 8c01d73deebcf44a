# SPDX-License-Identifier: MIT
"""The directory in force: what it takes to replace it, rule by rule, in this order.

     R1  bounded: octets, parts, roots, nodes (document.py, roster.py)
     R2  of a known form, each statement in its one spelling, nothing behind it; lists
         sorted without repetition: names, identities, signers, addresses (root.py ...)
     R3  of our network
     R4  its roots are numbered without a gap and begin with ours; another root of a
         number that we hold, signed by the root before both, is a fork
     R5  each root beyond ours is signed by the threshold of the root before and by its
         own (TUF 5.3.4); a key counts once
     R6  each signature that is there holds and is of a key that may sign
     R7  the roster names the newest of its roots and is signed by its threshold
     R8  its version is not below ours (TUF 5.4.3): else OlderError
     R9  the same version has the same hash: else ForkError
    R10  the version after ours names the hash of ours: else ForkError; across a gap
         nobody can check, and a node that slept must be able to catch up
    R11  its root is not older than ours
    R12  it was issued, give or take a day of a wrong clock, and has not expired
         (TUF 5.4.4): else ExpiredError
    R13  each entry has its descriptor, of this name, identity and network
    R14  a descriptor of the entry's serial is the very one that the signers saw; a later
         one needs its identity's signature only; an earlier one is refused
    R15  no descriptor is older than one that we hold of this identity: ours stays, so
         that old parts cannot be mixed into a new whole
    R16  a link key is one node's.  Two that the signers saw: refused.  What a node says
         of itself never takes a key from another: it is passed over, with a line

A failure of any rule leaves the directory in force as it is.  Signatures come before
versions, so that only the signers can make an older one or a fork show; versions come
before time, so that an expired fork shows as what it is; descriptors come last, because
they are the work (benchmarks/directory.py).

A directory is begun by an operator who types so (`begin_untrusted`): a file that lies
somewhere or a peer never begins one.  Its anchor is the fingerprint of any of its roots
that the operator was told, or else the operator's word.

What is in force and expires stays in force, with a warning from 14 days before: a mesh
must not fall apart because its signers sleep.  Whoever withholds new versions is seen,
and none that has expired is ever adopted.  A roster whose version jumped to the end
(fast-forward) needs the threshold's keys; who holds these has the network anyway, and
its operators begin another one.

Pure: nothing here reads a clock or a file, and nothing is changed in place.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from mesh.core.armour import date
from mesh.core.descriptor import Descriptor
from mesh.core.document import Document, check_entry, open_untrusted
from mesh.core.root import Root, SignedRoot, succeeds, verify_root
from mesh.core.roster import NO_HASH, Entry, verify_roster
from mesh.errors import (
    DirectoryError,
    ExpiredError,
    ForkError,
    OlderError,
)

DAY_SECONDS: Final = 86_400
AHEAD_SECONDS: Final = DAY_SECONDS
"""How far in the future it may be issued: clocks are wrong by hours, and zones."""
WARN_SECONDS: Final = 14 * DAY_SECONDS
"""How long before the end the warning begins: signers are people with other work."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the directory in force.

    `descriptor` is the newest that stands.  It speaks for addresses at `entry.hosts`
    and for `addresses`, the pairs that were vouched for, and for no others.
    """

    entry: Entry
    descriptor: Descriptor
    addresses: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Trusted:
    """The directory in force, or none: `document` None.

    `members` are by identity; `doubts` are lines about descriptors passed over (R16).
    """

    network: str
    document: Document | None = None
    members: Mapping[bytes, Member] = field(default_factory=dict, repr=False)
    doubts: tuple[str, ...] = ()

    @property
    def root(self) -> Root | None:
        """Whose signatures the next version needs."""
        return self.document.root if self.document else None

    @property
    def head(self) -> tuple[int, bytes]:
        """What peers compare: version and hash; zeros without a directory."""
        return self.document.head if self.document else (0, NO_HASH)

    @property
    def serials(self) -> dict[bytes, int]:
        """The serial of each member's descriptor, by identity."""
        return {who: m.descriptor.serial for who, m in self.members.items()}

    @property
    def current(self) -> Document | None:
        """The document to hand on: each node's newest descriptor in it."""
        if self.document is None:
            return None
        entries = zip(self.document.roster.entries, self.document.boxes, strict=True)
        boxes = tuple(
            member.descriptor.box if (member := self.members.get(e.identity)) else box
            for e, box in entries
        )
        return replace(self.document, boxes=boxes)

    def warning(self, now: float) -> str | None:
        """Say in one line that the directory ends soon, or has ended."""
        if self.document is None:
            return None
        roster = self.document.roster
        left = roster.not_after - now
        if left > WARN_SECONDS:
            return None
        days = _days(abs(left))
        if left >= 0:
            return f"directory: version {roster.version} expires in {days}: ask the signers"
        return (
            f"directory: version {roster.version} expired {days} ago and stays in "
            "force: ask the signers"
        )

    def update_untrusted(self, document: Document, now: float) -> "Trusted":
        """What is in force when this document is offered; self when it has nothing new.

        Raises OlderError, ForkError, ExpiredError, or DirectoryError.
        """
        if self.document is None:
            raise DirectoryError("no directory is in force: `mesh directory adopt` one")
        _check_network(document, self.network)  # R3
        ours = self.document
        _check_roots(document.roots, ours.roots)
        _check_signatures(document)
        version, mine = document.roster.version, ours.roster.version
        if version < mine:  # R8
            raise OlderError(f"version {version}: version {mine} is in force")
        if version == mine and document.roster.hash != ours.roster.hash:  # R9
            raise ForkError(f"another version {version} than the one in force")
        if version == mine + 1 and document.roster.predecessor != ours.roster.hash:
            raise ForkError(  # R10
                f"version {version} follows another version {mine} than ours"
            )
        if len(document.roots) < len(ours.roots):  # R11
            raise DirectoryError("signed by signers that were replaced")
        if version == mine:
            return self.renewed(open_untrusted(document, self._known()))
        _check_time(document, now)
        return _settle(self.network, document, self._known())

    def renewed(self, descriptors: Iterable[Descriptor]) -> "Trusted":
        """With newer descriptors of members; self when none is newer and stands.

        Each must come from `from_box_untrusted` or the like, which verified it.  What
        no entry stands for is passed over.
        """
        if self.document is None:
            return self
        newer: dict[bytes, Descriptor] = {}
        for d in descriptors:
            held = newer.get(d.identity) or self._held(d.identity)
            if held is None or d.serial > held.serial:
                newer[d.identity] = d
        if not newer:
            return self
        offered = [
            _usable(entry, newer.get(entry.identity), self.network)
            for entry in self.document.roster.entries
        ]
        try:
            settled = _stand(self.network, self.document, offered, self._known())
        except DirectoryError:  # R16, hidden in the document by a later descriptor
            return self
        doubts = tuple(sorted({*self.doubts, *settled.doubts}))
        if (settled.members, doubts) == (self.members, self.doubts):
            return self
        return replace(settled, doubts=doubts)

    def _held(self, identity: bytes) -> Descriptor | None:
        member = self.members.get(identity)
        return member.descriptor if member else None

    def _known(self) -> dict[bytes, Descriptor]:
        return {who: member.descriptor for who, member in self.members.items()}


def begin_untrusted(
    document: Document, network: str, now: float, fingerprint: str | None = None
) -> Trusted:
    """Begin with a directory because the operator says so.

    With a fingerprint, one of its roots must have it.  Raises ExpiredError or
    DirectoryError.
    """
    _check_network(document, network)  # R3
    if fingerprint is not None and not any(
        _letters(signed.root.fingerprint) == _letters(fingerprint)
        for signed in document.roots
    ):
        raise DirectoryError(
            f"none of its roots has this fingerprint; its newest is "
            f"{document.root.fingerprint}: ask a signer"
        )
    _check_roots(document.roots, ())
    _check_signatures(document)
    _check_time(document, now)
    return _settle(network, document, {})


def resume_untrusted(document: Document, network: str) -> Trusted:
    """Take up again what was in force: every rule but that of time (R12)."""
    _check_network(document, network)
    _check_roots(document.roots, ())
    _check_signatures(document)
    return _settle(network, document, {})


def _letters(fingerprint: str) -> str:
    return "".join(fingerprint.split()).upper()


def _days(seconds: float) -> str:
    days = int(seconds // DAY_SECONDS)
    return "1 day" if days == 1 else f"{days} days" if days else "less than a day"


def _check_network(document: Document, network: str) -> None:
    if document.roster.network != network:
        raise DirectoryError(
            f"of the network {document.roster.network}: this node is of {network}"
        )


def _check_roots(theirs: Sequence[SignedRoot], ours: Sequence[SignedRoot]) -> None:
    """R4 and R5; what we hold already is not verified again."""
    before: Root | None = None
    for index, signed in enumerate(theirs):
        held = ours[index].root if index < len(ours) else None
        if signed.root != held:
            verify_root(signed, before)  # R6
            if not succeeds(signed, before):  # R5
                raise DirectoryError(
                    f"root {signed.root.version} is signed by too few: "
                    "wait for the signers"
                )
            if held and not before:  # R4
                raise DirectoryError("it begins with another root than ours")
            if held:
                raise ForkError(f"another root {held.version} than the one in force")
        before = signed.root


def _check_signatures(document: Document) -> None:
    root = document.root
    verify_roster(document.roster, document.signatures, root.keys)  # R6
    if not root.has_quorum(document.signatures):  # R7
        raise DirectoryError(
            f"signed by {root.quorum(document.signatures)} of {len(root.keys)}, "
            f"{root.threshold} needed: wait for the signers"
        )


def _check_time(document: Document, now: float) -> None:
    """R12."""
    roster = document.roster
    if roster.issued > now + AHEAD_SECONDS:
        raise DirectoryError(
            f"issued {date(roster.issued)}, in the future: set this machine's clock"
        )
    if roster.not_after < now:
        raise ExpiredError(
            f"version {roster.version} expired {date(roster.not_after)}: "
            "ask the signers for the next"
        )


def _settle(
    network: str, document: Document, known: Mapping[bytes, Descriptor]
) -> Trusted:
    offered = list(open_untrusted(document, known))  # R13, R14
    return _stand(network, document, offered, known)


def _stand(
    network: str,
    document: Document,
    offered: Sequence[Descriptor | None],
    known: Mapping[bytes, Descriptor],
) -> Trusted:
    """Choose each entry's descriptor (R15, R16).

    A key belongs first to whoever the signers saw with it, then to whoever we knew with
    it, then to the only one that claims it.
    """
    entries = document.roster.entries
    rows = [
        (e, d, _usable(e, known.get(e.identity), network))
        for e, d in zip(entries, offered, strict=True)
    ]
    owners: dict[bytes, bytes] = {e.identity: e.identity for e in entries}
    for entry, one, _ in rows:
        if one and one.serial == entry.serial and not _claim(owners, one):
            raise DirectoryError(f"{entry.name} has another node's key")
    for _, one, held in rows:
        if held and held is not one:
            _claim(owners, held)
    fresh = Counter(
        key for _, one, _ in rows if one for key in one.link_keys if key not in owners
    )
    addresses: dict[str, set[str]] = {}
    for address, name in document.roster.pairs:
        addresses.setdefault(name, set()).add(address)
    members: dict[bytes, Member] = {}
    doubts = []
    for entry, one, held in rows:
        candidates = [d for d in (held, one) if d]
        standing = [
            d
            for d in candidates
            if all(
                owners.get(key, d.identity) == d.identity and fresh[key] <= 1
                for key in d.link_keys
            )
        ]
        if len(standing) < len(candidates):
            doubts.append(f"{entry.name} claims another node's key: ask the signers")
        if standing:
            best = max(standing, key=lambda d: d.serial)
            pairs = frozenset(addresses.get(entry.name, ()))
            members[entry.identity] = Member(entry, best, pairs)
    return Trusted(network, document, members, tuple(sorted(doubts)))


def _claim(owners: dict[bytes, bytes], descriptor: Descriptor) -> bool:
    """Give it the keys that nobody has; False when another has one."""
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
