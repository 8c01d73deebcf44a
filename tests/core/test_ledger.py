# SPDX-License-Identifier: MIT
"""Ledgers: what is told, what is kept private, and where two of them differ."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.frames import BUCKETS, NO_HEAD, NODE_LEN, Head
from mesh.core.ledger import Ledger, bucket_of, node_of

HEAD = Head(7, b"h" * 32)
US = b"\xff" * NODE_LEN
NODES = st.dictionaries(
    st.binary(min_size=NODE_LEN, max_size=NODE_LEN), st.integers(0, 2**63)
)


def test_a_node_is_a_hash_of_its_identity() -> None:
    whole = hashlib.blake2b(b"mesh/1 node\0" + b"i" * 32, digest_size=32)
    assert node_of(b"i" * 32) == whole.digest()[:8]


@given(NODES)
def test_every_node_is_in_its_bucket(nodes: dict[bytes, int]) -> None:
    ledger = Ledger.of(US, 1, HEAD, nodes)
    assert len(ledger.buckets) == BUCKETS
    for number, bucket in enumerate(ledger.buckets):
        pairs = [bucket[at : at + 16] for at in range(0, len(bucket), 16)]
        assert pairs == sorted(
            node + serial.to_bytes(8, "big")
            for node, serial in nodes.items()
            if node[0] >> 2 == number
        )
        digest = hashlib.blake2b(b"mesh/1 serials\0" + bucket, digest_size=32)
        want = digest.digest()[:8] if bucket else bytes(8)
        assert ledger.sums[number * 8 :][:8] == want


@given(NODES, NODES)
def test_what_differs_is_found_and_nothing_else(
    some: dict[bytes, int], others: dict[bytes, int]
) -> None:
    ours, theirs = Ledger.of(US, 1, HEAD, some), Ledger.of(US, 1, HEAD, others)
    changed = {n for n in some | others if some.get(n) != others.get(n)}
    found = {n for n in range(BUCKETS) if ours.differing(theirs.sums) >> n & 1}
    assert found == {bucket_of(node) for node in changed}


def test_what_only_peers_d_lists_is_known_and_not_told() -> None:
    near, far = b"near".ljust(8), b"far".ljust(8)
    ledger = Ledger.of(US, 9, HEAD, {near: 3}, {far: 4})
    assert (ledger.serial_of(near), ledger.serial_of(far)) == (3, 4)
    assert ledger.serial_of(b"none".ljust(8)) is None
    assert [ledger.tells(node) for node in (US, near, far)] == [True, True, False]
    assert ledger.told == Ledger.of(US, 9, HEAD, {near: 3}).told


def test_without_a_directory_nothing_is_shared() -> None:
    near = b"near".ljust(8)
    ledger = Ledger.of(US, 9, NO_HEAD, {near: 3})
    assert ledger.serial_of(near) == 3
    assert not ledger.tells(near)
    assert not any(ledger.sums)
