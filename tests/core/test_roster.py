# SPDX-License-Identifier: MIT
"""Rosters: the list that signers sign, its rules, and that nothing else parses."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.armour import TIME_MAX
from mesh.core.crypto import hash256, sign
from mesh.core.descriptor import fingerprint
from mesh.core.encoding import encode
from mesh.core.parts import join, split_untrusted
from mesh.core.root import VERSION_MAX
from mesh.core.roster import (
    NO_HASH,
    NODES_MAX,
    PAIRS_MAX,
    VALIDITY_MAX_SECONDS,
    Entry,
    Roster,
    check_roster,
    entry_of,
    roster_from_octets_untrusted,
    sign_roster,
    verify_roster,
)
from mesh.errors import DirectoryError
from tests.descriptors import DAY, NOW, identity_of, signed
from tests.directories import members, public_of, roster_of, signatures_of

PAIRS = (("mix@other.test", "alpha"), ("x@other.test", "charlie"))
PLAIN = roster_of(members(), pairs=PAIRS)
ENTRY = PLAIN.entries[0]


def fields_of(roster: Roster) -> list[list[Any]]:
    """The parts of the module's table, written out here a second time."""
    r = roster
    numbers = [r.issued, r.not_after, len(r.entries), len(r.pairs)]
    hashes = [r.root, r.predecessor]
    head = [1, r.network, r.version, r.root_version, *hashes, *numbers]
    entries = [[e.name, e.identity, e.serial, e.digest, [*e.hosts]] for e in r.entries]
    return [head, *entries, *([*pair] for pair in r.pairs)]


def octets_of(parts: list[Any]) -> bytes:
    return join(encode(part) for part in parts)


def test_the_layout() -> None:
    octets = octets_of(fields_of(PLAIN))
    assert PLAIN.statement == octets
    assert PLAIN.hash == hash256(b"mesh/1 roster\x00", octets)
    message = b"mesh/1 roster signature\x00" + PLAIN.hash
    signature = sign(identity_of("ann"), message)
    assert sign_roster(PLAIN, identity_of("ann")) == (public_of("ann"), signature)
    assert roster_from_octets_untrusted(octets) == PLAIN
    assert roster_from_octets_untrusted(octets).statement == octets


def test_a_changed_roster_is_spelled_anew() -> None:
    other = replace(PLAIN, version=2, predecessor=b"x" * 32)
    assert other.statement != PLAIN.statement
    assert other.hash != PLAIN.hash


def test_the_order_is_roots_first() -> None:
    places = [(1, 1), (1, 2), (1, VERSION_MAX), (2, 1), (3, 1)]
    orders = [replace(PLAIN, root_version=r, version=v).order for r, v in places]
    assert orders == sorted(set(orders))
    assert replace(PLAIN, root_version=VERSION_MAX, version=VERSION_MAX).order < 1 << 64


def test_an_entry_is_what_signers_saw() -> None:
    node = signed(
        "alpha",
        addresses=("b.test:1", "a.test:1", "a.test:2", "[2001:db8::1]:4000"),
    )
    hosts = ("[2001:db8::1]", "a.test", "b.test")
    assert entry_of(node) == Entry("alpha", node.identity, 7, node.digest, hosts)
    assert node.digest == hash256(b"mesh/1 descriptor\x00", node.statement)


def with_entry(**changes: Any) -> Roster:
    return replace(PLAIN, entries=(replace(ENTRY, **changes), *PLAIN.entries[1:]))


