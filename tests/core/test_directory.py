# SPDX-License-Identifier: MIT
"""Who serves an address: a table of claims that count, and of what two claims do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.directory import (
    Conflict,
    Directory,
    Listed,
    Local,
    ToPeer,
    hosts_of,
    speaks_for,
)
from tests.descriptors import draft


def listed(name: str, *serves: str, confirmed: tuple[str, ...] = ()) -> Listed:
    return Listed(draft(name, serves=tuple(sorted(serves))), frozenset(confirmed))


def test_a_claim_counts_at_the_own_host_or_by_the_operators_word() -> None:
    peer = listed(
        "bravo",
        "mix@bravo.test",
        "@bravo.test",
        "mix@sub.bravo.test",
        "mix@else.test",
        "list@else.test",
        confirmed=("list@else.test", "never@claimed.test"),
    )
    assert peer.counted == ("@bravo.test", "list@else.test", "mix@bravo.test")
    assert peer.not_counted == ("mix@else.test", "mix@sub.bravo.test")


def test_a_node_without_address_speaks_for_nothing() -> None:
    assert not speaks_for(draft("bravo", addresses=()), "mix@bravo.test")
    assert speaks_for(draft("bravo", addresses=("a.b:1", "c.d:1")), "mix@c.d")


def test_a_renewed_descriptor_speaks_for_the_hosts_that_were_looked_at() -> None:
    """It may move and go on speaking for its host; for its neighbour's it may not."""
    looked_at = draft("bravo", addresses=("bravo.test:4000", "10.0.0.1:4000"))
    serves = ("mix@[10.0.0.1]", "mix@bravo.test", "mix@victim.test")
    renewed = draft("bravo", addresses=("victim.test:4000",), serves=serves)
    assert Listed(renewed).counted == ("mix@victim.test",)
    held = Listed(renewed, frozenset(), hosts_of(looked_at))
    assert held.counted == ("mix@[10.0.0.1]", "mix@bravo.test")
    assert held.not_counted == ("mix@victim.test",)
    nowhere = Listed(renewed, frozenset({"mix@bravo.test"}), frozenset())
    assert nowhere.counted == ("mix@bravo.test",)


def test_the_hosts_of_a_descriptor() -> None:
    endpoints = ("a.test:1", "a.test:2", "[::1]:3", "10.0.0.1:4")
    found = hosts_of(draft("bravo", addresses=endpoints))
    assert found == {"a.test", "[::1]", "10.0.0.1"}
    assert hosts_of(draft("bravo", addresses=())) == frozenset()
    at = Listed(draft("bravo", serves=("mix@[ipv6:::1]",)), frozenset(), found)
    assert at.counted == ("mix@[ipv6:::1]",)


def test_routes() -> None:
    directory = Directory(
        {"mix@alpha.test": 0, "@alpha.test": 1, "postmaster": 0},
        [listed("bravo", "mix@bravo.test"), listed("carol", "@carol.test")],
    )
    expected = {
        "mix@alpha.test": Local(0),
        "else@alpha.test": Local(1),
        "postmaster": Local(0),
        "mix@bravo.test": ToPeer("bravo"),
        "else@bravo.test": None,
        "any@carol.test": ToPeer("carol"),
        "any@nobody.test": None,
        "nobody": None,
    }
    assert {a: directory.route(a) for a in expected} == expected
    assert directory.conflicts == ()


def test_a_claim_that_does_not_count_blocks_nobody() -> None:
    liar = listed("liar", "mix@bravo.test", "mix@alpha.test")
    directory = Directory(
        {"mix@alpha.test": 0}, [liar, listed("bravo", "mix@bravo.test")]
    )
    assert directory.route("mix@bravo.test") == ToPeer("bravo")
    assert directory.route("mix@alpha.test") == Local(0)
    assert directory.conflicts == ()


@pytest.mark.parametrize("swapped", [False, True])
def test_two_claims_to_one_address_wait(swapped: bool) -> None:
    one = listed("bravo", "x@else.test", confirmed=("x@else.test",))
    two = listed("carol", "x@else.test", confirmed=("x@else.test",))
    directory = Directory({}, [two, one] if swapped else [one, two])
    assert directory.route("x@else.test") == Conflict()
    assert directory.conflicts == (("x@else.test", ("bravo", "carol")),)


def test_a_peer_that_claims_ours_waits_too() -> None:
    peer = listed("bravo", "mix@alpha.test", confirmed=("mix@alpha.test",))
    directory = Directory({"mix@alpha.test": 0}, [peer])
    assert directory.route("mix@alpha.test") == Conflict()
    assert directory.conflicts == (("mix@alpha.test", ("", "bravo")),)


