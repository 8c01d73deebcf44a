# SPDX-License-Identifier: MIT
"""The initiator: known answers, and message 2 wrong in every way there is."""

import itertools
import random
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mesh.core.cell import BODY_LEN
from mesh.core.clock import Clock
from mesh.core.handshake import (
    COUNTER_MAX,
    REFUSED,
    Initiator,
    PeerKeys,
    Session,
    Terms,
    look_pause,
    next_counter,
    response_delay,
    silence_duration,
    terms_untrusted,
)
from mesh.errors import CryptoError, HandshakeError, LocalProtocolError
from tests.handshakes import (
    COUNTER,
    I_CLOCK,
    I_KLASS,
    LOW_ORDER,
    R_CLOCK,
    R_KLASS,
    R_TERMS,
    FixedKem,
    damaged,
    dial,
    draw,
    identity,
    kem_seed,
    live_keys,
    peer,
    resealed,
    settled_keys,
    static,
    values,
    vector,
)
from tests.harness import FixedEntropy
from tests.straightline import Values, kem_public, run

BODY = bytes(range(255)) * 16
V = values("first")
TRUE = run(V)
OTHER = run(values("second"))


def asked(v: Values = V, name: str = "first") -> Initiator:
    initiator = dial(v, name)
    initiator.message_1()
    return initiator


def assert_refused(initiator: Initiator, wire: bytes) -> None:
    """Not an octet in answer, no session, no secret left, one text for all."""
    with pytest.raises(HandshakeError) as caught:
        initiator.receive_message_2_untrusted(wire)
    assert caught.value.args == (REFUSED,)
    assert caught.value.__suppress_context__
    with pytest.raises(LocalProtocolError):
        initiator.receive_message_2_untrusted(TRUE.wires[1])
    with pytest.raises(LocalProtocolError):
        initiator.session()


def assert_keys(session: Session, out_key: bytes, in_key: bytes) -> None:
    sealed = ChaCha20Poly1305(out_key).encrypt(bytes(12), BODY, None)
    assert session.sealer.seal(BODY) == sealed
    coming = ChaCha20Poly1305(in_key).encrypt(bytes(12), BODY, None)
    assert session.opener.open_untrusted(coming) == BODY


def test_the_recorded_run_is_the_straight_line() -> None:
    recorded, expected = vector()
    again = run(recorded)
    assert again.wires == expected.wires
    assert (again.k_ir, again.k_ri, again.h) == (
        expected.k_ir,
        expected.k_ri,
        expected.h,
    )
    assert [len(wire) for wire in expected.wires] == [4096] * 3


@pytest.mark.parametrize("name", ["vector", "first", "second"])
def test_known_answers(name: str) -> None:
    v = vector()[0] if name == "vector" else values(name)
    expected = run(v)
    initiator = dial(v, name)
    assert initiator.message_1() == expected.wires[0]
    assert initiator.receive_message_2_untrusted(expected.wires[1]) == expected.wires[2]
    assert_keys(initiator.session(), expected.k_ir, expected.k_ri)


def test_what_a_session_says() -> None:
    initiator = asked()
    initiator.receive_message_2_untrusted(bytearray(TRUE.wires[1]))
    session = initiator.session()
    assert session.peer == peer("rob")
    assert session.peer_link_key == peer("rob").link_keys[0]
    assert (session.klass, session.clock) == (R_KLASS, R_CLOCK)
    assert session.counter == COUNTER
    assert session.we_initiated
    assert (session.directory_version, session.directory_hash) == (0, bytes(32))
    assert repr(session).count("link_key") == 0
    session.wipe()
    with pytest.raises(LocalProtocolError):
        session.sealer.seal(BODY)
    with pytest.raises(CryptoError):
        session.opener.open_untrusted(bytes(4096))


def test_the_lower_class_and_the_stricter_clock_win() -> None:
    for ours, theirs in itertools.product(range(16), repeat=2):
        for left, right in itertools.product(Clock, repeat=2):
            joined = Terms(ours, left).joined(Terms(theirs, right))
            assert joined == Terms(theirs, right).joined(Terms(ours, left))
            assert joined.klass == min(ours, theirs)
            assert joined.clock in (left, right)
            assert joined.clock <= left
            assert joined.clock <= right
    answer = bytes([15, Clock.CONSTANT]) + bytes(14)
    v = V.but(answer=answer)
    initiator = asked(v)
    initiator.receive_message_2_untrusted(run(v).wires[1])
    session = initiator.session()
    assert (session.klass, session.clock) == (I_KLASS, Clock.CONSTANT)
    assert I_CLOCK > Clock.CONSTANT


LIES: dict[str, Values] = {
    "another identity signed": V.but(signer_r=draw("una id")),
    "the initiator's own signature's label": V.but(label_r=b"initiator"),
    "no label": V.but(label_r=b""),
    "signed by the initiator": V.but(signer_r=draw("ivy id")),
    "another ciphertext": V.but(ct=draw("other ct", 1088)),
    "a class that is none": V.but(answer=bytes([16, 0]) + bytes(14)),
    "a clock that is none": V.but(answer=bytes([3, 5]) + bytes(14)),
    "octets after the terms": V.but(answer=R_TERMS + bytes(13) + b"\1"),
    "octets in the filling": V.but(filling=b"\1"),
    "a late octet in the filling": V.but(filling=bytes(2000) + b"\1"),
    "a responder who does not know the link key": V.but(s_r=draw("una link")),
    "another network": V.but(network=b"other"),
    "a responder of another identity": V.but(id_r=draw("una id")),
    "another initiator meant": V.but(id_i=draw("una id"), s_i=draw("una link")),
    "another counter seen": V.but(hello=bytes(16)),
    "another hello's key": V.but(k_i=kem_public(draw("other kem", 64))),
    **{
        f"low order, point {number}": V.but(sent_e_r=point)
        for number, point in enumerate(LOW_ORDER)
    },
}


