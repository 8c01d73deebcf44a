# SPDX-License-Identifier: MIT
"""`mesh directory show` for eyes: who is in, who signed, what is new, what is left."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mesh.core.document import Document


def screen(document: "Document", ours: "Document | None", now: float) -> Iterator[str]:
    """Lines; `ours` is the directory in force here."""
    from mesh.core.armour import date
    from mesh.core.overview import brief, changes, missing

    roster, root = document.roster, document.root
    told = brief(document, now)
    yield f"version {roster.version} of {roster.network}, {_place(document, ours)}"
    lacking = missing(document)
    rows: dict[str, Any] = {
        "root": f"{root.version}, {root.fingerprint}",
        "signed by": ", ".join(told["signed_by"]) or "nobody",
        "not by": ", ".join(lacking),
        "needed": f"{root.threshold} of {len(root.keys)}",
        "issued": date(roster.issued),
        "expires": f"{told['expires']}, {_left(roster.not_after - now)}",
    }
    for name, value in rows.items():
        if value:
            yield f"  {name:<10} {value}"
    yield "nodes"
    yield from _nodes(document)
    if ours is not None and ours.head != document.head:
        yield f"changes from version {ours.roster.version}, in force here"
        lines = changes(ours, document)
        yield from (f"  {line}" for line in lines or ["none"])


def _place(document: "Document", ours: "Document | None") -> str:
    """How it stands to the one in force."""
    if ours is None:
        return "none is in force here"
    if ours.head == document.head:
        return "in force here"
    if ours.roster.order >= document.roster.order:
        return f"NOT AFTER version {ours.roster.version}, which is in force here"
    return f"version {ours.roster.version} is in force here"


def _left(seconds: float) -> str:
    from mesh.core.overview import DAY_SECONDS

    days = int(abs(seconds) // DAY_SECONDS)
    return f"{days} days left" if seconds >= 0 else f"EXPIRED {days} days ago"


def _nodes(document: "Document") -> Iterator[str]:
    from mesh.core.armour import fingerprint

    vouched: dict[str, list[str]] = {}
    for address, name in document.roster.pairs:
        vouched.setdefault(name, []).append(address)
    width = max(len(entry.name) for entry in document.roster.entries)
    for entry in document.roster.entries:
        at = ", ".join([*entry.hosts, *vouched.get(entry.name, ())]) or "dials only"
        yield f"  {entry.name:<{width}}  {fingerprint(entry.identity)}  {at}"
