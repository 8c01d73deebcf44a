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
     R8  it is not before ours: of an older root, or of the same and a version below
         (TUF 5.4.3): else OlderError.  A new root may begin versions again, which mends
         a version that somebody with stolen keys drove to the end (TUF 5.3.11)
     R9  the same version of the same root has the same hash: else ForkError
    R10  the version after ours, of the same root, names the hash of ours: else
         ForkError; across a gap nobody can check, and a node that slept must be able
         to catch up
    R11  it was issued, give or take a day of a wrong clock, and has not expired
         (TUF 5.4.4): else ExpiredError
    R12  each entry has its descriptor, of this name, identity and network
    R13  a descriptor of the entry's serial is the very one that the signers saw; a later
         one needs its identity's signature only; an earlier one is refused
    R14  no descriptor is older than one that we hold of this identity: ours stays, so
         that old parts cannot be mixed into a new whole
    R15  a link key is one node's.  Two that the signers saw: refused.  What a node says
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
and none that has expired is ever adopted.  New roots come with a roster that names
them, never alone: whoever could hide that roster could hide them too.

Pure: nothing here reads a clock or a file, and nothing is changed in place.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from mesh.core.armour import date
from mesh.core.descriptor import Descriptor
from mesh.core.document import Document, open_untrusted
from mesh.core.members import Member as Member
from mesh.core.members import Members, settle
from mesh.core.root import Root, SignedRoot, succeeds, verify_root
from mesh.core.roster import NO_HASH, verify_roster
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
class Trusted:
    """The directory in force, or none: `document` None."""

    network: str
    document: Document | None = None
    standing: Members = field(default=Members(), repr=False)

    @property
    def root(self) -> Root | None:
        """Whose signatures the next version needs."""
        return self.document.root if self.document else None

    @property
    def members(self) -> Mapping[bytes, Member]:
        """Each of its nodes, by identity."""
        return self.standing.by_identity

    @property
    def liars(self) -> frozenset[str]:
        """Names of those that claimed another's key since this version came."""
        return self.standing.liars

    @property
    def head(self) -> tuple[int, bytes]:
        """What peers compare: order and hash (roster.py); zeros without a directory."""
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

    def notices(self, now: float) -> list[str]:
        """Say what signers must do, one line each: the end is near, a key has two."""
        lines = [
            f"directory: {name} claims another node's key: ask the signers"
            for name in sorted(self.liars)
        ]
        if self.document is not None:
            roster = self.document.roster
            left = roster.not_after - now
            what = f"directory: version {roster.version}"
            if left < 0:
                lines.append(
                    f"{what} expired {_days(-left)} ago and stays in force: "
                    "ask the signers"
                )
            elif left <= WARN_SECONDS:
                lines.append(f"{what} expires in {_days(left)}: ask the signers")
        return lines

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
        theirs, mine = document.roster, ours.roster
        if theirs.order < mine.order:  # R8
            raise OlderError(
                f"version {theirs.version} of root {theirs.root_version}: version "
                f"{mine.version} of root {mine.root_version} is in force"
            )
        if theirs.order == mine.order and theirs.hash != mine.hash:  # R9
            raise ForkError(f"another version {theirs.version} than the one in force")
        if theirs.order == mine.order + 1 and theirs.predecessor != mine.hash:  # R10
            raise ForkError(
                f"version {theirs.version} follows another version {mine.version} "
                "than the one in force"
            )
        if theirs.order == mine.order:
            return self.renewed(open_untrusted(document, self.standing.believed))
        _check_time(document, now)
        return _settle(self.network, document, self.standing.believed)

    def renewed(self, descriptors: Iterable[Descriptor]) -> "Trusted":
        """With newer descriptors of members; self when none is newer and stands.

        Each must come from `from_box_untrusted` or the like, which verified it.  What
        no entry stands for is passed over.
        """
        if self.document is None:
            return self
        standing = self.standing.renewed(self.document.roster, descriptors)
        return self if standing is self.standing else replace(self, standing=standing)


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
    """Take up again what was in force: every rule but that of time (R11)."""
    _check_network(document, network)
    _check_roots(document.roots, ())
    _check_signatures(document)
    return _settle(network, document, {})


def _letters(fingerprint: str) -> str:
    """However somebody typed it."""
    return "".join(filter(str.isalnum, fingerprint)).upper()


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
            if held and not before:  # R4
                raise DirectoryError("it begins with another root than ours")
            verify_root(signed, before)  # R6
            if not succeeds(signed, before):  # R5
                raise DirectoryError(
                    f"root {signed.root.version} is signed by too few: "
                    "wait for the signers"
                )
            if held:  # R4
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
    """R11."""
    roster = document.roster
    if roster.issued > now + AHEAD_SECONDS:
        raise ExpiredError(
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
    offered = list(open_untrusted(document, known))  # R12, R13
    standing = settle(document.roster, offered, known)  # R14, R15
    return Trusted(network, document, standing)
