# SPDX-License-Identifier: MIT
"""The shared directory as one file: roots, roster, signatures, descriptors.

A document is parts (parts.py), at most 16 MiB of octets:

    head         msgpack [form 1, number of roots, number of descriptors]
    root*        signed (root.py), version 1 first and none left out, at most 256
    roster       roster.py
    signatures   of the roster: (key 32, signature 64)* sorted by key (root.py)
    box*         descriptor.py: one for each entry of the roster, in its order

The descriptor of an entry is the one that the signers saw, or a later one that the
node signed alone: a file does not grow old because its nodes renew themselves.

In armour (armour.py) the same in base64, behind lines that must agree with it:

    -----BEGIN MESH DIRECTORY-----
    Network: main
    Version: 7
    Root: 2 OGZQ ZLTH ...            version and fingerprint
    Signed-By: 2 of 3, 2 needed
    Issued: 2027-11-22 00:00:00Z
    Expires: 2028-01-21 00:00:00Z
    Nodes: 120

Parsing bounds and takes apart, and believes nothing: `open_untrusted` verifies the
descriptors one at a time, `check_untrusted` all that a document can be asked without
knowing whom to trust.  Whether it is to be followed is trusted.py's question.
"""

import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.core.armour import (
    COLUMNS,
    date,
    find_line,
    lines_untrusted,
    wrap,
)
from mesh.core.descriptor import BOX_MAX_LEN, Descriptor, from_box_untrusted
from mesh.core.encoding import decode_untrusted, encode
from mesh.core.members import check_entry, owners_of_keys
from mesh.core.parts import join, split_untrusted
from mesh.core.root import (
    Root,
    Signatures,
    SignedRoot,
    has_form,
    pack,
    signed_root_from_octets_untrusted,
    unpack_untrusted,
    verify_root,
)
from mesh.core.roster import (
    NODES_MAX,
    Roster,
    roster_from_octets_untrusted,
    verify_roster,
)
from mesh.errors import DirectoryError, EncodingError

FORM: Final = 1
ROOTS_MAX: Final = 256
"""Roots: a succession a year for as long as nobody remembers."""
DOCUMENT_MAX_LEN: Final = 16_777_216
"""Octets: 20,000 nodes of 800."""
TEXT_MAX_LEN: Final = 25_165_824
"""Characters: such a document in base64, and prose around."""
BEGIN: Final = "-----BEGIN MESH DIRECTORY-----"
END: Final = "-----END MESH DIRECTORY-----"


@dataclass(frozen=True, slots=True)
class Document:
    """A directory as it was read or drafted; nothing of it is verified yet."""

    roots: tuple[SignedRoot, ...]
    roster: Roster
    signatures: Signatures = ()
    boxes: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def root(self) -> Root:
        """The newest: the one whose signers the roster needs."""
        return self.roots[-1].root

    @property
    def head(self) -> tuple[int, bytes]:
        """What peers compare: the roster's order (not its version alone) and hash."""
        return self.roster.order, self.roster.hash


def to_octets(document: Document) -> bytes:
    """As it travels over links."""
    return join(_parts(document))


def _parts(document: Document) -> Iterator[bytes]:
    yield encode([FORM, len(document.roots), len(document.boxes)])
    for root in document.roots:
        yield root.octets
    yield document.roster.statement
    yield pack(document.signatures)
    yield from document.boxes


def from_octets_untrusted(octets: bytes) -> Document:
    """Take a document apart; DirectoryError for what is not whole or out of bounds."""
    if len(octets) > DOCUMENT_MAX_LEN:
        raise DirectoryError("more than 16 MiB: this is no directory")
    try:
        parts = split_untrusted(octets, max_parts=3 + ROOTS_MAX + NODES_MAX)
        head: Any = decode_untrusted(parts[0] if parts else b"", max_len=16)
    except EncodingError as error:
        raise _damaged() from error
    if not has_form(head, FORM):
        raise DirectoryError("of a form that this mesh does not read: upgrade it")
    if [type(value) for value in head] != [int] * 3:
        raise _damaged()
    _, roots, nodes = head
    if not 1 <= roots <= ROOTS_MAX or nodes < 0 or len(parts) != 3 + roots + nodes:
        raise _damaged()
    if any(len(box) > BOX_MAX_LEN for box in parts[3 + roots :]):
        raise _damaged()
    document = Document(
        tuple(signed_root_from_octets_untrusted(part) for part in parts[1 : 1 + roots]),
        roster_from_octets_untrusted(parts[1 + roots]),
        unpack_untrusted(parts[2 + roots]),
        tuple(parts[3 + roots :]),
    )
    _check_shape(document)
    return document


def _damaged() -> DirectoryError:
    return DirectoryError("damaged: ask for a fresh copy")