@pytest.mark.parametrize("lie", LIES)
def test_a_responder_that_lies(lie: str) -> None:
    """All else is right and correctly sealed."""
    wire = run(LIES[lie]).wires[1]
    assert wire != TRUE.wires[1]
    before = settled_keys()
    initiator = asked()
    assert_refused(initiator, wire)
    # a DH that was all zeros lies in a frame of the error
    assert settled_keys() == before + 2  # its own long-term keys, which it was lent


FIELDS_2 = (0, 32, 32 + 1088, 32 + 1088 + 96)


def mutations_without_keys(chance: random.Random) -> bytes:
    others = (*OTHER.wires, TRUE.wires[0], TRUE.wires[2])
    return damaged(chance, TRUE.wires[1], others)


def mutations_with_the_outer_key(chance: random.Random) -> bytes:
    return resealed(chance, 2, TRUE, OTHER, FIELDS_2)


@pytest.mark.usefixtures("repeats")
@pytest.mark.parametrize(
    ("mutate", "times"),
    [(mutations_without_keys, 1000), (mutations_with_the_outer_key, 1200)],
)
def test_2200_mutations_of_message_2(
    mutate: Callable[[random.Random], bytes], times: int
) -> None:
    """With those of messages 1 and 3 (test_gate.py) they are 10,000."""
    chance = random.Random(2)  # noqa: S311
    for _ in range(times):
        assert_refused(asked(), mutate(chance))


def test_each_step_once_and_in_order() -> None:
    initiator = dial(V, "first")
    with pytest.raises(LocalProtocolError):
        initiator.receive_message_2_untrusted(TRUE.wires[1])
    with pytest.raises(LocalProtocolError):
        initiator.session()
    initiator.message_1()
    with pytest.raises(LocalProtocolError):
        initiator.message_1()
    with pytest.raises(LocalProtocolError):
        initiator.session()
    initiator.receive_message_2_untrusted(TRUE.wires[1])
    with pytest.raises(LocalProtocolError):
        initiator.receive_message_2_untrusted(TRUE.wires[1])
    initiator.session()
    with pytest.raises(LocalProtocolError):
        initiator.session()


def test_a_wiped_dial_is_over() -> None:
    for steps in range(3):
        before = settled_keys()
        initiator = dial(V, "first")
        if steps > 0:
            initiator.message_1()
        if steps > 1:
            initiator.receive_message_2_untrusted(TRUE.wires[1])
        initiator.wipe()
        initiator.wipe()
        assert live_keys() == before + 2  # the two long-term keys that were lent
        for step in (initiator.message_1, initiator.session):
            with pytest.raises(LocalProtocolError):
                step()


def test_after_success_only_the_sessions_keys_are_left() -> None:
    before = settled_keys()
    initiator = asked()
    initiator.receive_message_2_untrusted(TRUE.wires[1])
    session = initiator.session()
    assert live_keys() == before + 2 + 2
    session.wipe()
    assert live_keys() == before + 2


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_descriptor_with_a_link_key_of_low_order(point: bytes) -> None:
    before = settled_keys()
    initiator = Initiator(
        network="test",
        identity=identity("ivy"),
        static=static("ivy"),
        peer=PeerKeys("bad", peer("rob").identity, (point,)),
        counter=1,
        clock=I_CLOCK,
        klass=I_KLASS,
        kem=FixedKem(kem_seed("first"), V),
        entropy=FixedEntropy("low order"),
    )
    with pytest.raises(HandshakeError, match=REFUSED):
        initiator.message_1()
    with pytest.raises(LocalProtocolError):
        initiator.message_1()
    assert settled_keys() == before + 2


def test_terms() -> None:
    assert terms_untrusted(15, 4, bytes(6)) == Terms(15, Clock.GREEDY)
    assert terms_untrusted(0, 0, b"") == Terms(0, Clock.RENEWAL)
    for bad in ((16, 0, b""), (255, 0, b""), (0, 5, b""), (0, 255, b""), (0, 0, b"\1")):
        with pytest.raises(HandshakeError, match=REFUSED):
            terms_untrusted(*bad)


def test_the_counter_grows_whatever_the_clock_does() -> None:
    assert next_counter(0, 1_700_000_000_000_000_000) == 1_700_000_000_000_000_000
    assert next_counter(5, 3) == 6
    assert next_counter(5, -3) == 6
    assert next_counter(0, 0) == 1
    assert next_counter(COUNTER_MAX - 1, 0) == COUNTER_MAX
    with pytest.raises(LocalProtocolError):
        next_counter(COUNTER_MAX, 0)


def test_delays_are_drawn_evenly_within_their_bounds() -> None:
    entropy = FixedEntropy("delays")
    waits = [response_delay(entropy) for _ in range(500)]
    assert 0.1 <= min(waits) < 0.12
    assert 1.08 < max(waits) < 1.1
    silences = [silence_duration(entropy) for _ in range(500)]
    assert 60.0 <= min(silences) < 62.0
    assert 178.0 < max(silences) < 180.0
    looks = [look_pause(entropy) for _ in range(500)]
    assert 0.1 <= min(looks) < 0.14
    assert 0.46 < max(looks) < 0.5
    edge = sum(pause < 0.12 for pause in looks)  # of two draws: no edge
    assert edge < 10
    assert len(BODY) == BODY_LEN
