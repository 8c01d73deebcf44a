# SPDX-License-Identifier: MIT
"""Directories of nodes that do not exist, with real signatures, and forged ones."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from mesh.core.crypto import signing_public
from mesh.core.descriptor import Descriptor
from mesh.core.document import Document
from mesh.core.root import Root, Signatures, SignedRoot, sign_root, unite
from mesh.core.roster import NO_HASH, Roster, entry_of, sign_roster
from mesh.core.signing import draft, merge, sign_document
from tests.descriptors import NOW, identity_of, signed

SIGNERS = ("ann", "bob", "cid")
MEMBERS = ("alpha", "bravo", "charlie")


def public_of(seed: str) -> bytes:
    return signing_public(identity_of(seed))


def publics(seeds: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(sorted(public_of(seed) for seed in seeds))


def members(*names: str, **changes: Any) -> list[Descriptor]:
    return [signed(name, **changes) for name in names or MEMBERS]


def drafted(
    before: Document | None = None,
    nodes: Sequence[Descriptor] | None = None,
    **changes: Any,
) -> Document:
    """What `mesh directory new` makes; `signers` are seeds here."""
    facts: dict[str, Any] = {"now": NOW}
    if before is None:
        facts |= {"network": "main", "signers": SIGNERS}
    facts |= changes
    if "signers" in facts:
        facts["signers"] = publics(facts["signers"])
    return draft(before, members() if nodes is None else nodes, **facts)


def signed_by(document: Document, *seeds: str) -> Document:
    """Each signs the draft on a machine of its own, then all is merged."""
    return merge([sign_document(document, identity_of(seed)) for seed in seeds])


def directory(
    before: Document | None = None,
    nodes: Sequence[Descriptor] | None = None,
    by: Sequence[str] = SIGNERS[:2],
    **changes: Any,
) -> Document:
    """Drafted and signed by enough."""
    return signed_by(drafted(before, nodes, **changes), *by)


# By hand, where our own tools would refuse


def root(version: int, keys: Iterable[str], threshold: int, **changes: Any) -> Root:
    return replace(Root("main", version, threshold, publics(keys)), **changes)


def signed_root(one: Root, by: Iterable[str]) -> SignedRoot:
    made = SignedRoot(one)
    for seed in by:
        made = sign_root(made, identity_of(seed))
    return made


def signatures_of(roster: Roster, by: Iterable[str]) -> Signatures:
    return unite([(sign_roster(roster, identity_of(seed)),) for seed in by])


def roster_of(nodes: Sequence[Descriptor], **changes: Any) -> Roster:
    """A roster for these, in their order, with any field changed."""
    facts: dict[str, Any] = {
        "network": "main",
        "version": 1,
        "root_version": 1,
        "root": root(1, SIGNERS, 2).hash,
        "predecessor": NO_HASH,
        "issued": int(NOW),
        "not_after": int(NOW) + 30 * 86_400,
        "entries": tuple(entry_of(node) for node in nodes),
    }
    return Roster(**(facts | changes))


def forged(
    document: Document, by: Sequence[str] = SIGNERS[:2], **changes: Any
) -> Document:
    """The same with fields of its roster changed, properly signed again."""
    roster = replace(document.roster, **changes)
    return replace(document, roster=roster, signatures=signatures_of(roster, by))