VALIDITY = "validity is not a span"
RULES = [
    (replace(PLAIN, network="Main"), "network"),
    (replace(PLAIN, version=0), "version"),
    (replace(PLAIN, version=VERSION_MAX + 1), "version"),
    (replace(PLAIN, root_version=0), "version"),
    (replace(PLAIN, root_version=VERSION_MAX + 1), "version"),
    (replace(PLAIN, root=b"x" * 31), "root or its predecessor is no hash"),
    (replace(PLAIN, predecessor=b"x" * 31), "root or its predecessor is no hash"),
    (replace(PLAIN, predecessor=b"x" * 32), "only the first has no predecessor"),
    (replace(PLAIN, version=2, predecessor=b"x" * 31), "predecessor is no hash"),
    (replace(PLAIN, version=2), "only the first has no predecessor"),
    (replace(PLAIN, issued=-1, not_after=DAY), VALIDITY),
    (replace(PLAIN, not_after=PLAIN.issued), VALIDITY),
    (replace(PLAIN, not_after=PLAIN.issued + VALIDITY_MAX_SECONDS + 1), VALIDITY),
    (replace(PLAIN, issued=253_402_300_799, not_after=253_402_300_800), VALIDITY),
    (replace(PLAIN, entries=(), pairs=()), "not 1 to 20000 nodes"),
    (replace(PLAIN, entries=PLAIN.entries[::-1]), "not sorted"),
    (replace(PLAIN, entries=(ENTRY, *PLAIN.entries)), "each once"),
    (with_entry(identity=PLAIN.entries[1].identity), "two of its nodes have one key"),
    (with_entry(name="../x"), "against the rules"),
    (with_entry(identity=b"x" * 31), "against the rules"),
    (with_entry(serial=0), "against the rules"),
    (with_entry(serial=1 << 63), "against the rules"),
    (with_entry(digest=b"x" * 31), "against the rules"),
    (with_entry(hosts=("A.test",)), "against the rules"),
    (with_entry(hosts=("not a host",)), "against the rules"),
    (with_entry(hosts=("b.test", "a.test")), "against the rules"),
    (with_entry(hosts=("a.test", "a.test")), "against the rules"),
    (with_entry(hosts=tuple(f"{n}.test" for n in range(9))), "against the rules"),
    (replace(PLAIN, pairs=PAIRS[::-1]), "addresses are not sorted"),
    (replace(PLAIN, pairs=(PAIRS[0], PAIRS[0])), "each once"),
    (replace(PLAIN, pairs=(PAIRS[0], ("mix@other.test", "bravo"))), "each once"),
    (replace(PLAIN, pairs=(("mix@other.test", "delta"),)), "'delta' .* is no node"),
    (replace(PLAIN, pairs=(("Mix@other.test", "alpha"),)), "addresses is none"),
    (replace(PLAIN, pairs=(("nonsense", "alpha"),)), "addresses is none"),
]


@pytest.mark.parametrize(("wrong", "why"), RULES)
def test_each_rule_binds_us_and_them(wrong: Roster, why: str) -> None:
    with pytest.raises(DirectoryError, match=why):
        check_roster(wrong)
    with pytest.raises(DirectoryError, match=why):
        roster_from_octets_untrusted(octets_of(fields_of(wrong)))


def many(count: int) -> tuple[Entry, ...]:
    return tuple(
        replace(ENTRY, name=f"n{n:05}", identity=n.to_bytes(32, "big"))
        for n in range(count)
    )


@pytest.mark.usefixtures("repeats")
def test_the_bounds_are_inside() -> None:
    pairs = tuple((f"a{n:05}@x.test", "n00000") for n in range(PAIRS_MAX))
    most = replace(
        PLAIN,
        version=VERSION_MAX,
        root_version=VERSION_MAX,
        predecessor=b"x" * 32,
        entries=many(NODES_MAX),
        pairs=pairs,
        issued=TIME_MAX - VALIDITY_MAX_SECONDS,
        not_after=TIME_MAX,
    )
    assert roster_from_octets_untrusted(most.statement) == most
    least = replace(with_entry(serial=1), issued=0, not_after=1)
    assert roster_from_octets_untrusted(least.statement) == least


def test_more_than_that_is_not_read() -> None:
    nodes = replace(PLAIN, entries=many(NODES_MAX + 1), pairs=())
    with pytest.raises(DirectoryError, match="not 1 to 20000 nodes"):
        check_roster(nodes)
    pairs = tuple((f"a{n:05}@x.test", "alpha") for n in range(PAIRS_MAX + 1))
    with pytest.raises(DirectoryError, match="more than 20000 pairs"):
        check_roster(replace(PLAIN, pairs=pairs))


def test_the_longest_entry_fits() -> None:
    hosts = tuple(sorted(f"{n}{'a.' * 125}b" for n in range(8)))
    long = replace(
        ENTRY, name="a" * 63, identity=b"x" * 32, serial=(1 << 63) - 1, hosts=hosts
    )
    one = replace(PLAIN, entries=(long,), pairs=())
    assert roster_from_octets_untrusted(one.statement) == one


