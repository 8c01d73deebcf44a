# SPDX-License-Identifier: MIT
"""How signers make a directory: draft it, sign it apart, merge in any order.

    draft            one operator    version + 1, unsigned; a new root if signers changed
    sign_document    each signer     a signature of the roster, of the root while it needs
                                     them; on machines that need not be connected
    merge            anybody         all signatures, the newest descriptor of each node

Invariant: merging is a union.  Whatever the order and the groups in which the same
files are merged, the same octets come out; so no signer waits for another.

A signer signs nothing that does not hold: sign and merge verify every descriptor and
every signature that is there already (document.py's check).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from mesh.core.crypto import Key, signing_public
from mesh.core.descriptor import Descriptor
from mesh.core.document import Document, check_untrusted
from mesh.core.root import (
    VERSION_MAX,
    SignedRoot,
    make_root,
    sign_root,
    succeeds,
    unite,
)
from mesh.core.roster import NO_HASH, Roster, check_roster, entry_of, sign_roster
from mesh.errors import DirectoryError, NotPermittedError

DAY_SECONDS: Final = 86_400
VALID_DAYS: Final = 60
"""Days that a roster holds unless its signers say otherwise."""


def draft(
    before: Document | None,
    members: Sequence[Descriptor],
    *,
    now: float,
    days: int = VALID_DAYS,
    network: str | None = None,
    signers: Iterable[bytes] | None = None,
    threshold: int | None = None,
    pairs: Iterable[tuple[str, str]] = (),
) -> Document:
    """Make the next version, unsigned.

    `members` are signed descriptors, `pairs` (address, name).  `signers` are identity
    keys; None, or the same keys and threshold, leaves the root as it is.  Without
    `before` both `network` and `signers` are needed.  Issued at midnight, so that it
    does not say at what hour somebody worked.

    DirectoryError says what cannot be signed so.
    """
    roots = _roots(before, network, signers, threshold)
    descriptors = sorted(members, key=lambda d: d.name)
    _check_members(descriptors, roots[-1].root.network, now)
    served = {(a, d.name) for d in descriptors for a in d.serves}
    vouched = tuple(sorted(set(pairs)))
    for address, name in vouched:
        if (address, name) not in served:
            raise DirectoryError(f"{name} does not say that it serves {address}")
    issued = int(now) // DAY_SECONDS * DAY_SECONDS
    version, predecessor = _place(before, roots)
    roster = Roster(
        network=roots[-1].root.network,
        version=version,
        root_version=roots[-1].root.version,
        root=roots[-1].root.hash,
        predecessor=predecessor,
        issued=issued,
        not_after=issued + days * DAY_SECONDS,
        entries=tuple(entry_of(descriptor) for descriptor in descriptors),
        pairs=vouched,
    )
    boxes = tuple(descriptor.box for descriptor in descriptors)
    return Document(roots, check_roster(roster), (), boxes)


def _place(before: Document | None, roots: tuple[SignedRoot, ...]) -> tuple[int, bytes]:
    """Version and predecessor; at the end of all versions a new root begins again."""
    if before is None:
        return 1, NO_HASH
    if before.roster.version < VERSION_MAX:
        return before.roster.version + 1, before.roster.hash
    if roots == before.roots:
        raise DirectoryError("no version is left: hand over to new signers")
    return 1, NO_HASH


def _roots(
    before: Document | None,
    network: str | None,
    signers: Iterable[bytes] | None,
    threshold: int | None,
) -> tuple[SignedRoot, ...]:
    if before is None:
        if network is None or signers is None:
            raise DirectoryError("a first directory needs a network and its signers")
        return (SignedRoot(make_root(network, 1, signers, threshold)),)
    last = before.root
    keys = last.keys if signers is None else signers
    if threshold is None and set(keys) == set(last.keys):
        threshold = last.threshold
    root = make_root(last.network, last.version + 1, keys, threshold)
    if (root.keys, root.threshold) == (last.keys, last.threshold):
        return before.roots
    return (*before.roots, SignedRoot(root))


def _check_members(members: Sequence[Descriptor], network: str, now: float) -> None:
    owners: dict[bytes, str] = {}
    for member in members:
        if member.network != network:
            raise DirectoryError(
                f"{member.name} is of the network {member.network}, not {network}"
            )
        if not member.valid_at(now):
            raise DirectoryError(
                f"the descriptor of {member.name} is not valid now: ask for a fresh one"
            )
        for key in {member.identity, *member.link_keys}:
            other = owners.setdefault(key, member.name)
            if other != member.name:
                raise DirectoryError(f"{other} and {member.name} have one key")


def sign_document(document: Document, key: Key) -> Document:
    """Add this signer's signatures.

    NotPermittedError when the key is no signer's; DirectoryError when something in the
    document does not hold.  Signing again changes nothing.
    """
    check_untrusted(document)
    ours = signing_public(key)
    *earlier, newest = document.roots
    before = earlier[-1].root if earlier else None
    signs_roster = ours in newest.root.keys
    signs_root = not succeeds(newest, before) and (
        signs_roster or (before is not None and ours in before.keys)
    )
    if not (signs_roster or signs_root):
        raise NotPermittedError("this node's key is no signer's: nothing is signed")
    if signs_root:
        document = replace(document, roots=(*earlier, sign_root(newest, key)))
    if signs_roster:
        added = (sign_roster(document.roster, key),)
        united = unite([document.signatures, added])
        document = replace(document, signatures=united)
    return document


def merge(documents: Sequence[Document]) -> Document:
    """Unite what was signed apart; DirectoryError for documents that are not one.

    Of each node the descriptor with the greatest serial is taken.
    """
    if not documents:
        raise DirectoryError("nothing to merge: name at least one file")
    first = documents[0]
    members = [check_untrusted(document) for document in documents]
    for other in documents[1:]:
        statements = [signed.root.statement for signed in other.roots]
        if other.roster.statement != first.roster.statement or statements != [
            signed.root.statement for signed in first.roots
        ]:
            raise DirectoryError("these are different directories: sign one of them")
    roots = tuple(
        replace(same[0], signatures=unite(signed.signatures for signed in same))
        for same in zip(*(document.roots for document in documents), strict=True)
    )
    boxes = tuple(
        max(same, key=lambda d: (d.serial, d.box)).box
        for same in zip(*members, strict=True)
    )
    signatures = unite(document.signatures for document in documents)
    return Document(roots, first.roster, signatures, boxes)
