# SPDX-License-Identifier: MIT
"""Who follows messages from wire to wire: he finds what is there, and counts no luck."""

from collections.abc import Sequence
from pathlib import Path

import dpkt
import numpy as np
import pytest

from mesh.audit.simulated import noisy, simulated
from mesh.audit.spaces import Wire
from mesh.audit.trace import Event, Floats
from mesh.core.cell import CELL_LEN
from mesh.core.clock import Clock
from tests.following import (
    LINK,
    PORT_25,
    Writes,
    by_body,
    by_size_and_time,
    contents,
    judged,
    runs,
    trips,
    words_of,
)
from tests.remailers import body

RATE = 64.0
SECONDS = 60.0
FIRST, SECOND = Wire("alpha", "bravo"), Wire("bravo", "charlie")
ALPHA, BRAVO = b"\x0a\x53\x00\x01", b"\x0a\x53\x00\x02"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def on_their_way(rng: np.random.Generator, count: int = 60) -> Floats:
    """Give the times of messages on two wires."""
    at = np.sort(rng.uniform(1, SECONDS - 2, count))
    return np.column_stack([at, at + 0.1, at + 0.12, at + 0.22])


def test_a_trip_has_both_wires() -> None:
    events = [
        Event(1.0, 9, "through", "in", "alpha"), Event(2.0, 9, "through", "out", "bravo"),
        Event(3.0, 9, "through", "in", "bravo"), Event(4.0, 9, "through", "out", "charlie"),
        Event(1.0, 9, "bravo's", "in", "alpha"), Event(2.0, 9, "bravo's", "out", "bravo"),
    ]  # fmt: skip
    assert trips(events, FIRST, SECOND).tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_names_by_chance_are_counted_as_chance(rng: np.random.Generator) -> None:
    truth = on_their_way(rng)
    right = truth[:, [0, 2]] + 0.05
    assert judged(right, truth, 0.0, SECONDS).found == len(truth)
    assert judged(right, truth, 0.0, SECONDS).beyond_chance
    # Who names all pairs of instants has every message, and knows nothing.
    at = np.arange(0, SECONDS, 0.05)
    every = np.column_stack([at, at + 0.12])
    blind = judged(every, truth, 0.0, SECONDS)
    assert blind.found == len(truth)
    assert blind.chance > 0.9 * len(truth)
    assert not blind.beyond_chance


def test_one_instant_of_two_is_no_name(rng: np.random.Generator) -> None:
    truth = on_their_way(rng)
    for wrong in ([0.05, 2.05], [-2.0, 0.05]):
        named = truth[:, [0, 2]] + np.array(wrong)
        assert judged(named, truth[::9], 0.0, SECONDS).found <= 1


def test_size_and_time_follow_writes_that_shrink(rng: np.random.Generator) -> None:
    truth = on_their_way(rng)
    octets = np.exp(rng.uniform(np.log(2_000), np.log(30_000), len(truth))).round()
    first = Writes(truth[:, 0] + 0.01, truth[:, 1] - 0.01, octets, PORT_25)
    second = Writes(truth[:, 2] + 0.01, truth[:, 3] - 0.01, octets - 108, PORT_25)
    found = judged(by_size_and_time(first, second, truth, 108), truth, 0.0, SECONDS)
    assert found.found == len(truth)
    # He needs what is taken off.
    found = judged(by_size_and_time(first, second, truth, 900), truth, 0.0, SECONDS)
    assert found.found < len(truth)


def test_a_write_is_named_once() -> None:
    """The second one is late: its twin's trip is nearer to the usual time."""
    begun, gone = np.array([1.0, 1.1, 9.0]), np.array([1.5, 2.5, 9.5])
    octets = np.full(3, 5_000.0)
    truth = np.column_stack([begun, begun, gone, gone])
    writes = [Writes(at, at, octets, PORT_25) for at in (begun, gone)]
    named = by_size_and_time(writes[0], writes[1], truth, 0)
    assert sorted(named.tolist()) == truth[:, [0, 2]].tolist()


def test_of_two_as_like_the_size_that_is_seldom_is_named() -> None:
    begun = np.arange(1.0, 50.0)
    octets = np.where(begun == 30.0, 9.0, 1.0) * CELL_LEN
    writes = [Writes(at, at, octets, LINK) for at in (begun, begun + 0.25)]
    truth = np.array([[30.0, 30.0, 30.25, 30.25]])
    named = by_size_and_time(writes[0], writes[1], truth, 108)
    assert named.tolist() == [[30.0, 30.25]]


