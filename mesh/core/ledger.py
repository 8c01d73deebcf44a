# SPDX-License-Identifier: MIT
"""What a node can tell of the directory: its head, and the serials that it holds.

    node     first 8 octets of BLAKE2b-256("mesh/1 node" 00, identity)
    pair     node, serial u64: a descriptor of that serial is here
    bucket   the pairs of all nodes whose first octet, halved twice, is its number,
             sorted; 64 of them
    sum      first 8 octets of BLAKE2b-256("mesh/1 serials" 00, bucket); zeros for an
             empty one

`shared` are the nodes of the directory in force: they are in the sums, and whoever has
the same directory asks for what differs.  `private` are those that only peers.d lists:
their serials are compared with what they say themselves and are told to nobody, for
whom an operator knows is no other node's business.

A Ledger never changes; a new one takes its place.  10,000 nodes take a hundredth of
a second to write down, so that is a thread's work.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mesh.core.crypto import hash256
from mesh.core.frames import BUCKETS, NO_HEAD, NODE_LEN, SUM_LEN, Head, pair

_NOTHING: Final[Mapping[bytes, int]] = {}
_NO_SUM: Final = bytes(SUM_LEN)


def node_of(identity: bytes) -> bytes:
    """Name a node by its identity key."""
    return hash256(b"mesh/1 node\0", identity)[:NODE_LEN]


def bucket_of(node: bytes) -> int:
    """Give the bucket in which a node's pair is."""
    return node[0] * BUCKETS // 256


@dataclass(frozen=True)
class Ledger:
    """What there is to tell, at one time; `node` and `serial` are our own."""

    node: bytes = bytes(NODE_LEN)
    serial: int = 0
    head: Head = NO_HEAD
    shared: Mapping[bytes, int] = field(default_factory=dict)
    private: Mapping[bytes, int] = field(default_factory=dict)
    buckets: tuple[bytes, ...] = (b"",) * BUCKETS
    sums: bytes = _NO_SUM * BUCKETS

    @classmethod
    def of(
        cls,
        node: bytes,
        serial: int,
        head: Head = NO_HEAD,
        shared: Mapping[bytes, int] = _NOTHING,
        private: Mapping[bytes, int] = _NOTHING,
    ) -> "Ledger":
        """Write it down; without a directory nothing is shared."""
        if not head.order:
            shared, private = _NOTHING, {**private, **shared}
        parts: list[list[bytes]] = [[] for _ in range(BUCKETS)]
        for each in sorted(shared):
            parts[bucket_of(each)].append(pair(each, shared[each]))
        buckets = tuple(b"".join(part) for part in parts)
        sums = b"".join(
            hash256(b"mesh/1 serials\0", bucket)[:SUM_LEN] if bucket else _NO_SUM
            for bucket in buckets
        )
        return cls(node, serial, head, shared, private, buckets, sums)

    @property
    def told(self) -> tuple[Head, int, bytes]:
        """What every peer is told."""
        return self.head, self.serial, self.sums

    def differing(self, sums: bytes) -> int:
        """Say which buckets have another sum: bit n for bucket n."""
        found = 0
        for number in range(BUCKETS):
            at = number * SUM_LEN
            if sums[at : at + SUM_LEN] != self.sums[at : at + SUM_LEN]:
                found |= 1 << number
        return found

    def tells(self, node: bytes) -> bool:
        """Whether a peer may have the descriptor of this node from us."""
        return node == self.node or node in self.shared

    def serial_of(self, node: bytes) -> int | None:
        """Give the serial that we hold of a listed node; None: it is not listed."""
        found = self.shared.get(node)
        return self.private.get(node) if found is None else found
