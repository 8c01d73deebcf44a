# SPDX-License-Identifier: MIT
"""Who the signers of the shared directory are, and how they hand over to others.

A root is one canonical msgpack array (core/encoding.py):

    0  form        int      1; a mesh that meets another form must be upgraded
    1  network     str      names.py
    2  version     int      1 for the first, then one more each time
    3  threshold   int      how many of the keys must sign, 1 .. number of keys
    4  keys        [bin 32] Ed25519, sorted, 1 to 64: the signers' identity keys

    hash      = BLAKE2b-256("mesh/1 root" 00 array)
    signature = Ed25519(key, "mesh/1 root" 00 array)
    signed    = parts.py: array, then (key 32, signature 64)* sorted by key

The first root is signed by its own threshold.  Each further one is signed by the
threshold of the root before *and* by its own; a key that is in both signs once and
counts in both (TUF 5.3.4).  Versions leave no gap, so a node that slept through
three successions walks through all three.

A key counts once: keys are a sorted list without repetitions, and so are signatures.
The default threshold is a majority, so that two halves of the signers cannot sign two
directories of one version without one of them signing both.

A root does not expire.  TUF's does, so that a client notices when nobody hands it new
ones; here the roster (roster.py) names its root by version and expires itself, so that
withholding a root withholds rosters too, and that shows.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final, TypeAlias

from mesh.core.armour import in_groups
from mesh.core.crypto import (
    PUBLIC_LEN,
    SIGNATURE_LEN,
    Key,
    hash256,
    sign,
    signing_public,
    verify,
)
from mesh.core.descriptor import fingerprint
from mesh.core.encoding import decode_untrusted, encode
from mesh.core.names import check_name
from mesh.core.parts import join, split_untrusted
from mesh.errors import CryptoError, DirectoryError, EncodingError

FORM: Final = 1
SIGNERS_MAX: Final = 64
"""Keys: more people than ever agreed on one file; bounds the work of one signature list."""
VERSION_MAX: Final = (1 << 32) - 1
"""Of roots and of rosters: the two make one number of 64 bits (roster.py)."""
ROOT_MAX_LEN: Final = 4096
"""Octets of a statement: 64 keys of 34, a name, and room."""
_LABEL: Final = b"mesh/1 root\x00"

Signatures: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Pairs (key, signature), sorted by key, each key once."""


@dataclass(frozen=True, slots=True)
class Root:
    """The signers of one time; `statement` is its one spelling."""

    network: str
    version: int
    threshold: int
    keys: tuple[bytes, ...]
    _octets: bytes = field(default=b"", init=False, compare=False, repr=False)

    @property
    def statement(self) -> bytes:
        """The array that is signed."""
        if not self._octets:
            head = (FORM, self.network, self.version, self.threshold)
            object.__setattr__(self, "_octets", encode((*head, self.keys)))
        return self._octets

    @property
    def hash(self) -> bytes:
        """What a roster names it by: 32 octets."""
        return hash256(_LABEL, self.statement)

    @property
    def fingerprint(self) -> str:
        """Eight groups to be read over the telephone; other than any node's."""
        return in_groups(hash256(b"mesh/1 root fingerprint\x00", self.statement))

    def has_quorum(self, signatures: Signatures) -> bool:
        """Whether enough of its keys are among those that signed."""
        return self.quorum(signatures) >= self.threshold

    def quorum(self, signatures: Signatures) -> int:
        """How many of its keys are among those that signed."""
        return len({key for key, _ in signatures} & set(self.keys))


@dataclass(frozen=True, slots=True)
class SignedRoot:
    """A root and what signatures were gathered for it, perhaps too few yet."""

    root: Root
    signatures: Signatures = ()

    @property
    def octets(self) -> bytes:
        """As it lies in a document."""
        return join([self.root.statement, pack(self.signatures)])


def majority(signers: int) -> int:
    """How many must sign unless the operators say otherwise: more than half."""
    return signers // 2 + 1


def make_root(
    network: str, version: int, keys: Iterable[bytes], threshold: int | None = None
) -> Root:
    """Make a root; DirectoryError where it breaks a rule of the table above."""
    sorted_keys = tuple(sorted(keys))
    if threshold is None:
        threshold = majority(len(sorted_keys))
    root = Root(network, version, threshold, sorted_keys)
    mistake = _first_mistake(root)
    if mistake:
        raise DirectoryError(f"the root of signers: {mistake}")
    return root


