# SPDX-License-Identifier: MIT
"""What is saved comes back; labels and pieces."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.audit.simulated import simulated
from mesh.audit.trace import (
    NO_BLOCK,
    ROW,
    Event,
    Trace,
    _event_untrusted,
    joined,
    load,
    load_events,
    save_events,
)
from mesh.core.clock import Clock


@pytest.fixture
def trace() -> Trace:
    return simulated(Clock.RENEWAL, 64.0, 20, np.random.default_rng(0))


def test_a_trace_comes_back(trace: Trace, tmp_path: Path) -> None:
    file = tmp_path / "some.trace"
    trace.save(file)
    again = load(file)
    assert again.rows.dtype == ROW
    assert again.rows.tobytes() == trace.rows.tobytes()
    assert replace(again, rows=trace.rows) == trace


def test_what_is_no_trace(trace: Trace, tmp_path: Path) -> None:
    file = tmp_path / "some.npz"
    np.savez(file, rows=np.zeros(3))
    with pytest.raises(ValueError, match="no trace"):
        load(file)
    np.savez(file, rows=np.zeros(3), rate=1.0, clock="", source="")
    with pytest.raises(ValueError, match="other fields"):
        load(file)
    np.savez(file, rows=np.array([{}]), rate=1.0, clock="", source="")
    with pytest.raises(ValueError, match="pickle"):
        load(file)


def test_labels_are_put_on_a_copy(trace: Trace) -> None:
    block = np.arange(len(trace.rows))
    labelled = trace.with_labels(block, block % 2 == 0)
    assert labelled.rows["block"].tolist() == block.tolist()
    assert labelled.rows["busy"].sum() == 20
    assert not trace.rows["block"].any()
    assert (trace.of(1)["side"] == 1).all()
    assert len(trace.of(1)) == len(trace.only(trace.rows["side"] == 0).rows) == 20


def test_pieces_keep_their_blocks_apart(trace: Trace) -> None:
    later = trace.rows.copy()
    later["at"] += 10
    later["block"][:3] = NO_BLOCK
    both = joined([trace.with_rows(later), trace])
    assert len(both.rows) == 80
    assert (np.diff(both.rows["at"]) >= 0).all()
    assert np.unique(both.rows["block"]).tolist() == [NO_BLOCK, 0, 1]
    assert (both.rows["block"][:40] == 0).all()
    with pytest.raises(ValueError, match="follow each other"):
        joined([trace, trace])
    with pytest.raises(ValueError, match="one clock"):
        joined([])
    with pytest.raises(ValueError, match="one clock"):
        joined([trace, replace(trace, rate=1.0)])


def test_events_come_back(tmp_path: Path) -> None:
    events = [
        Event(1.5, 2048, "a", "in", "alpha"),
        Event(2.5, 2048, "a", "out", "bravo"),
    ]
    file = tmp_path / "events"
    save_events(events, file)
    assert load_events(file) == events
    assert file.read_text().count("\n") == 2


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_a_trace_that_is_cut_off_is_none(
    trace: Trace, tmp_path: Path, part: float
) -> None:
    file = tmp_path / "some.npz"
    trace.save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match="no trace"):
        load(file)


def test_an_array_by_itself_is_no_trace(tmp_path: Path) -> None:
    file = tmp_path / "some.npz"
    with file.open("wb") as out:
        np.save(out, np.zeros(3))
    with pytest.raises(ValueError, match="no trace"):
        load(file)


@pytest.mark.parametrize("rate", [0.0, -1.0, 1e-9, 1e9, np.nan, np.inf])
def test_a_trace_has_a_rate_and_times(
    trace: Trace, tmp_path: Path, rate: float
) -> None:
    file = tmp_path / "some.npz"
    replace(trace, rate=rate).save(file)
    with pytest.raises(ValueError, match="no numbers"):
        load(file)
    rows = trace.rows.copy()
    rows["at"][0] = np.nan
    trace.with_rows(rows).save(file)
    with pytest.raises(ValueError, match="no numbers"):
        load(file)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("side", 2, "sides"), ("at", 1e9, "order"), ("at", np.inf, "times"),
        ("gap", np.inf, "gaps"), ("ack_delay", -np.inf, "delays"),
    ],
)  # fmt: skip
def test_rows_that_no_link_has(
    trace: Trace, tmp_path: Path, name: str, value: float, said: str
) -> None:
    file = tmp_path / "some.npz"
    rows = trace.rows.copy()
    rows[name][0] = value
    trace.with_rows(rows).save(file)
    with pytest.raises(ValueError, match=f"no trace: .*{said}"):
        load(file)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_what_another_packer_made_and_somebody_damaged(
    trace: Trace, tmp_path: Path, method: int
) -> None:
    file, other = tmp_path / "some.npz", tmp_path / "other.npz"
    trace.save(file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(other, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert len(load(other).rows) == len(trace.rows)
    octets = bytearray(other.read_bytes())
    octets[60:90] = bytes(30)
    other.write_bytes(octets)
    with pytest.raises((ValueError, OSError)):
        load(other)


def test_a_clock_that_there_is_not(trace: Trace, tmp_path: Path) -> None:
    replace(trace, clock="sundial").save(tmp_path / "some.npz")
    with pytest.raises(ValueError, match="no trace: its clock"):
        load(tmp_path / "some.npz")


def test_rows_of_another_shape_and_a_head_that_lies(
    trace: Trace, tmp_path: Path
) -> None:
    file = tmp_path / "some.npz"
    for rows in (trace.rows.reshape(1, -1), trace.rows[0:1].reshape(())):
        trace.with_rows(rows).save(file)
        with pytest.raises(ValueError, match="other fields"):
            load(file)
    trace.save(file)
    octets = bytearray(file.read_bytes())
    octets[6] |= 1  # encrypted, says the first file's head,
    octets[octets.index(b"PK\x01\x02") + 8] |= 1  # and the directory
    file.write_bytes(octets)
    with pytest.raises(ValueError, match="no trace"):
        load(file)


GOOD = {"at": 1.5, "size": 9, "ident": "a", "what": "in", "place": "alpha"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"at": "x"}, {"at": None}, {"at": float("nan")}, {"at": 10**400}, {"size": "9"},
        {"ident": ["a"]}, {"ident": 1}, {"what": "inside"}, {"place": 1}, {"more": 1},
        {"size": -1}, {"size": float("inf")}, {"at": float("inf")},
    ],
)  # fmt: skip
def test_what_is_no_event(tmp_path: Path, wrong: dict[str, object]) -> None:
    file = tmp_path / "events"
    file.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, **wrong}) + "\n")
    with pytest.raises(ValueError, match=r"^line 2$"):
        load_events(file)
    file.write_bytes(
        b'{"at": 1, "size": 1, "ident": "\xff", "what": "in", "place": ""}'
    )
    with pytest.raises(ValueError, match=r"^line 1$"):
        load_events(file)


@given(st.binary(max_size=60))
def test_no_line_is_more_than_no_event(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # JSON's own, too
        _event_untrusted(line)


def test_a_line_that_is_deep_is_no_event() -> None:
    with pytest.raises(ValueError, match="no event"):
        _event_untrusted(b"[" * 100_000)


@pytest.mark.parametrize(
    "said",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 1024), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1L, ",
    ],
)
def test_an_array_whose_head_says_what_cannot_be(
    trace: Trace, tmp_path: Path, said: bytes
) -> None:
    """More than there is memory, and what numpy takes for a Python of old."""
    file, other = tmp_path / "some.npz", tmp_path / "other.npz"
    trace.save(file)
    said = said.ljust(117) + b"\n"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            octets = old.read(name)
            if name == "rows.npy":
                octets = b"\x93NUMPY\x01\x00" + len(said).to_bytes(2, "little") + said
            new.writestr(name, octets)
    with pytest.raises(ValueError, match="no trace"):
        load(other)
