# SPDX-License-Identifier: MIT
"""The responder: who is let in; messages 1 and 3 wrong in every way there is."""

import random
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mesh.core.cell import BODY_LEN
from mesh.core.gate import (
    PENDING_SECONDS,
    UNPROVEN_PER_MINUTE,
    UNPROVEN_SECONDS,
    Gate,
    Responder,
)
from mesh.core.handshake import REFUSED
from mesh.errors import HandshakeError, LocalProtocolError
from tests.handshakes import (
    COUNTER,
    DIRECTORY,
    LOW_ORDER,
    R_CLOCK,
    R_KLASS,
    Listing,
    damaged,
    dial,
    draw,
    gate,
    hello,
    identity,
    live_keys,
    peer,
    resealed,
    settled_keys,
    static,
    values,
    vector,
)
from tests.straightline import Values, dh, dh_public, id_public, run, xs

BODY = bytes(range(255)) * 16
V = values("first")
TRUE = run(V)
OTHER = run(values("second"))
NOT_FOR_ROB = (
    run(values("third", responder="una")).wires[0],
    run(values("fourth").but(network=b"other")).wires[0],
)
IVY = peer("ivy").link_keys[0]
UNA = peer("una").link_keys[0]
NO_POINT = b"\xff" * 1184
"""Coefficients of 4,095 where FIPS 203 has them below 3,329."""


def opened(**options: object) -> Gate:
    return gate(V, "first", **options)  # type: ignore[arg-type]


def assert_silent(closed: Gate, wire: bytes, now: float = 0.0) -> None:
    """No responder, so not an octet in answer; one text, and no cause, for all."""
    with pytest.raises(HandshakeError) as caught:
        closed.receive_message_1_untrusted(wire, now)
    assert caught.value.args == (REFUSED,)
    assert caught.value.__suppress_context__


def assert_no_session(responder: Responder, wire: bytes, now: float = 1.0) -> None:
    with pytest.raises(HandshakeError) as caught:
        responder.receive_message_3_untrusted(wire, now)
    assert caught.value.args == (REFUSED,)
    assert caught.value.__suppress_context__
    with pytest.raises(LocalProtocolError):
        responder.receive_message_3_untrusted(TRUE.wires[2], now)


def first(counter: int, **changes: bytes) -> bytes:
    """A right message 1 of ivy's with this counter."""
    return run(V.but(hello=hello(counter), **changes)).wires[0]


def pending(one: Gate, counter: int = COUNTER, now: float = 0.0) -> Responder:
    return one.receive_message_1_untrusted(first(counter), now)


def finish(one: Gate, counter: int, now: float) -> None:
    """A whole handshake of ivy's."""
    expected = run(V.but(hello=hello(counter)))
    responder = one.receive_message_1_untrusted(expected.wires[0], now)
    assert responder.message_2 == expected.wires[1]
    responder.receive_message_3_untrusted(expected.wires[2], now + 1.0)


# What holds


@pytest.mark.parametrize("name", ["vector", "first", "second"])
def test_known_answers(name: str) -> None:
    v, expected = vector() if name == "vector" else (values(name), run(values(name)))
    responder = gate(v, name).receive_message_1_untrusted(expected.wires[0], 0.0)
    assert responder.message_2 == expected.wires[1]
    session = responder.receive_message_3_untrusted(expected.wires[2], 1.0)
    out = ChaCha20Poly1305(expected.k_ri).encrypt(bytes(12), BODY, None)
    assert session.sealer.seal(BODY) == out
    coming = ChaCha20Poly1305(expected.k_ir).encrypt(bytes(12), BODY, None)
    assert session.opener.open_untrusted(coming) == BODY


def test_both_of_our_own_ends_agree() -> None:
    one, initiator = opened(), dial(V, "first")
    responder = one.receive_message_1_untrusted(bytearray(initiator.message_1()), 0.0)
    wire = initiator.receive_message_2_untrusted(responder.message_2)
    theirs = responder.receive_message_3_untrusted(bytearray(wire), 1.0)
    ours = initiator.session()
    for _ in range(130):
        assert theirs.opener.open_untrusted(ours.sealer.seal(BODY)) == BODY
        assert ours.opener.open_untrusted(theirs.sealer.seal(BODY)) == BODY
    assert (ours.klass, ours.clock) == (theirs.klass, theirs.clock)
    assert (theirs.klass, theirs.clock) == (R_KLASS, R_CLOCK)
    assert theirs.counter == ours.counter == COUNTER
    assert theirs.peer == peer("ivy")
    assert theirs.peer_link_key == IVY
    assert not theirs.we_initiated
    assert (theirs.directory_version, theirs.directory_hash) == DIRECTORY
    assert len(BODY) == BODY_LEN


