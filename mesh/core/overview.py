# SPDX-License-Identifier: MIT
"""A directory for eyes and for programs: who is in, who signed, what is new.

`facts` is what `mesh directory show --json` prints, `brief` its part in `mesh status
--json`, `changes` what a signer reads before he signs:

    + dave            joins, with its fingerprint and what it may speak for
    - carol           leaves
    ~ bravo           what of it is another
    + list@x.example  a pair that is vouched for now; - for one no more
    ~ root            other signers, or another threshold

A signer is shown by the name of the node that has his key, or else by fingerprint.
Nothing here verifies anything; the caller says what was checked.
"""

from collections.abc import Iterator
from typing import Any, Final

from mesh.core.armour import date, fingerprint
from mesh.core.descriptor import Descriptor
from mesh.core.document import Document
from mesh.core.root import Root
from mesh.core.roster import Entry

SCHEMA: Final = 1
DAY_SECONDS: Final = 86_400


def brief(document: Document, now: float) -> dict[str, Any]:
    """Give what an operator asks each day."""
    roster, root = document.roster, document.root
    return {
        "version": roster.version,
        "root": root.fingerprint,
        "signed_by": signed_by(document),
        "needed": root.threshold,
        "nodes": len(roster.entries),
        "expires": date(roster.not_after),
        "days_left": max(0, int((roster.not_after - now) // DAY_SECONDS)),
    }


def facts(
    document: Document, descriptors: list[Descriptor], now: float
) -> dict[str, Any]:
    """Give everything; `descriptors` are those of its entries, in their order."""
    roster, root = document.roster, document.root
    return {
        "schema": SCHEMA,
        "network": roster.network,
        **brief(document, now),
        "hash": roster.hash.hex(),
        "predecessor": roster.predecessor.hex() if roster.version > 1 else None,
        "issued": date(roster.issued),
        "root_version": root.version,
        "signers": [
            {"name": name, "fingerprint": fingerprint(key)}
            for key, name in sorted(signers(document).items(), key=lambda one: one[1])
        ],
        "members": [
            _member(document, entry, descriptor)
            for entry, descriptor in zip(roster.entries, descriptors, strict=True)
        ],
    }


def _member(
    document: Document, entry: Entry, descriptor: Descriptor
) -> dict[str, object]:
    return {
        "name": entry.name,
        "fingerprint": fingerprint(entry.identity),
        "hosts": list(entry.hosts),
        "vouched": [a for a, name in document.roster.pairs if name == entry.name],
        "addresses": list(descriptor.addresses),
        "serves": list(descriptor.serves),
        "serial": descriptor.serial,
        "valid_until": date(descriptor.not_after),
    }


def signers(document: Document) -> dict[bytes, str]:
    """Each key of the newest root, and what to call whoever has it."""
    names = {entry.identity: entry.name for entry in document.roster.entries}
    return {key: names.get(key) or fingerprint(key) for key in document.root.keys}


def signed_by(document: Document) -> list[str]:
    """Who of the signers has signed the roster."""
    have = {key for key, _ in document.signatures}
    return sorted(name for key, name in signers(document).items() if key in have)


def missing(document: Document) -> list[str]:
    """Who of the signers has not; what a new root needs of those before, too."""
    have = {key for key, _ in document.signatures}
    lacking = {name for key, name in signers(document).items() if key not in have}
    if len(document.roots) > 1:
        *_, before, newest = document.roots
        signed = {key for key, _ in newest.signatures}
        if not before.root.has_quorum(newest.signatures):
            names = {entry.identity: entry.name for entry in document.roster.entries}
            lacking |= {
                names.get(key) or fingerprint(key)
                for key in before.root.keys
                if key not in signed
            }
    return sorted(lacking)


def is_complete(document: Document) -> bool:
    """Whether enough have signed it: the roster, and each of its roots."""
    before: Root | None = None
    for signed in document.roots:
        if not signed.root.has_quorum(signed.signatures):
            return False
        if before and not before.has_quorum(signed.signatures):
            return False
        before = signed.root
    return document.root.has_quorum(document.signatures)


def changes(before: Document | None, after: Document) -> list[str]:
    """Say in lines what is another than before; without one, what there is."""
    old = {e.name: e for e in before.roster.entries} if before else {}
    new = {e.name: e for e in after.roster.entries}
    lines = [f"- {name}: leaves" for name in old if name not in new]
    for name, entry in new.items():
        if name not in old:
            lines.append(f"+ {name}: {fingerprint(entry.identity)}{_at(entry)}")
        else:
            lines += [f"~ {name}: {what}" for what in _differences(old[name], entry)]
    vouched = dict(before.roster.pairs) if before else {}
    for address, name in after.roster.pairs:
        if vouched.pop(address, None) != name:
            lines.append(f"+ {address}: {name} serves it")
    lines += [f"- {address}: vouched for no more" for address in sorted(vouched)]
    return lines + list(_other_root(before, after))


def _at(entry: Entry) -> str:
    return f", at {', '.join(entry.hosts)}" if entry.hosts else ", dials only"


def _differences(old: Entry, new: Entry) -> Iterator[str]:
    if old.identity != new.identity:
        yield f"ANOTHER KEY: {fingerprint(new.identity)}"
    if old.hosts != new.hosts:
        yield f"speaks for {', '.join(new.hosts) or 'no host'} now"
    if old.serial != new.serial:
        yield f"descriptor {old.serial} -> {new.serial}"


def _other_root(before: Document | None, after: Document) -> Iterator[str]:
    root = after.root
    if before and before.root == root:
        return
    yield (
        f"~ root {root.version}: {root.threshold} of {len(root.keys)} sign: "
        f"{', '.join(sorted(signers(after).values()))}"
    )
    if before:
        named = signers(before) | signers(after)
        for key in sorted(set(root.keys) ^ set(before.root.keys)):
            what = "signs from now on" if key in root.keys else "signs no more"
            yield f"~ root {root.version}: {named[key]} {what}"
