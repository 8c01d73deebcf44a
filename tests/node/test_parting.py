# SPDX-License-Identifier: MIT
"""Who goes with whom, and the records that a record becomes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.crypto import Key
from mesh.core.record import NO_ID, Record
from mesh.node import parting as module
from mesh.node.parting import Parting
from mesh.node.routing import UNROUTED

ROUTES = {"a": "bravo", "b": "charlie", "c": "bravo", "d": "local:0"}
KEY = Key.from_bytes(b"p" * 32)
WHOLE = Record(
    b"i" * 16, b"o" * 16, b"n" * 16, "bravo", "from@x", ("a", "b", "c", "no"), 7, b"x"
)


def parting(*, known: bool = True, key: Key = KEY) -> Parting:
    return Parting(lambda to: ROUTES.get(to), key, lambda *_: known)


def test_each_recipient_with_those_of_its_place() -> None:
    assert parting().places(["a", "no", "b", "c"]) == {
        "bravo": ["a", "c"],
        UNROUTED: ["no"],
        "charlie": ["b"],
    }


@given(st.lists(st.sampled_from("abcdefg"), unique=True, min_size=1))
def test_parts_are_the_whole_once_and_each_for_one_place(names: list[str]) -> None:
    whole = replace(WHOLE, recipients=tuple(names))
    parts = parting().parts(whole)
    assert sorted(to for part in parts for to in part.recipients) == sorted(names)
    assert len({part.destination for part in parts}) == len(parts)
    for part in parts:
        assert {ROUTES.get(to, UNROUTED) for to in part.recipients} == {
            part.destination
        }
        assert replace(
            part, id=whole.id, destination="bravo", recipients=whole.recipients
        ) == (whole)


@pytest.mark.parametrize("place", ["bravo", UNROUTED])
def test_what_was_taken_for_a_peer_waits_rather_than_leaves_in_clear(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROUTES, "a", "exit:a")
    monkeypatch.setitem(ROUTES, "c", "exit:c")
    record = replace(WHOLE, recipients=("a", "no", "b", "c"), destination=place)
    waits = {"charlie": ["b"], UNROUTED: ["a", "no", "c"]}
    assert parting().places_of(record) == waits
    for part in parting().parts(record):  # nor when it has been divided
        if part.destination == UNROUTED:
            assert parting().places_of(part) == {UNROUTED: waits[UNROUTED]}
    for ours in ("local:0", "exit:a"):
        free = replace(record, destination=ours)
        assert parting().places_of(free) == parting().places(record.recipients)


def test_what_is_left_to_divide_was_taken_for_whom_the_whole_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "COPIES_MAX", 1)
    for place in ("bravo", "exit:a"):
        *_, left = parting().parts(replace(WHOLE, destination=place))
        assert len(left.recipients) > 1
        assert left.destination == place


def test_ids_come_again_with_the_key_and_with_nothing_else() -> None:
    ids = [part.id for part in parting().parts(WHOLE)]
    assert len({*ids, WHOLE.id}) == 4
    assert [part.id for part in parting().parts(WHOLE)] == ids
    other = parting(key=Key.from_bytes(b"q" * 32)).parts(WHOLE)
    assert not {part.id for part in other} & set(ids)
    another = parting().parts(replace(WHOLE, id=b"j" * 16))
    assert not {part.id for part in another} & set(ids)
    # A place, or a recipient more, is another hop of another message.
    one = parting().rest(WHOLE, ("a",), "bravo")
    assert one.id != parting().rest(WHOLE, ("a",), "charlie").id
    assert one.id != parting().rest(WHOLE, ("a", "c"), "bravo").id


def test_the_id_of_a_peer_lives_on_as_long_as_it_may_offer_it() -> None:
    for part in parting().parts(WHOLE):
        assert (part.origin, part.origin_id) == (WHOLE.origin, WHOLE.origin_id)
    for part in parting(known=False).parts(WHOLE):
        assert (part.origin, part.origin_id) == (WHOLE.origin, NO_ID)


def test_a_name_that_leaves_no_room_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}{'x' * 90}" for number in range(9)]
    monkeypatch.setattr(
        "tests.node.test_parting.ROUTES", {names[0]: "e" * 200} | dict.fromkeys(names[1:], "f" * 250)
    )  # fmt: skip
    parts = parting().parts(replace(WHOLE, recipients=tuple(names)))
    assert [to for part in parts for to in part.recipients] == names
    assert len(parts) == 3


@pytest.mark.parametrize(("copies", "count"), [(1, 2), (2, 2), (3, 3), (4, 4), (9, 4)])
def test_no_more_copies_than_there_may_be(
    copies: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COPIES_MAX", 100 * copies)
    left = [replace(WHOLE, recipients=("a", "b", "d", "no"), content=b"x" * 100)]
    whole: list[Record] = []
    first = parting().parts(left[0])
    assert len(first) == count
    for _ in range(9):
        parts = [part for record in left for part in parting().parts(record)]
        left = [part for part in parts if len(part.recipients) > 1]
        whole += [part for part in parts if len(part.recipients) == 1]
    assert not left
    assert {(part.recipients, part.destination) for part in whole} == {
        (("a",), "bravo"), (("b",), "charlie"), (("d",), "local:0"), (("no",), "?"),
    }  # fmt: skip
    assert len({part.id for part in whole}) == len(whole) == 4