@pytest.mark.parametrize("used", ["rob", "rob's new key"])
def test_either_of_two_link_keys_opens(used: str) -> None:
    v = V.but(s_r=draw(f"{used} link"))
    expected = run(v)
    one = opened(statics=("rob's new key", "rob"))
    responder = one.receive_message_1_untrusted(expected.wires[0], 0.0)
    assert responder.message_2 == expected.wires[1]
    responder.receive_message_3_untrusted(expected.wires[2], 1.0)
    assert_silent(opened(statics=("another", "a third")), expected.wires[0])


@pytest.mark.parametrize("count", [0, 3])
def test_a_node_has_one_link_key_or_two(count: int) -> None:
    with pytest.raises(LocalProtocolError):
        opened(statics=("rob",) * count)


NEW = V.but(s_r=draw("rob's new key link"))
"""The same dial to rob's new link key."""


def test_a_new_link_key_of_ours_beside_the_old_and_then_alone() -> None:
    one = opened()
    finish(one, 1, 0.0)
    assert_silent(one, run(NEW.but(hello=hello(2))).wires[0])
    one.rekey([static("rob's new key"), static("rob")])
    finish(one, 3, 1.0)
    both = run(NEW.but(hello=hello(4)))
    responder = one.receive_message_1_untrusted(both.wires[0], 2.0)
    assert responder.message_2 == both.wires[1]
    one.rekey([static("rob's new key")])
    responder.receive_message_3_untrusted(both.wires[2], 3.0)
    assert_silent(one, first(5), 4.0)
    alone = run(NEW.but(hello=hello(6)))
    one.receive_message_1_untrusted(alone.wires[0], 5.0)


def test_a_handshake_under_the_old_link_key_outlives_it() -> None:
    one = opened()
    responder = pending(one)
    one.rekey([static("rob's new key")])
    responder.receive_message_3_untrusted(TRUE.wires[2], 1.0)


def test_what_follows_from_a_link_key_that_went_is_wiped() -> None:
    one = opened(statics=("rob's new key", "rob"))
    finish(one, 1, 0.0)
    new = run(NEW.but(hello=hello(2)))
    one.receive_message_1_untrusted(new.wires[0], 1.0).abandon()
    old = one._secrets[IVY, peer("rob").link_keys[0]]
    hellos = [door.hello for door in one._doors]
    one.rekey([static("rob's new key")])
    assert [key for _, key in one._secrets] == [peer("rob's new key").link_keys[0]]
    for gone in (old, *hellos):
        with pytest.raises(LocalProtocolError):
            gone.unsafe_bytes()


@pytest.mark.parametrize("count", [0, 3])
def test_a_change_of_link_keys_leaves_one_or_two(count: int) -> None:
    one = opened()
    with pytest.raises(LocalProtocolError):
        one.rekey([static("rob")] * count)
    finish(one, COUNTER, 0.0)


def test_counters_are_each_link_keys_own() -> None:
    """A peer's new key starts afresh; its old one goes on from where it was."""
    new = dh_public(draw("ivy's new link"))
    listing, counters = Listing("ivy"), dict[bytes, int]()
    listing.peers[new] = peer("ivy")
    one = opened(listing=listing, counters=counters)
    finish(one, COUNTER, 0.0)
    fresh = run(V.but(hello=hello(1), s_i=draw("ivy's new link")))
    one.receive_message_1_untrusted(fresh.wires[0], 2.0).abandon()
    assert counters == {IVY: COUNTER, new: 1}
    assert_silent(one, fresh.wires[0], 3.0)
    assert_silent(one, TRUE.wires[0], 3.0)
    finish(one, COUNTER + 1, 4.0)


# Message 1


def lie(**changes: bytes) -> Values:
    return V.but(**changes)