def signed_root_from_octets_untrusted(octets: bytes) -> SignedRoot:
    """Read a root with its signatures, which are not verified here."""
    try:
        parts = split_untrusted(octets, max_parts=2)
        statement, packed = parts
        fields = decode_untrusted(statement, max_len=ROOT_MAX_LEN)
    except (EncodingError, ValueError) as error:
        raise DirectoryError("a root of signers is damaged: ask again") from error
    return SignedRoot(_from_fields_untrusted(fields), unpack_untrusted(packed))


def _from_fields_untrusted(fields: Any) -> Root:
    if not has_form(fields, FORM):
        raise DirectoryError(
            "a root of a form that this mesh does not read: upgrade it"
        )
    types = [type(value) for value in fields[1:]]
    if types != [str, int, int, list] or any(type(k) is not bytes for k in fields[4]):
        raise DirectoryError("a root of signers is damaged: ask again")
    _, network, version, threshold, keys = fields
    root = Root(network, version, threshold, tuple(keys))
    mistake = _first_mistake(root)
    if mistake:
        raise DirectoryError(f"the root of signers: {mistake}")
    return root


def has_form(fields: Any, form: int) -> bool:
    """Whether a decoded array begins with this form number, which is no bool."""
    return (
        isinstance(fields, list)
        and bool(fields)
        and type(fields[0]) is int
        and fields[0] == form
    )


def _first_mistake(root: Root) -> str | None:
    try:
        check_name(root.network)
    except ValueError:
        return "its network is no name"
    if not 1 <= root.version <= VERSION_MAX:
        return "its version is out of range"
    if not 1 <= len(root.keys) <= SIGNERS_MAX:
        return f"it has not 1 to {SIGNERS_MAX} keys"
    if any(len(key) != PUBLIC_LEN for key in root.keys) or any(
        low >= high for low, high in pairwise(root.keys)
    ):
        return "its keys are not keys, sorted, each once"
    if not 1 <= root.threshold <= len(root.keys):
        return "its threshold is not between 1 and the number of its keys"
    return None


def sign_root(signed: SignedRoot, key: Key) -> SignedRoot:
    """Add our signature; whether it is worth anything is the caller's question."""
    added = (signing_public(key), sign(key, _LABEL + signed.root.statement))
    return replace(signed, signatures=unite([signed.signatures, (added,)]))


def verify_root(signed: SignedRoot, before: Root | None) -> None:
    """Check every signature: valid, and of a key of this root or of the one before.

    DirectoryError says whose does not hold.  Too few are no error here.
    """
    may = set(signed.root.keys) | set(before.keys if before else ())
    verify_signatures(_LABEL + signed.root.statement, signed.signatures, may, "root")


def succeeds(signed: SignedRoot, before: Root | None) -> bool:
    """Whether enough signed: of its own keys and of those of the root before."""
    return signed.root.has_quorum(signed.signatures) and (
        before is None or before.has_quorum(signed.signatures)
    )


# Lists of signatures, for roots and rosters


def verify_signatures(
    message: bytes, signatures: Signatures, may: AbstractSet[bytes], what: str
) -> None:
    """Check each: of a key that may sign this, and valid.  DirectoryError says whose."""
    for key, signature in signatures:
        if key not in may:
            raise DirectoryError(
                f"the {what} is signed by {fingerprint(key)}, which is no signer: "
                "ask for a copy without"
            )
        try:
            verify(key, message, signature)
        except CryptoError as error:
            raise DirectoryError(
                f"the {what}'s signature of {fingerprint(key)} does not hold: "
                "ask for a fresh copy"
            ) from error


def unite(lists: Iterable[Signatures]) -> Signatures:
    """All signatures, a key once; of two by one key the smaller, so order is nothing."""
    found: dict[bytes, bytes] = {}
    for signatures in lists:
        for key, signature in signatures:
            found[key] = min(signature, found.get(key, signature))
    return tuple(sorted(found.items()))


def pack(signatures: Signatures) -> bytes:
    """Key and signature, one pair after the other."""
    return b"".join(key + signature for key, signature in signatures)


def unpack_untrusted(packed: bytes) -> Signatures:
    """Read pairs; DirectoryError unless sorted, each key once, at most 2 * 64."""
    pair = PUBLIC_LEN + SIGNATURE_LEN
    if len(packed) % pair or len(packed) > 2 * SIGNERS_MAX * pair:
        raise DirectoryError("a list of signatures is damaged: ask for a fresh copy")
    found = [
        (packed[at : at + PUBLIC_LEN], packed[at + PUBLIC_LEN : at + pair])
        for at in range(0, len(packed), pair)
    ]
    if any(low[0] >= high[0] for low, high in pairwise(found)):
        raise DirectoryError("a key signed twice: ask for a fresh copy")
    return tuple(found)