@pytest.mark.parametrize(("part", "length"), [(0, 10), (1, 5), (4, 2)])
@pytest.mark.parametrize("value", [None, True, -1, "X", b"x", [None], [[]], ["x", 1]])
def test_fields_of_the_wrong_type(part: int, length: int, value: Any) -> None:
    for index in range(length):
        fields = fields_of(PLAIN)
        fields[part][index] = value
        with pytest.raises(DirectoryError):
            roster_from_octets_untrusted(octets_of(fields))


@pytest.mark.parametrize("part", [0, 1, 4])
@pytest.mark.parametrize("change", [lambda f: f[:-1], lambda f: [*f, 0], lambda f: 5])
def test_parts_of_the_wrong_shape(part: int, change: Any) -> None:
    fields: list[Any] = [*fields_of(PLAIN)]
    fields[part] = change(fields[part])
    with pytest.raises(DirectoryError):
        roster_from_octets_untrusted(octets_of(fields))


def with_head(**at: Any) -> bytes:
    fields = fields_of(PLAIN)
    for index, value in at.items():
        fields[0][int(index[1:])] = value
    return octets_of(fields)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "of a form"),
        (with_head(_0=2), "of a form that this mesh does not read: upgrade it"),
        (with_head(_0=True), "of a form"),
        (with_head(_8=2), "damaged"),
        (with_head(_8=4), "damaged"),
        (with_head(_8=5, _9=0), "damaged"),
        (with_head(_8=6, _9=-1), "damaged"),
        (with_head(_8=-1, _9=6), "damaged"),
        (with_head(_9=1), "damaged"),
        (octets_of([[*fields_of(PLAIN)[0][:8], 4, -1], *fields_of(PLAIN)[1:4]]), "dam"),
        (PLAIN.statement + b"\0", "damaged"),
        (PLAIN.statement + join([b""]), "damaged"),
        (join([encode("x" * 5000)]), "damaged"),
    ],
)
def test_octets_that_are_no_roster(octets: bytes, why: str) -> None:
    with pytest.raises(DirectoryError, match=why):
        roster_from_octets_untrusted(octets)


def test_a_part_that_is_not_canonical() -> None:
    parts = split_untrusted(PLAIN.statement, max_parts=9)
    parts[4] = b"\x92\xd9\x0emix@other.test\xa5alpha"
    with pytest.raises(DirectoryError, match="damaged"):
        roster_from_octets_untrusted(join(parts))


def test_a_bomb_of_empty_arrays_is_not_unpacked() -> None:
    bomb = b"\xdd\x00\x10\x00\x00" + b"\x90" * 0x100000
    with pytest.raises(DirectoryError, match="damaged"):
        roster_from_octets_untrusted(join([fields_head(), bomb]))


def fields_head() -> bytes:
    return encode([*fields_of(PLAIN)[0][:8], 1, 0])


@given(st.binary(max_size=80))
def test_any_octets_parse_or_raise_one_error(octets: bytes) -> None:
    for wrapped in (octets, join([octets]), join([fields_head(), octets])):
        with pytest.raises(DirectoryError):
            roster_from_octets_untrusted(wrapped)


@given(st.integers(0, len(PLAIN.statement) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_another_roster(index: int, bit: int) -> None:
    wrong = bytearray(PLAIN.statement)
    wrong[index] ^= 1 << bit
    try:
        found = roster_from_octets_untrusted(bytes(wrong))
    except DirectoryError:
        return
    assert found.hash != PLAIN.hash
    with pytest.raises(DirectoryError, match="does not hold"):
        verify_roster(found, signatures_of(PLAIN, ["ann"]), [public_of("ann")])


def test_signatures() -> None:
    made = signatures_of(PLAIN, ["ann", "bob"])
    verify_roster(PLAIN, made, [public_of("ann"), public_of("bob")])
    with pytest.raises(DirectoryError, match="no signer") as caught:
        verify_roster(PLAIN, made, [public_of("ann")])
    assert fingerprint(public_of("bob")) in str(caught.value)
    other = replace(PLAIN, issued=int(NOW) - 1)
    with pytest.raises(DirectoryError, match="does not hold"):
        verify_roster(other, made, [public_of("ann"), public_of("bob")])


def test_nothing_of_the_first_is_a_hash() -> None:
    assert len(NO_HASH) == 32
