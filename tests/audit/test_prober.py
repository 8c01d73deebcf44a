# SPDX-License-Identifier: MIT
"""The prober: what he says, what he hears, and that he finds what is planted."""

import socket
from collections.abc import Iterator

import numpy as np
import pytest
import trio

from mesh.audit.prober import (
    BOUND,
    JUDGES,
    Answer,
    Ended,
    ask,
    ask_both,
    by_time,
    judge,
    learned,
    matrix,
    planted,
)
from mesh.audit.probes import KINDS, Kind, Probe, Script, Target, tls_hello
from mesh.audit.reader import Reader
from mesh.audit.statistics import auc
from mesh.audit.trace import Bools, Floats, Ints
from mesh.core.cell import CELL_LEN
from mesh.core.clock import Clock
from mesh.core.crypto import Key, MlKem768, SystemEntropy, signing_public, x25519_public
from mesh.core.gate import Gate
from mesh.core.handshake import PeerKeys
from mesh.errors import HandshakeError
from tests.descriptors import identity_of, link_key_of
from tests.harness import FixedEntropy

SEED = 7


def keys_of(name: str) -> PeerKeys:
    link = x25519_public(link_key_of(name))
    return PeerKeys(name, signing_public(identity_of(name)), (link,))


def script() -> Script:
    target = Target(
        network="test", keys=keys_of("alpha"), heard=b"heard" * 900,
        identity=identity_of("bravo"), static=link_key_of("bravo"),
        earlier=b"earlier" * 700,
    )  # fmt: skip
    return Script(target, np.random.default_rng(SEED))


def gate(listed: list[PeerKeys]) -> Gate:
    return Gate(
        network="test", identity=identity_of("alpha"), statics=[link_key_of("alpha")],
        find_peer=lambda key: next((p for p in listed if key in p.link_keys), None),
        counters={}, clock=Clock.RENEWAL, klass=3, kem=MlKem768(),
        entropy=SystemEntropy(),
    )  # fmt: skip


def said(kind: Kind, name: str) -> bytes:
    made = script()
    while True:
        probe = made.next(kind)
        if probe.name == name:
            return probe.octets


def test_each_kind_says_all_that_it_can_and_closes_in_three_ways() -> None:
    made = script()
    for kind in KINDS:
        probes = [made.next(kind) for _ in range(120)]
        assert {probe.name for probe in probes} == set(made.names(kind))
        assert {probe.kind for probe in probes} == {kind}
        closes = [probe.close for probe in probes]
        assert None in closes
        assert 0.0 in closes
        assert any(close is not None and 0 < close < 1.5 for close in closes)
    assert tls_hello()[:3] == b"\x16\x03\x01"


def test_a_former_peers_hello_would_be_answered_if_it_were_listed() -> None:
    """So what the prober says is as near to an answer as can be."""
    hello = said("removed", "hello")
    gate([keys_of("bravo")]).receive_message_1_untrusted(hello, 0.0).wipe()
    for octets in (
        hello,
        said("holder", "hello"),
        said("holder", "noise in its envelope"),
    ):
        assert len(octets) == CELL_LEN
        with pytest.raises(HandshakeError):
            gate([]).receive_message_1_untrusted(octets, 0.0)


async def test_he_hears_what_a_port_says_and_when_it_ends() -> None:
    async with trio.open_nursery() as nursery:
        ports, socks = [], []
        for greeting in (b"", b"220 hello\r\n"):
            sock = socket.create_server(("127.0.0.1", 0))
            ports.append(sock.getsockname())
            socks.append(sock)
            nursery.start_soon(Reader(FixedEntropy(), greeting).run, sock)
        probe = Probe("stranger", "noise", bytes(5000), 0.0)
        silent, greeted = [await ask(port, probe, 0) for port in ports]
        assert (silent.octets, silent.ended) == (0, Ended.FIN)
        assert (greeted.octets, greeted.ended) == (11, Ended.FIN)
        assert silent.seconds > 0
        assert silent.segments > 0
        waits = Probe("stranger", "nothing", b"", None)
        patient = await ask(ports[0], waits, 0, listen=0.1)
        assert (patient.ended, patient.seconds) == (Ended.OPEN, 0.1)
        many = [probe] * 8
        both = await ask_both(ports, many, np.random.default_rng(SEED), at_once=3)
        assert {(each.port, each.octets) for each in both} == {(0, 0), (1, 11)}
        nursery.cancel_scope.cancel()
    for sock in socks:
        sock.close()


async def test_a_reset_is_heard() -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def rude() -> None:
            async with listener, await listener.accept():
                await trio.sleep(0.01)  # closed with what was sent unread

        nursery.start_soon(rude)
        probe = Probe("stranger", "noise", bytes(5000), None)
        heard = await ask(listener.socket.getsockname(), probe, 0)
        assert heard.ended is Ended.RESET


def answers(count: int, rng: np.random.Generator, **first: float) -> Iterator[Answer]:
    """Of two ports that read; `first`: what port 0 does otherwise."""
    for _ in range(count):
        port = int(rng.integers(2))
        more = first if port == 0 else {}
        yield Answer(
            kind="stranger", name="EHLO", close=0.0, port=port,
            octets=int(more.get("octets", 0)), ended=Ended.FIN,
            seconds=float(rng.uniform(0.1, 0.2)) + more.get("late", 0.0),
            window=1000, segments=5,
        )  # fmt: skip


def test_two_ports_alike_are_not_told_apart_and_what_differs_is_found() -> None:
    rng = np.random.default_rng(SEED)
    alike, greeted = list(answers(400, rng)), list(answers(120, rng, octets=20))
    figures = judge(alike, greeted, rng)
    assert [figure.name for figure in figures] == ["prober, stranger"] * 2
    assert all(figure.shown and figure.value < 0.58 for figure in figures)
    assert all(figure.bound == BOUND and figure.smallest for figure in figures)
    late = judge(list(answers(200, rng, late=0.1)), greeted, rng, judges=["seconds"])
    assert late[0].value > 0.99
    talks = list(answers(200, rng, octets=1))
    label = np.array([each.port == 0 for each in talks])
    block = np.arange(len(talks)) // 50
    assert auc(learned(matrix(talks), label, block, rng), label) > 0.99


def test_who_tells_shuffled_labels_shows_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def knowing(
        table: Floats, label: Bools, block: Ints, rng: np.random.Generator
    ) -> Floats:
        del table, block
        return label + 0.1 * rng.random(len(label))

    monkeypatch.setitem(JUDGES, "knowing", knowing)
    rng = np.random.default_rng(SEED)
    some = list(answers(200, rng))
    (figure,) = judge(some, some, rng, judges=["knowing"])
    assert [each.found for each in figure.controls] == [True, False]


def test_what_is_planted_is_in_half_of_the_readers_answers() -> None:
    rng = np.random.default_rng(SEED)
    some = list(answers(400, rng))
    label = np.array([each.port == 0 for each in some])
    parts = (matrix(some), label, np.arange(400))
    table, new, block = planted(parts, 1.0, rng)
    assert len(table) == len(block) == int((~label).sum())
    assert (by_time(table, new, block, rng) > 1.0).tolist() == new.tolist()
    assert 0.3 < new.mean() < 0.7


def test_keys_are_left_as_they_were() -> None:
    identity = identity_of("bravo")
    made = script()
    made.hello(identity, Key.from_bytes(bytes(range(32))))
    assert signing_public(identity) == keys_of("bravo").identity