LIES_1: dict[str, Values] = {
    "a stranger who has the descriptor": lie(
        id_i=draw("mallory id"), s_i=draw("mallory link")
    ),
    "a stranger who says that he is nobody": lie(
        s_i=draw("mallory link"), claimed_i=bytes(32)
    ),
    "a stranger with a listed identity": lie(s_i=draw("mallory link")),
    "a listed link key without its secret": lie(s_i=draw("mallory link"), sent_s_i=IVY),
    "a listed link key, the gate tried with zeros": lie(
        sent_s_i=IVY, gate_secret=bytes(32)
    ),
    "our own link key": lie(id_i=draw("rob id"), s_i=draw("rob link")),
    "another network": lie(network=b"other"),
    "another responder's identity": lie(id_r=draw("una id")),
    "another responder's link key": lie(s_r=draw("una link")),
    "counter 0": lie(hello=hello(0)),
    "a class that is none": lie(hello=hello(terms=bytes([16, 0]))),
    "a clock that is none": lie(hello=hello(terms=bytes([0, 5]))),
    "octets after the terms": lie(hello=hello()[:-1] + b"\1"),
    "octets in the filling": lie(filling=b"\1"),
    "a late octet in the filling": lie(filling=bytes(2000) + b"\1"),
    "a KEM key that fails its check": lie(k_i=NO_POINT),
    **{
        f"e_I of low order, point {number}": lie(sent_e_i=point)
        for number, point in enumerate(LOW_ORDER)
    },
    **{
        f"S_I of low order, point {number}": lie(
            sent_s_i=point, gate_secret=bytes(32), claimed_i=id_public(draw("low id"))
        )
        for number, point in enumerate(LOW_ORDER)
    },
}
SPENDS_ITS_COUNTER = (
    "a class that is none",
    "a clock that is none",
    "octets after the terms",
    "a KEM key that fails its check",
)
"""Only a holder of the peer's link key comes so far."""


@pytest.mark.parametrize("name", LIES_1)
def test_an_initiator_that_lies(name: str) -> None:
    """All else is right and correctly sealed."""
    listing = Listing("ivy", "una", "rob")  # the directory lists ourselves too
    for point in LOW_ORDER:
        listing.peers[point] = peer("low")
    counters: dict[bytes, int] = {}
    one = opened(listing=listing, counters=counters)
    before = settled_keys()
    assert_silent(one, run(LIES_1[name]).wires[0])
    spent = name in SPENDS_ITS_COUNTER
    assert counters == ({IVY: COUNTER} if spent else {})
    assert settled_keys() <= before + 1  # DH(S_I, S_R) of a listed key is kept
    finish(one, COUNTER + 1, 0.0)


def test_nothing_is_kept_for_a_stranger() -> None:
    listing = Listing("ivy")
    one = opened(listing=listing)
    before = settled_keys()
    for number in range(20):
        stranger = lie(s_i=draw(f"stranger {number}"))
        assert_silent(one, run(stranger).wires[0])
    assert live_keys() == before
    assert len(listing.asked) == 20


def test_a_listed_peer_that_is_ourselves_under_another_key() -> None:
    """A mirror: our identity, listed with somebody's link key."""
    listing = Listing("rob")
    listing.peers[IVY] = peer("rob")
    mirrored = lie(id_i=draw("rob id"))
    assert_silent(opened(listing=listing), run(mirrored).wires[0])
    listing.peers[IVY] = peer("ivy")
    finish(opened(listing=listing), COUNTER, 0.0)


FIELDS_1 = (0, 32, 32 + 1184, 32 + 1184 + 48, 32 + 1184 + 48 + 32)
FIELDS_3 = (0, 64, 72, 104, 120)


def without_keys_1(chance: random.Random) -> bytes:
    others = (*NOT_FOR_ROB, *TRUE.wires[1:], *OTHER.wires[1:])
    wire = damaged(chance, TRUE.wires[0], others)
    return damaged(chance, wire, others) if wire == OTHER.wires[0] else wire


def with_the_descriptor(chance: random.Random) -> bytes:
    return resealed(chance, 1, TRUE, OTHER, FIELDS_1)