def _check_shape(document: Document) -> None:
    """One network, roots without a gap, the newest named, a box for each entry."""
    roster = document.roster
    for version, signed in enumerate(document.roots, 1):
        if signed.root.version != version:
            raise DirectoryError("its roots have a gap: ask for a fresh copy")
        if signed.root.network != roster.network:
            raise DirectoryError("its roots are of another network than its roster")
    newest = document.root.version, document.root.hash
    if (roster.root_version, roster.root) != newest:
        raise DirectoryError("its roster names another root than its newest")
    if len(document.boxes) != len(roster.entries):
        raise DirectoryError("it has not one descriptor for each of its nodes")


def check_untrusted(document: Document) -> list[Descriptor]:
    """Verify all that needs no trust: each signature that is there, each descriptor.

    Gives the descriptors in the roster's order; DirectoryError says what does not hold.
    Too few signatures are no error: they are still being gathered.
    """
    for before, signed in zip([None, *document.roots], document.roots, strict=False):
        verify_root(signed, before.root if before else None)
    verify_roster(document.roster, document.signatures, document.root.keys)
    descriptors = list(open_untrusted(document))
    owners_of_keys(document.roster, descriptors)
    return descriptors


def open_untrusted(
    document: Document, known: Mapping[bytes, Descriptor] | None = None
) -> Iterator[Descriptor]:
    """Verify and give the descriptors, in the roster's order.

    `known` has verified ones by identity: where the box is the same, so is the result.
    """
    for entry, box in zip(document.roster.entries, document.boxes, strict=True):
        held = known.get(entry.identity) if known else None
        if held is None or held.box != box:
            held = descriptor_untrusted(box, entry.name)
        check_entry(entry, held, document.roster.network)
        yield held


def descriptor_untrusted(box: bytes, name: str) -> Descriptor:
    """Read one box; DirectoryError says whose it should have been."""
    try:
        return from_box_untrusted(box)
    except DirectoryError as error:
        raise DirectoryError(f"the descriptor of {name}: {error}") from error


def armour(document: Document) -> str:
    """The one text of a document; LF, with one at the end."""
    lines = wrap(to_octets(document))
    return "\n".join([BEGIN, *_headers(document), "", *lines, END, ""])


def _headers(document: Document) -> list[str]:
    root, roster = document.root, document.roster
    return [
        f"Network: {roster.network}",
        f"Version: {roster.version}",
        f"Root: {root.version} {root.fingerprint}",
        f"Signed-By: {root.quorum(document.signatures)} of {len(root.keys)}, "
        f"{root.threshold} needed",
        f"Issued: {date(roster.issued)}",
        f"Expires: {date(roster.not_after)}",
        f"Nodes: {len(roster.entries)}",
    ]


def parse_untrusted(text: str, where: str = "directory") -> Document:
    """Read the one document of a text.

    Raises DirectoryError `where:line: what, what to do`.
    """
    if len(text) > TEXT_MAX_LEN:
        raise DirectoryError(f"{where}:1: more than 24 MiB: this is no directory")
    start = find_line(text, BEGIN)
    if start < 0:
        raise DirectoryError(
            f"{where}:1: no directory in it: look for the line {BEGIN}"
        )
    number = text.count("\n", 0, start) + 1
    if find_line(text, BEGIN, text.find("\n", start)) >= 0:
        raise DirectoryError(f"{where}:{number}: more than one directory: take one")
    try:
        return _parse_lines_untrusted(lines_untrusted(text, start))
    except DirectoryError as error:
        raise DirectoryError(f"{where}:{number}: {error}") from error


_HEADERS_MAX: Final = 16
"""Lines: more than there are, so that what is no directory is not read to its end."""


def _parse_lines_untrusted(lines: Iterator[tuple[int, str]]) -> Document:
    """From BEGIN to END."""
    next(lines)
    headers = _headers_untrusted(lines)
    document = from_octets_untrusted(_octets_untrusted(lines))
    if headers != _headers(document):
        raise DirectoryError(
            "the readable lines are not what is signed: ask for a fresh copy"
        )
    return document


def _headers_untrusted(lines: Iterator[tuple[int, str]]) -> list[str]:
    """The lines up to the blank one."""
    headers: list[str] = []
    for _, line in lines:
        if not line:
            return headers
        headers.append(line)
        if len(headers) > _HEADERS_MAX:
            raise _damaged()
    raise DirectoryError("cut off: ask for the whole text")


def _octets_untrusted(lines: Iterator[tuple[int, str]]) -> bytes:
    """The lines of base64 up to END, each full but the last, in their one spelling."""
    octets = bytearray()
    full = True
    for _, line in lines:
        if line == END:
            return bytes(octets)
        try:
            piece = binascii.a2b_base64(line)
        except ValueError as error:
            raise _damaged() from error
        again = binascii.b2a_base64(piece, newline=False).decode()
        if not full or again != line or not line or len(line) > COLUMNS:
            raise _damaged()
        full = len(line) == COLUMNS
        octets += piece
    raise DirectoryError("cut off: ask for the whole text")
