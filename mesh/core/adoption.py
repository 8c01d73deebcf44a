# SPDX-License-Identifier: MIT
"""What becomes of a directory that somebody offers.

    in force   offered by            of our signers               of others
    none       anybody               -                            refused
    none       an operator, typed    -                            begun
    one        anybody               as trusted.py says           refused
    one        an operator, typed,   as trusted.py says           begun again
               with the root's
               fingerprint

    adopted    a later version is in force, or a first one
    renewed    the one in force has newer descriptors
    same       nothing is new
    else       the one in force stays; OlderError, ForkError or DirectoryError says why

Beginning again is for a network whose signers are gone.  Nobody can be led to it by a
file or a peer: it needs a fingerprint that an operator was told and has typed.

`released` are addresses that are nobody's by the new directory and somebody's by the
old one: of nodes that left, and pairs that are vouched for no longer.  Their mail must
not leave in clear at once.

Pure; what an operator typed and what the time is are the caller's.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from mesh.core.descriptor import Descriptor
from mesh.core.directory import Listed
from mesh.core.document import Document
from mesh.core.trusted import Trusted, begin_untrusted
from mesh.errors import DirectoryError, ExpiredError, ForkError, OlderError


class Verdict(enum.Enum):
    """What became of a directory that was offered."""

    ADOPTED = "adopted"
    RENEWED = "renewed"
    SAME = "same"
    OLDER = "older"
    FORK = "fork"
    UNTIMELY = "untimely"
    REFUSED = "refused"

    @classmethod
    def of(cls, error: DirectoryError) -> "Verdict":
        """What such an error makes of it."""
        kinds = {ForkError: cls.FORK, OlderError: cls.OLDER, ExpiredError: cls.UNTIMELY}
        return kinds.get(type(error), cls.REFUSED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict, and why in one line where the directory was not taken."""

    verdict: Verdict
    why: str = ""

    @property
    def changed(self) -> bool:
        """Whether something is in force that was not before."""
        return self.verdict in (Verdict.ADOPTED, Verdict.RENEWED)


@dataclass(frozen=True, slots=True)
class Offer:
    """A directory, and what an operator typed with it."""

    document: Document
    typed: bool = False
    fingerprint: str | None = None

    def begins(self, held: Trusted) -> bool:
        """Whether this would be a first one, or one of other signers."""
        if held.document is None:
            return True
        kin = self.document.roots[0].root == held.document.roots[0].root
        return self.typed and self.fingerprint is not None and not kin


def judge_untrusted(
    held: Trusted, offer: Offer, known: Iterable[Descriptor], now: float
) -> tuple[Verdict, Trusted]:
    """Say what is in force after this offer; `known` are descriptors that we have.

    Raises OlderError, ForkError, ExpiredError or DirectoryError.
    """
    document = offer.document
    if offer.begins(held):
        if not offer.typed:
            raise DirectoryError(
                "no directory is in force: compare its root "
                f"{document.root.fingerprint} with a signer by telephone, then "
                "`mesh directory adopt` it"
            )
        begun = begin_untrusted(document, held.network, now, offer.fingerprint)
        return Verdict.ADOPTED, begun.renewed(known)
    trusted = held.update_untrusted(document, now)
    if offer.fingerprint is not None:
        _check_fingerprint(document, offer.fingerprint)
    if trusted.head != held.head:
        return Verdict.ADOPTED, trusted.renewed(known)
    return (Verdict.SAME if trusted is held else Verdict.RENEWED), trusted


def check_draft(
    held: Trusted, document: Document, now: float, signed: tuple[int, bytes] | None
) -> None:
    """Raise DirectoryError unless a signer may sign this beside the one in force.

    `signed` is the head of the last one that he signed: two of one version, or one after
    another, would be a fork.  How many signed does not matter yet.
    """
    roster = document.roster
    if roster.network != held.network:
        raise DirectoryError(
            f"of the network {roster.network}: this node is of {held.network}"
        )
    if roster.not_after < now:
        raise DirectoryError("expired: draft another")
    ours = held.document
    if ours is not None:
        ahead = [signed_root.root for signed_root in document.roots]
        if ahead[: len(ours.roots)] != [one.root for one in ours.roots]:
            raise DirectoryError("it begins with other signers than the one in force")
        if document.head == ours.head:
            return
        if roster.order <= ours.roster.order:
            raise OlderError(
                f"version {ours.roster.version} is in force here: draft the next"
            )
        after = ours.roster.order + 1 == roster.order
        if after and roster.predecessor != ours.roster.hash:
            raise ForkError(
                f"it follows another version {ours.roster.version} than the one in force"
            )
    if signed and roster.order <= signed[0] and document.head != signed:
        raise ForkError(
            "this node signed another one of this version, or a later one: if that will "
            "never be used, sign --again"
        )


def _check_fingerprint(document: Document, fingerprint: str) -> None:
    roots = [signed.root.fingerprint for signed in document.roots]
    if letters(fingerprint) not in map(letters, roots):
        raise DirectoryError(
            f"none of its roots has this fingerprint; its newest is {roots[-1]}: "
            "ask a signer"
        )


def letters(fingerprint: str) -> str:
    """However somebody typed it."""
    return "".join(filter(str.isalnum, fingerprint)).upper()


def released(before: Trusted, after: Trusted) -> set[str]:
    """Addresses that were a member's before and are vouched for no more."""
    found: set[str] = set()
    for who, member in before.members.items():
        still = after.members.get(who)
        if still is None or still.entry.name != member.entry.name:
            hosts = frozenset(member.entry.hosts)
            found |= {*Listed(member.descriptor, member.addresses, hosts).counted}
        else:
            found |= member.addresses - still.addresses
    return found