@pytest.mark.usefixtures("repeats")
@pytest.mark.parametrize(
    ("mutate", "times"), [(without_keys_1, 3000), (with_the_descriptor, 2500)]
)
def test_5500_mutations_of_message_1(
    mutate: Callable[[random.Random], bytes], times: int
) -> None:
    """With those of message 3, and of 2 in test_handshake.py, they are 10,000."""
    chance = random.Random(1)  # noqa: S311
    counters: dict[bytes, int] = {}
    one = opened(counters=counters)
    before = settled_keys()
    for number in range(times):
        assert_silent(one, mutate(chance), float(number))
    assert counters == {}
    assert settled_keys() <= before + 1
    finish(one, COUNTER, float(times))  # and the right one is as welcome as ever


@pytest.mark.parametrize("length", [0, 1, 24, 39, 40, 4095, 4097, 8192])
def test_message_1_of_another_length(length: int) -> None:
    assert_silent(opened(), (TRUE.wires[0] * 2)[:length])


@pytest.mark.parametrize("number", [2, 3])
def test_messages_2_and_3_are_no_message_1(number: int) -> None:
    assert_silent(opened(), TRUE.wires[number - 1])
    payload = TRUE.payloads[number - 1]
    for label in (b"1", b"%d" % number):
        assert_silent(opened(), xs(TRUE.outers[0], V.n1, label, payload))


def test_a_hello_is_for_one_node() -> None:
    """What ivy sent to rob is no hello to una, though una is her peer too."""
    una = gate(V, "first", listing=Listing("ivy"), responder="una", statics=("una",))
    assert_silent(una, TRUE.wires[0])


# The counter


def test_equal_and_lower_counters_are_refused() -> None:
    counters: dict[bytes, int] = {}
    one = opened(counters=counters)
    finish(one, COUNTER, 0.0)
    for counter in (COUNTER, COUNTER - 1, 1):
        assert_silent(one, first(counter), 100.0)
    assert counters == {IVY: COUNTER}
    finish(one, COUNTER + 1, 100.0)


def test_also_after_a_restart_with_what_was_made_durable() -> None:
    again = opened(counters={IVY: COUNTER})
    for counter in (COUNTER, COUNTER - 1):
        assert_silent(again, first(counter))
    finish(again, COUNTER + 1, 0.0)


def test_a_hello_is_spent_even_when_its_handshake_is_not_finished() -> None:
    one = opened()
    pending(one).abandon()
    assert_silent(one, first(COUNTER), 1000.0)


def test_a_recorded_run_played_to_a_restarted_node_is_no_session() -> None:
    """Its counter was never durable, so it draws a message 2: a new one, once."""
    again = gate(V.but(n2=draw("new n2", 24), e_r=draw("new e_r")), "first")
    responder = again.receive_message_1_untrusted(TRUE.wires[0], 0.0)
    assert responder.message_2 != TRUE.wires[1]
    assert_no_session(responder, TRUE.wires[2])
    assert_silent(again, TRUE.wires[0], 100.0)


def test_a_counter_is_one_link_keys_own() -> None:
    counters = {IVY: COUNTER}
    una = run(values("first", initiator="una").but(hello=hello(1)))
    one = opened(counters=counters)
    one.receive_message_1_untrusted(una.wires[0], 0.0)
    assert counters == {IVY: COUNTER, UNA: 1}


def test_forgetting_a_peer_drops_its_secret_and_keeps_its_counter() -> None:
    listing, counters = Listing("ivy"), dict[bytes, int]()
    one = opened(listing=listing, counters=counters)
    before = settled_keys()
    finish(one, COUNTER, 0.0)
    assert live_keys() == before + 1
    del listing.peers[IVY]
    (kept,) = one._secrets.values()
    one.forget(IVY)
    one.forget(IVY)
    with pytest.raises(LocalProtocolError):
        kept.unsafe_bytes()
    assert live_keys() == before
    assert_silent(one, first(COUNTER + 1))
    listing.peers[IVY] = peer("ivy")
    assert_silent(one, TRUE.wires[0])
    finish(one, COUNTER + 1, 0.0)


def test_a_link_key_that_a_peer_has_changed_is_retired() -> None:
    counters: dict[bytes, int] = {}
    one = opened(counters=counters)
    finish(one, COUNTER, 0.0)
    assert counters == {IVY: COUNTER}
    one.retire(IVY)
    one.retire(IVY)
    assert (counters, one._secrets) == ({}, {})


# Pending, and six a minute


