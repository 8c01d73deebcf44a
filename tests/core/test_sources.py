# SPDX-License-Identifier: MIT
"""Who lists a node, whose descriptor counts, and for what it may speak."""

from typing import Any

from mesh.core.descriptor import Descriptor
from mesh.core.directory import Listed, Us, hosts_of
from mesh.core.sources import Blend, Shared, blend
from tests.descriptors import draft

ALPHA = draft("alpha")
US = Us("alpha", "main", {"mix@alpha.test": 0}, ALPHA.identity)


def vouched(descriptor: Descriptor, *pairs: str) -> Listed:
    """As the signers list it, who saw this very descriptor."""
    return Listed(descriptor, frozenset(pairs), hosts_of(descriptor))


def shared(*listed: Listed, renewed: tuple[Descriptor, ...] = ()) -> Shared:
    return Shared(listed, {one.identity: one for one in renewed})


def names(found: Blend) -> list[str]:
    return [one.descriptor.name for one in found.listed]


def only(found: Blend) -> Listed:
    (one,) = found.listed
    assert not found.mistakes
    return one


def test_nobody() -> None:
    assert blend(US, [], Shared()) == Blend()


def test_both_lists_beside_each_other() -> None:
    carol, bravo = Listed(draft("carol")), vouched(draft("bravo"), "list@else.test")
    found = blend(US, [carol], shared(bravo, vouched(ALPHA)))
    assert found == Blend((bravo, carol), frozenset({"carol"}), frozenset({"bravo"}))


def test_of_one_node_the_newest_descriptor_and_all_that_was_confirmed() -> None:
    serves = ("a@else.test", "b@else.test", "c@else.test", "mix@bravo.test")
    changes: dict[str, Any] = {"serves": serves, "addresses": ("bravo.test:1",)}
    old = Listed(draft("bravo", **changes), frozenset({"a@else.test", "gone@x.test"}))
    moved = {**changes, "addresses": ("new.test:1",), "serial": 8}
    new = vouched(draft("bravo", **moved), "b@else.test")
    one = only(found := blend(US, [old], shared(new)))
    assert one.descriptor is new.descriptor
    assert one.counted == ("a@else.test", "b@else.test", "mix@bravo.test")
    assert one.hosts == frozenset({"bravo.test", "new.test"})
    assert found.by_hand == found.by_signers == frozenset({"bravo"})
    # the other way round: the operator has the newer one
    as_said = Listed(new.descriptor, frozenset({"c@else.test"}))
    one = only(blend(US, [as_said], shared(Listed(old.descriptor, old.confirmed))))
    assert one.descriptor is new.descriptor
    assert one.hosts == frozenset({"bravo.test", "new.test"})
    assert one.counted == ("a@else.test", "c@else.test", "mix@bravo.test")


def test_a_renewal_speaks_for_the_hosts_that_were_listed_by_hand() -> None:
    mine = Listed(draft("bravo"), frozenset({"mix@bravo.test"}))
    serves = ("mix@bravo.test", "mix@victim.test")
    moved = draft("bravo", serial=9, addresses=("victim.test:1",), serves=serves)
    one = only(blend(US, [mine], shared(renewed=(moved,))))
    assert one.descriptor is moved
    assert one.counted == ("mix@bravo.test",)
    older = draft("bravo", serial=6)
    for useless in (older, draft("zoe", seed="bravo", serial=9), draft("dave")):
        found = blend(US, [mine], shared(renewed=(useless,)))
        assert only(found) is mine


def test_what_the_operator_added_by_hand_wins() -> None:
    mine = Listed(draft("bravo"))
    other = vouched(draft("bravo", seed="mallory", serial=99))
    found = blend(US, [mine], shared(other))
    assert found.listed == (mine,)
    assert found.by_signers == frozenset()
    assert found.mistakes == (
        "bravo: the shared directory has another key for it than peers.d: yours "
        "counts; if it is not right, `mesh peers remove bravo`",
    )


def test_a_name_and_a_key_are_one_nodes() -> None:
    mine = Listed(draft("bravo"))
    thief = draft("mallory", link_keys=draft("bravo").link_keys)
    same = draft("bravo-again", seed="bravo", link_keys=draft("carol").link_keys)
    false = draft("alpha", seed="mallory")
    us_too = draft("zoe", seed="alpha")
    offered = [vouched(one) for one in (thief, same, false, us_too)]
    found = blend(US, [mine], shared(*offered))
    assert names(found) == ["bravo"]
    assert found.mistakes == tuple(
        f"{name}: the shared directory gives it a name or key of {owner}: "
        "it does not count here: tell the signers"
        for name, owner in (
            ("mallory", "bravo"),
            ("bravo-again", "bravo"),
            ("alpha", "this node"),
            ("zoe", "this node"),
        )
    )


def test_two_of_the_signers_with_one_key_the_first_has_it() -> None:
    second = draft("dave", link_keys=draft("carol").link_keys)
    found = blend(US, [], shared(vouched(draft("carol")), vouched(second)))
    assert names(found) == ["carol"]
    assert "a name or key of carol" in found.mistakes[0]


def test_a_renewal_takes_no_key_of_another() -> None:
    mine, other = Listed(draft("bravo")), Listed(draft("carol"))
    keys = (*draft("bravo").link_keys, *draft("carol").link_keys)
    greedy = draft("bravo", serial=8, link_keys=keys)
    found = blend(US, [mine, other], shared(renewed=(greedy,)))
    assert found.listed == (mine, other)
    assert found.mistakes == (
        "bravo: its new descriptor has a key of carol: the one before it counts: "
        "ask its operator",
    )


def test_two_renewals_with_one_new_key_the_first_has_it() -> None:
    fresh = draft("fresh").link_keys
    renewed = tuple(draft(n, serial=8, link_keys=fresh) for n in ("bravo", "carol"))
    mine = [Listed(draft("bravo")), Listed(draft("carol"))]
    found = blend(US, mine, shared(renewed=renewed))
    assert [one.descriptor.serial for one in found.listed] == [8, 7]
    assert len(found.mistakes) == 1


def test_what_two_files_contest_the_signers_do_not_decide() -> None:
    bravo = draft("bravo")
    found = blend(US, [], shared(vouched(bravo)), contested=["bravo"])
    assert found.listed == ()
    assert "of another in peers.d" in found.mistakes[0]
    found = blend(US, [], shared(vouched(bravo)), contested=[bravo.link_keys[0]])
    assert found.listed == ()


def test_keys_in_doubt_take_nobodys_place() -> None:
    """Its addresses stay its own; the operator's descriptor still opens the door."""
    doubted = draft("bravo", serial=9, link_keys=(), addresses=())
    theirs = Listed(doubted, frozenset(), frozenset({"bravo.test"}))
    found = blend(US, [], shared(theirs))
    assert only(found).counted == ("mix@bravo.test",)
    mine = Listed(draft("bravo"))
    assert only(blend(US, [mine], shared(theirs))).descriptor is mine.descriptor


def test_whom_the_operator_distrusts_is_not_listed() -> None:
    bravo = draft("bravo")
    assert blend(US, [], shared(vouched(bravo)), {bravo.identity}) == Blend()
    found = blend(US, [Listed(bravo)], shared(vouched(bravo)), {bravo.identity})
    assert found.by_signers == frozenset()
    assert names(found) == ["bravo"]