def test_an_address_within_anothers_domain_waits_and_the_rest_goes() -> None:
    inner = listed("bravo", "x@carol.test", confirmed=("x@carol.test",))
    directory = Directory({}, [inner, listed("carol", "@carol.test", "y@carol.test")])
    assert directory.route("x@carol.test") == Conflict()
    assert directory.route("y@carol.test") == ToPeer("carol")
    assert directory.route("z@carol.test") == ToPeer("carol")
    assert directory.conflicts == (("x@carol.test", ("bravo", "carol")),)


def test_two_claims_to_a_domain() -> None:
    word = ("@else.test",)
    directory = Directory(
        {"x@else.test": 0},
        [
            listed("bravo", *word, confirmed=word),
            listed("carol", *word, confirmed=word),
        ],
    )
    assert directory.route("x@else.test") == Conflict()
    assert directory.route("y@else.test") == Conflict()


def test_whom_a_new_claim_would_contradict() -> None:
    directory = Directory(
        {"mix@alpha.test": 0, "postmaster": 0},
        [listed("bravo", "mix@bravo.test"), listed("carol", "@carol.test")],
    )
    assert directory.owners("mix@alpha.test") == {""}
    assert directory.owners("@alpha.test") == {""}
    assert directory.owners("mix@bravo.test") == {"bravo"}
    assert directory.owners("@bravo.test") == {"bravo"}
    assert directory.owners("x@carol.test") == {"carol"}
    assert directory.owners("x@bravo.test") == frozenset()
    assert directory.owners("@nobody.test") == frozenset()


def test_what_is_withheld_and_until_when() -> None:
    withheld = {"mix@gone.test": 100, "@all.test": 200}
    directory = Directory({}, [], withheld)
    assert directory.is_withheld("mix@gone.test", 99)
    assert not directory.is_withheld("mix@gone.test", 100)
    assert not directory.is_withheld("other@gone.test", 99)
    assert directory.is_withheld("any@all.test", 199)
    assert not Directory({}, []).is_withheld("mix@gone.test", 0)
    assert not directory.is_awaited("mix@gone.test", 0)
    missing = Directory({}, [], {}, withheld)
    assert missing.is_awaited("mix@gone.test", 99)
    assert not missing.is_awaited("mix@gone.test", 100)
    assert not missing.is_withheld("mix@gone.test", 99)
    assert directory.route("mix@gone.test") is None


def test_what_is_listed_is_canonical() -> None:
    directory = Directory({"mix@alpha.test": 0}, [])
    assert directory.lists("mix@alpha.test")
    assert not directory.lists("MIX@alpha.test")
    assert not directory.lists("other@alpha.test")


ADDRESSES = ("a@one.test", "b@one.test", "a@two.test", "c@three.test")
claims = st.dictionaries(
    st.sampled_from(["bravo", "carol", "delta"]),
    st.sets(st.sampled_from([*ADDRESSES, "@one.test", "@two.test"])),
)


def directory_of(claims: dict[str, set[str]]) -> Directory:
    peers = [listed(n, *s, confirmed=tuple(s)) for n, s in claims.items() if s]
    return Directory({"c@three.test": 0}, peers)


@given(claims, claims)
def test_who_lost_an_address_is_known(
    before: dict[str, set[str]], after: dict[str, set[str]]
) -> None:
    old, new = directory_of(before), directory_of(after)
    lost = old.lost_to(new)
    for address in ADDRESSES:
        was, goes = old.route(address), new.route(address)
        if was != goes:
            assert lost is not None
            assert not isinstance(was, ToPeer) or was.name in lost


def test_what_changes_no_address_moves_no_mail() -> None:
    bravo, carol = listed("bravo", "mix@bravo.test"), listed("carol", "@carol.test")
    old = Directory({}, [bravo, carol], {"x@y.test": 9})
    renewed = Listed(draft("carol", serves=("@carol.test",), serial=8))
    assert old.lost_to(Directory({}, [bravo, renewed], {"x@y.test": 9})) is None
    # Days may decide where nobody's mail goes, and who is new may have it.
    nothing: frozenset[str] = frozenset()
    both = [bravo, carol]
    assert old.lost_to(Directory({}, both)) == nothing
    assert old.lost_to(Directory({}, both, {"x@y.test": 9}, {"@z": 1})) == nothing
    delta = listed("delta", "mix@delta.test")
    assert old.lost_to(Directory({}, [*both, delta])) == nothing
    assert old.lost_to(Directory({}, [bravo])) == frozenset({"carol"})
    claims = listed("delta", "@bravo.test", confirmed=("@bravo.test",))
    assert old.lost_to(Directory({}, [*both, claims])) == frozenset({"bravo"})