def test_one_handshake_of_a_peer_is_pending_at_a_time() -> None:
    one = opened()
    responder = pending(one)
    assert_silent(one, first(COUNTER + 1), 1.0)
    una = run(values("first", initiator="una"))
    one.receive_message_1_untrusted(una.wires[0], 1.0)  # another peer is not kept out
    session = responder.receive_message_3_untrusted(TRUE.wires[2], 2.0)
    assert session.counter == COUNTER
    finish(one, COUNTER + 2, 2.0)


def test_a_peer_with_two_link_keys_is_one_peer() -> None:
    listing = Listing("ivy")
    listing.peers[dh_public(draw("ivy's new link"))] = peer("ivy")
    one = opened(listing=listing)
    pending(one)
    assert_silent(one, first(COUNTER, s_i=draw("ivy's new link")), 1.0)


@pytest.mark.parametrize("how", ["abandoned", "bad message 3"])
def test_a_failed_handshake_frees_the_place(how: str) -> None:
    one = opened()
    responder = pending(one)
    if how == "abandoned":
        responder.abandon()
        responder.abandon()
    else:
        assert_no_session(responder, bytes(4096))
    finish(one, COUNTER + 1, 0.0)


def test_a_pending_handshake_is_over_after_its_time() -> None:
    one = opened()
    late = pending(one)
    assert_silent(one, first(COUNTER + 1), PENDING_SECONDS)
    later = pending(one, COUNTER + 2, PENDING_SECONDS + 0.1)
    assert_no_session(late, TRUE.wires[2], PENDING_SECONDS + 0.2)
    # the late one's end does not free the place of the one that is pending now
    assert_silent(one, first(COUNTER + 3), PENDING_SECONDS + 0.3)
    expected = run(V.but(hello=hello(COUNTER + 2)))
    later.receive_message_3_untrusted(expected.wires[2], PENDING_SECONDS + 0.4)


def test_message_3_in_its_last_moment() -> None:
    responder = pending(opened())
    responder.receive_message_3_untrusted(TRUE.wires[2], PENDING_SECONDS)
    assert_no_session(pending(opened()), TRUE.wires[2], PENDING_SECONDS + 0.001)


def test_six_hellos_a_minute_that_bring_nothing() -> None:
    one = opened()
    for number in range(UNPROVEN_PER_MINUTE):
        pending(one, COUNTER + number, float(number)).abandon()
    assert_silent(one, first(COUNTER + 10), 10.0)
    assert_silent(one, first(COUNTER + 11), UNPROVEN_SECONDS - 0.1)
    una = run(values("first", initiator="una"))
    one.receive_message_1_untrusted(una.wires[0], 10.0)
    pending(one, COUNTER + 12, UNPROVEN_SECONDS).abandon()  # the first is a minute old
    assert_silent(one, first(COUNTER + 13), UNPROVEN_SECONDS + 0.5)
    finish(one, COUNTER + 14, UNPROVEN_SECONDS + 1.0)


def test_a_kem_key_that_fails_its_check_counts_among_the_six() -> None:
    one = opened()
    for number in range(UNPROVEN_PER_MINUTE):
        assert_silent(one, first(COUNTER + number, k_i=NO_POINT))
    assert_silent(one, first(COUNTER + 10))


def test_finished_handshakes_do_not_count() -> None:
    one = opened()
    for number in range(3 * UNPROVEN_PER_MINUTE):
        finish(one, COUNTER + number, 2.0 * number)


# Message 3


LIES_3: dict[str, Values] = {
    "another listed node signed": lie(signer_i=draw("una id")),
    "a thief of the link key signed": lie(signer_i=draw("mallory id")),
    "we signed it ourselves": lie(signer_i=draw("rob id")),
    "the responder's label": lie(label_i=b"responder"),
    "octets in the filling": lie(filling=b"\1"),
    "another class was said": lie(hello=hello(terms=bytes([1, 0]))),
    "another counter was said": lie(hello=hello(COUNTER + 1)),
    "another ciphertext was had": lie(ct=draw("other ct", 1088)),
    "another answer was had": lie(answer=bytes(16)),
    "another secret was had": lie(ss=bytes(32)),
    "another ephemeral was had": lie(e_r=draw("other e_r")),
}


