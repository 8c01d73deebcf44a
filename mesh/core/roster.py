# SPDX-License-Identifier: MIT
"""The roster: which nodes a network has, as k of n signers say.

A roster is parts (parts.py), each one canonical msgpack array (core/encoding.py):

    head     0  form          int     1
             1  network       str
             2  version       int     grows with each roster that is signed, below 2**32
             3  root version  int     whose signers (root.py)
             4  root          bin 32  its hash
             5  predecessor   bin 32  hash of the roster of version - 1; zeros for the first
             6  issued        int     UNIX seconds
             7  not after     int     UNIX seconds, at most 366 days later
             8  entries       int     how many follow, at most 20,000
             9  pairs         int     how many follow, at most 20,000
    entry*   0  name          str     sorted by name, each once
             1  identity      bin 32  Ed25519, each once
             2  serial        int     of the descriptor that the signers saw
             3  digest        bin 32  of that descriptor
             4  hosts         [str]   for which the node may speak, sorted, at most 8
    pair*    0  address       str     sorted by address, each once
             1  name          str     of the entry that serves it

    order     = root version * 2**32 + version: which of two is the later
    hash      = BLAKE2b-256("mesh/1 roster" 00 parts)
    signature = Ed25519(key, "mesh/1 roster signature" 00 hash)

Why order: who stole the keys of a threshold can sign a version so high that none comes
after it.  The signers then hand over to new keys, and versions begin again (TUF 5.3.11).

Why hosts: a node renews its descriptor alone.  One that lies could put somebody else's
host among its addresses to dial and so speak for that host's mail.  What a node says
of itself therefore counts for hosts and pairs that the signers saw, and no others.

Nothing here verifies a signature or knows the time: trusted.py does.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from mesh.core.armour import TIME_MAX
from mesh.core.crypto import PUBLIC_LEN, Key, hash256, sign, signing_public
from mesh.core.descriptor import ADDRESSES_MAX, SERIAL_MAX, Descriptor
from mesh.core.directory import hosts_of
from mesh.core.encoding import decode_untrusted, encode
from mesh.core.names import check_name, normalize_address, normalize_host
from mesh.core.parts import join, split_untrusted
from mesh.core.root import VERSION_MAX, Signatures, has_form, verify_signatures
from mesh.errors import DirectoryError, EncodingError

FORM: Final = 1
NODES_MAX: Final = 20_000
"""Entries: twice what is measured (benchmarks/directory.py)."""
PAIRS_MAX: Final = 20_000
VALIDITY_MAX_SECONDS: Final = 366 * 86_400
"""A year: what is withheld from a node must show before it is forgotten."""
PART_MAX_LEN: Final = 4096
"""Octets of one entry: eight hosts of 253, a name, two hashes."""
NO_HASH: Final = bytes(32)

_LABEL: Final = b"mesh/1 roster\x00"
_SIGNATURE_LABEL: Final = b"mesh/1 roster signature\x00"


@dataclass(frozen=True, slots=True)
class Entry:
    """One node: who it is, which of its descriptors the signers saw, where it is at home."""

    name: str
    identity: bytes
    serial: int
    digest: bytes
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Roster:
    """What is signed; `pairs` are (address, name)."""

    network: str
    version: int
    root_version: int
    root: bytes
    predecessor: bytes
    issued: int
    not_after: int
    entries: tuple[Entry, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    _octets: bytes = field(default=b"", init=False, compare=False, repr=False)
    _hash: bytes = field(default=b"", init=False, compare=False, repr=False)

    @property
    def statement(self) -> bytes:
        """The parts, end to end."""
        if not self._octets:
            object.__setattr__(self, "_octets", join(map(encode, _fields(self))))
        return self._octets

    @property
    def order(self) -> int:
        """Which of two rosters is the later: of 64 bits."""
        return self.root_version << 32 | self.version

    @property
    def hash(self) -> bytes:
        """What the next one names as its predecessor, and peers compare: 32 octets."""
        if not self._hash:
            object.__setattr__(self, "_hash", hash256(_LABEL, self.statement))
        return self._hash


def entry_of(descriptor: Descriptor) -> Entry:
    """What signers vouch for when this descriptor lies before them."""
    return Entry(
        descriptor.name,
        descriptor.identity,
        descriptor.serial,
        descriptor.digest,
        tuple(sorted(hosts_of(descriptor))),
    )


def sign_roster(roster: Roster, key: Key) -> tuple[bytes, bytes]:
    """Our key and its signature."""
    return signing_public(key), sign(key, _SIGNATURE_LABEL + roster.hash)


def verify_roster(roster: Roster, signatures: Signatures, may: Iterable[bytes]) -> None:
    """Check every signature: valid, and of a key that may sign.

    DirectoryError says whose does not hold.  Too few are no error here.
    """
    verify_signatures(_SIGNATURE_LABEL + roster.hash, signatures, set(may), "roster")


def check_roster(roster: Roster) -> Roster:
    """Give it back; DirectoryError where it breaks a rule of the table above."""
    mistake = _first_mistake(roster)
    if mistake:
        raise DirectoryError(f"the roster: {mistake}")
    return roster


def roster_from_octets_untrusted(octets: bytes) -> Roster:
    """Read the parts; DirectoryError for what is damaged or breaks a rule."""
    try:
        parts = split_untrusted(octets, max_parts=1 + NODES_MAX + PAIRS_MAX)
        fields = [decode_untrusted(part, max_len=PART_MAX_LEN) for part in parts]
    except EncodingError as error:
        raise _damaged() from error
    head: Any = fields[0] if fields else None
    if not has_form(head, FORM):
        raise DirectoryError(
            "a roster of a form that this mesh does not read: upgrade it"
        )
    types = [int, str, int, int, bytes, bytes, int, int, int, int]
    if [type(value) for value in head] != types:
        raise _damaged()
    nodes, pairs = head[8:]
    if not 0 <= nodes < len(fields) or 1 + nodes + pairs != len(fields):
        raise _damaged()
    network, version, root_version, root, predecessor, issued, not_after = head[1:8]
    roster = Roster(
        network,
        version,
        root_version,
        root,
        predecessor,
        issued,
        not_after,
        tuple(_entry_untrusted(part) for part in fields[1 : 1 + nodes]),
        tuple(_pair_untrusted(part) for part in fields[1 + nodes :]),
    )
    object.__setattr__(roster, "_octets", octets)
    return check_roster(roster)


def _damaged() -> DirectoryError:
    return DirectoryError("the roster is damaged: ask for a fresh copy")


def _fields(roster: Roster) -> Iterator[Any]:
    r = roster
    head = [FORM, r.network, r.version, r.root_version, r.root, r.predecessor]
    yield [*head, r.issued, r.not_after, len(r.entries), len(r.pairs)]
    for e in r.entries:
        yield [e.name, e.identity, e.serial, e.digest, e.hosts]
    yield from r.pairs


def _entry_untrusted(fields: Any) -> Entry:
    if (
        not isinstance(fields, list)
        or [type(value) for value in fields] != [str, bytes, int, bytes, list]
        or any(type(host) is not str for host in fields[4])
    ):
        raise _damaged()
    name, identity, serial, digest, hosts = fields
    return Entry(name, identity, serial, digest, tuple(hosts))


def _pair_untrusted(fields: Any) -> tuple[str, str]:
    if not isinstance(fields, list) or [type(v) for v in fields] != [str, str]:
        raise _damaged()
    return fields[0], fields[1]


def _first_mistake(roster: Roster) -> str | None:
    try:
        check_name(roster.network)
    except ValueError:
        return "its network is no name"
    if not all(1 <= v <= VERSION_MAX for v in (roster.version, roster.root_version)):
        return "its version is out of range"
    if {len(roster.root), len(roster.predecessor)} != {len(NO_HASH)}:
        return "its root or its predecessor is no hash"
    if (roster.predecessor == NO_HASH) != (roster.version == 1):
        return "only the first has no predecessor"
    validity = roster.not_after - roster.issued
    if not 0 < validity <= VALIDITY_MAX_SECONDS or not (
        0 <= roster.issued < roster.not_after <= TIME_MAX
    ):
        return "its validity is not a span of at most 366 days"
    return _first_mistake_of_entries(roster) or _first_mistake_of_pairs(roster)


def _first_mistake_of_entries(roster: Roster) -> str | None:
    entries = roster.entries
    if not 1 <= len(entries) <= NODES_MAX:
        return f"it has not 1 to {NODES_MAX} nodes"
    if any(low.name >= high.name for low, high in pairwise(entries)):
        return "its nodes are not sorted, each once"
    if len({entry.identity for entry in entries}) < len(entries):
        return "two of its nodes have one key"
    for entry in entries:
        if not _is_entry(entry):
            return "one of its nodes is described against the rules"
    return None


def _is_entry(entry: Entry) -> bool:
    try:
        check_name(entry.name)
        good = all(normalize_host(host) == host for host in entry.hosts)
    except ValueError:
        return False
    return (
        good
        and len(entry.identity) == PUBLIC_LEN
        and 1 <= entry.serial <= SERIAL_MAX
        and len(entry.digest) == len(NO_HASH)
        and len(entry.hosts) <= ADDRESSES_MAX
        and all(low < high for low, high in pairwise(entry.hosts))
    )


def _first_mistake_of_pairs(roster: Roster) -> str | None:
    pairs = roster.pairs
    if len(pairs) > PAIRS_MAX:
        return f"it has more than {PAIRS_MAX} pairs"
    if any(low[0] >= high[0] for low, high in pairwise(pairs)):
        return "its addresses are not sorted, each once"
    names = {entry.name for entry in roster.entries}
    for address, name in pairs:
        if name not in names:
            return f"{name!a} serves an address and is no node of it"
        try:
            good = normalize_address(address) == address
        except ValueError:
            good = False
        if not good:
            return "one of its addresses is none"
    return None