def test_on_port_25_who_is_held_up_is_followed_too(rng: np.random.Generator) -> None:
    """A host that stands still for ten seconds lets go of all that came, at once."""
    truth = on_their_way(rng)
    octets = np.exp(rng.uniform(np.log(2_000), np.log(30_000), len(truth))).round()
    held = (truth[:, 2] > 30) & (truth[:, 2] < 40)
    truth[held, 2:] = 40 + np.arange(held.sum())[:, None] * 0.01 + [0, 0.005]
    truth = truth[np.argsort(truth[:, 2], kind="stable")]
    first = Writes(truth[:, 0], truth[:, 1], octets, PORT_25)
    second = Writes(truth[:, 2], truth[:, 3], octets - 108, PORT_25)
    found = judged(by_size_and_time(first, second, truth, 108), truth, 0.0, SECONDS)
    assert held.sum() > 5
    assert found.found == len(truth)


@pytest.mark.parametrize("clock", [Clock.RENEWAL, Clock.CONSTANT])
def test_cells_by_the_clock_lead_nowhere(
    clock: Clock, rng: np.random.Generator
) -> None:
    count = round(RATE * SECONDS)
    wires = [simulated(clock, RATE, count, rng, noisy(rng)) for _ in range(2)]
    truth = on_their_way(rng)
    named = by_size_and_time(runs(wires[0]), runs(wires[1]), truth, 108)
    assert len(named) == len(truth)
    assert not judged(named, truth, 0.0, SECONDS).beyond_chance


def test_cells_that_come_together_are_one_write(rng: np.random.Generator) -> None:
    trace = simulated(Clock.CONSTANT, RATE, 6, rng, noisy(rng))
    rows = trace.of(0)
    rows["at"] = [1.0, 1.001, 1.002, 1.5, 1.501, 2.0]
    found = runs(trace.with_rows(rows))
    assert found.octets.tolist() == [3 * CELL_LEN, 2 * CELL_LEN, CELL_LEN]
    assert (found.at.tolist(), found.end.tolist()) == (
        [1.0, 1.5, 2.0],
        [1.002, 1.501, 2.0],
    )


def spoken(path: Path, turns: Sequence[tuple[float, bool, bytes]]) -> Path:
    """Write what was said on a wire, each turn in segments, one of them twice."""
    numbers = {True: 5, False: 9}
    with path.open("wb") as file:
        out = dpkt.pcap.Writer(file, nano=True)
        for at, ours, said in turns:
            for part in range(0, len(said), 1448):
                data = said[part : part + 1448]
                tcp = dpkt.tcp.TCP(
                    sport=4000 if ours else 25, dport=25 if ours else 4000,
                    seq=numbers[ours], flags=dpkt.tcp.TH_ACK, data=data,
                )  # fmt: skip
                way = (ALPHA, BRAVO) if ours else (BRAVO, ALPHA)
                ip = dpkt.ip.IP(src=way[0], dst=way[1], p=6, data=tcp)
                ip.len = len(ip)
                frame = bytes(dpkt.ethernet.Ethernet(data=ip))
                for _ in range(1 + (part > 0)):
                    out.writepkt(frame, ts=at + part * 1e-6)
                numbers[ours] += len(data)
    return path


def test_the_same_body_is_named_wherever_it_stands(tmp_path: Path) -> None:
    letter, other = body(4_000), body(4_000)
    one = spoken(
        tmp_path / "one",
        [(1.0, True, b"first" + letter), (2.0, True, other), (3.0, False, b"250")],
    )
    two = spoken(tmp_path / "two", [(5.0, True, b"another head" + letter)])
    named = by_body(words_of(one), words_of(two))
    assert len(named) >= 3  # segments, of which all but the first came twice
    assert {(int(a), int(b)) for a, b in named} == {(1, 5)}


def test_what_differs_what_comes_back_and_what_comes_twice_is_not_named(
    tmp_path: Path,
) -> None:
    letter = body(4_000)
    one = words_of(spoken(tmp_path / "one", [(1.0, True, letter)]))
    others = {
        "differs": [(5.0, True, body(4_000))],
        "comes back": [(5.0, False, letter)],
        "twice": [(5.0, True, letter), (6.0, True, letter)],
    }
    for name, said in others.items():
        assert not len(by_body(one, words_of(spoken(tmp_path / name, said)))), name


def test_a_content_is_the_longest_turn(tmp_path: Path) -> None:
    said = [
        (1.0, True, b"EHLO alpha"), (1.1, False, b"250 SIZE"), (1.2, True, b"DATA"),
        (1.3, False, b"354 go on"), (1.4, True, bytes(4_000)), (1.5, False, b"250 ok"),
        (1.6, True, b"QUIT"),
    ]  # fmt: skip
    found = contents(spoken(tmp_path / "one", said))
    assert found.octets.tolist() == [4_000]
    assert found.at[0] == pytest.approx(1.4, abs=1e-3)
    assert found.end[0] == pytest.approx(1.4 + 2 * 1448e-6, abs=1e-4)