@pytest.mark.parametrize("name", LIES_3)
def test_an_initiator_that_lies_at_the_end(name: str) -> None:
    if name == "octets in the filling":
        wire = xs(TRUE.outers[2], V.n3, b"3", TRUE.payloads[2] + b"\1")
    else:
        wire = run(LIES_3[name]).wires[2]
    assert wire != TRUE.wires[2]
    one = opened()
    before = settled_keys()
    assert_no_session(pending(one), wire)
    assert live_keys() == before + 1  # DH(S_I, S_R) of a listed key is kept


def test_a_stolen_link_key_opens_the_gate_and_no_more() -> None:
    """Ivy's link key in a thief's hands draws a message 2, and that is all; rob's
    own, in the hands of somebody who plays ivy to rob, likewise."""
    ours = dh(V.s_r, IVY)
    for thief in (
        lie(signer_i=draw("mallory id")),
        lie(
            s_i=draw("mallory link"),
            sent_s_i=IVY,
            gate_secret=ours,
            signer_i=draw("mallory id"),
        ),
    ):
        stolen = run(thief)
        responder = opened().receive_message_1_untrusted(stolen.wires[0], 0.0)
        assert responder.message_2 == stolen.wires[1]
        assert_no_session(responder, stolen.wires[2])


def without_keys_3(chance: random.Random) -> bytes:
    return damaged(chance, TRUE.wires[2], (*OTHER.wires, *TRUE.wires[:2]))


def with_the_outer_key_3(chance: random.Random) -> bytes:
    return resealed(chance, 3, TRUE, OTHER, FIELDS_3)


@pytest.mark.usefixtures("repeats")
@pytest.mark.parametrize(
    ("mutate", "times"), [(without_keys_3, 1100), (with_the_outer_key_3, 1200)]
)
def test_2300_mutations_of_message_3(
    mutate: Callable[[random.Random], bytes], times: int
) -> None:
    chance = random.Random(3)  # noqa: S311
    counters: dict[bytes, int] = {}
    one = opened(counters=counters)
    for number in range(times):
        now = number * UNPROVEN_SECONDS
        counters.clear()
        responder = one.receive_message_1_untrusted(TRUE.wires[0], now)
        assert_no_session(responder, mutate(chance), now + 1.0)


@pytest.mark.parametrize("change", ["removed", "another node's"])
def test_the_peer_must_still_be_listed(change: str) -> None:
    listing = Listing("ivy")
    responder = pending(opened(listing=listing))
    if change == "removed":
        del listing.peers[IVY]
    else:
        listing.peers[IVY] = peer("una")
    assert_no_session(responder, TRUE.wires[2])


# Secrets


def test_nothing_ephemeral_is_left() -> None:
    one = opened()
    finish(one, 1, 0.0)  # DH(S_I, S_R) is kept from now on
    before = settled_keys()
    responder = pending(one)
    assert live_keys() == before + 2  # ck and k of the transcript
    session = responder.receive_message_3_untrusted(TRUE.wires[2], 1.0)
    assert live_keys() == before + 2  # the two keys of the session
    session.wipe()
    assert live_keys() == before
    pending(one, COUNTER + 1, 1.0).abandon()
    assert live_keys() == before
    for number in range(3):
        assert_silent(one, first(COUNTER + 1 + number, k_i=NO_POINT), 2.0)
        assert live_keys() == before


def test_a_wiped_gate_keeps_nothing_but_what_it_was_lent() -> None:
    lent = [identity("rob"), static("rob")]
    before = settled_keys()
    one = opened()
    finish(one, COUNTER, 0.0)
    one.wipe()
    one.wipe()
    assert live_keys() == before + 2
    assert one.identity == lent[0]


def test_a_handshake_ends_once() -> None:
    responder = pending(opened())
    responder.receive_message_3_untrusted(TRUE.wires[2], 1.0)
    with pytest.raises(LocalProtocolError):
        responder.receive_message_3_untrusted(TRUE.wires[2], 1.0)
    responder.abandon()
    wiped = pending(opened())
    wiped.wipe()
    with pytest.raises(LocalProtocolError):
        wiped.receive_message_3_untrusted(TRUE.wires[2], 1.0)


def test_junk_in_any_kind_of_buffer() -> None:
    one = opened()
    for junk in (b"", bytes(4096), memoryview(bytes(4096)), bytearray(4096)):
        with pytest.raises(HandshakeError, match=REFUSED):
            one.receive_message_1_untrusted(junk, 0.0)
