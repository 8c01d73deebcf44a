# SPDX-License-Identifier: MIT
"""From a capture and its events to a report."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal
from zipfile import ZIP_BZIP2, ZipFile

import numpy as np
import pytest

from mesh.audit import schedule
from mesh.audit.capture import of_capture
from mesh.audit.judge import MAIL_LEAST
from mesh.audit.planting import late
from mesh.audit.simulated import simulated
from mesh.audit.trace import Event, save_events
from mesh.core.cell import BODY_LEN
from mesh.core.clock import Clock
from mesh.errors import MessageError, NoInputError
from tests.audit.frames import ethernet, ipv4, pcap, stream
from tests.audit.links import RATE, cheaply, link

WAYS: Final[tuple[tuple[Literal["in", "out"], float], ...]] = (
    ("in", 0.0),
    ("out", 2.0),
)
OCTETS: Final = round(1.6 * RATE * 4096)
"""A message that fills most of two seconds."""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(schedule, "LENGTHS", (32,))
    cheaply(monkeypatch)
    link(3).save(tmp_path / "link.npz")
    return tmp_path / "link.npz"


def test_without_events_only_what_would_be_found_is_told(seen: Path) -> None:
    report = of_capture(seen, None)
    assert {figure.bound for figure in report.figures} == {None}
    assert {figure.verdict for figure in report.figures} <= {"open", "not shown"}
    assert any("coin" in note for note in report.notes)
    assert not report.wires


def test_events_say_when_mail_was_there_and_a_leak_is_found(tmp_path: Path, seen: Path) -> None:  # fmt: skip
    """Six messages of two seconds each; in one capture their cells are 2 ms late."""
    events = [
        Event(at + later, OCTETS, str(at), what, "alpha")
        for at in np.arange(1.0, 22.0, 4.0).tolist()
        for what, later in WAYS
    ]
    file = tmp_path / "events"
    save_events(events, file)
    clean = of_capture(seen, file)
    assert clean.wires
    trace = link(3)
    at = trace.rows["at"]
    inside = np.zeros(len(at), bool)
    for event in events[::2]:
        inside |= (at >= event.at) & (at < event.at + 2.0)
    busy = trace.with_labels(trace.rows["block"].astype(np.int64), inside)
    late(2e-3, busy, np.random.default_rng(4)).save(tmp_path / "leaky.npz")
    leaky = of_capture(tmp_path / "leaky.npz", file)
    for before, after in zip(clean.figures, leaky.figures, strict=True):
        if before.unit == "AUC":
            assert after.value > before.value + 0.2
            assert after.upper > (after.bound or 1)


def test_what_a_capture_is_too_short_for_is_said_and_how_long_it_takes(
    tmp_path: Path, seen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "LENGTHS", (32, 3_600))
    report = of_capture(seen, None)
    assert {figure.name for figure in report.figures if "32 cells" in figure.name}
    (note,) = [one for one in report.notes if "too few" in one]
    assert note.startswith("too few windows of 3,600 cells (")
    # Forty of them, at 256 a second.
    assert note.endswith(
        ": it takes 10 minutes, half busy, in stretches of 15 s or more"
    )
    slow = replace(link(3), rate=1.0)
    slow.save(tmp_path / "slow.npz")
    monkeypatch.setattr(schedule, "LENGTHS", (3_600,))
    report = of_capture(tmp_path / "slow.npz", None)
    (note,) = [one for one in report.notes if "too few" in one]
    assert note.endswith(
        ": it takes 43 hours, half busy, in stretches of 3840 s or more"
    )


def test_a_long_capture_has_long_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty of them, in blocks that are longer; of a coin's, and of busy seconds."""
    cheaply(monkeypatch)
    monkeypatch.setattr(schedule, "LENGTHS", (1_024,))
    rng = np.random.default_rng(5)
    one = simulated(Clock.RENEWAL, 1024.0, 60 * 1_152, rng)
    one.save(tmp_path / "long.npz")
    assert of_capture(tmp_path / "long.npz", None).figures
    events = [
        Event(at + 4 * later, 9, str(at), what, "alpha")  # eight seconds each
        for at in np.arange(0.0, 66.0, 16.0).tolist()
        for what, later in WAYS
    ]
    save_events(events, tmp_path / "events")
    report = of_capture(tmp_path / "long.npz", tmp_path / "events")
    assert "1,024 cells" in report.figures[0].name


def test_files_that_are_not_there_or_are_something_else(tmp_path: Path, seen: Path) -> None:  # fmt: skip
    with pytest.raises(NoInputError, match=r"none\.npz"):
        of_capture(tmp_path / "none.npz", None)
    with pytest.raises(NoInputError, match="none"):
        of_capture(seen, tmp_path / "none")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(NoInputError, match=r"folder\.npz"):
        of_capture(tmp_path / "folder.npz", None)
    with pytest.raises(NoInputError, match="folder"):
        of_capture(seen, tmp_path / "folder.npz")
    (tmp_path / "bad.npz").write_bytes(b"no trace")
    with pytest.raises(MessageError, match=r"bad\.npz"):
        of_capture(tmp_path / "bad.npz", None)
    for bad in ("{", "3\n", json.dumps({"at": 1})):
        (tmp_path / "events").write_text(bad)
        with pytest.raises(MessageError, match="events, line 1: no event"):
            of_capture(seen, tmp_path / "events")


def test_events_of_another_day_are_not_a_capture_s(tmp_path: Path) -> None:
    file, events = tmp_path / "wire.npz", tmp_path / "events.jsonl"
    link(1).save(file)
    for some in ([], [Event(-9e9, 9, "a", "in", "alpha")]):
        save_events(some, events)
        with pytest.raises(MessageError, match="no event is within"):
            of_capture(file, events)


def test_events_that_say_of_no_message_that_it_came_through(tmp_path: Path) -> None:
    file, events = tmp_path / "wire.npz", tmp_path / "events.jsonl"
    link(1).save(file)
    some = [Event(1.0, 9, "a", "in", "alpha"), Event(2.0, 9, "b", "out", "bravo")]
    save_events(some, events)
    with pytest.raises(MessageError, match="no ident is both in and out"):
        of_capture(file, events)


def test_a_trace_without_cells_is_said_to_be(tmp_path: Path) -> None:
    file = tmp_path / "wire.npz"
    one = link(1)
    one.only(one.rows["at"] < -1e18).save(file)
    with pytest.raises(MessageError, match="no cells"):
        of_capture(file, None)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_busy_time_without_mail_shows_nothing(
    tmp_path: Path, seen: Path, share: float
) -> None:
    """Ten minutes in a pool are no busy link."""
    events = [
        Event(at + later, round(share * 2 * RATE * BODY_LEN), str(at), what, "alpha")
        for at in np.arange(1.0, 22.0, 4.0).tolist()
        for what, later in WAYS
    ]
    save_events([*events, Event(0.5, 1, "lost", "in", "alpha")], tmp_path / "events")
    report = of_capture(seen, tmp_path / "events")
    assert f"busy, it carried {share:.0%} of all it can" in report.notes
    assert any(note.startswith("1 idents are only in") for note in report.notes)
    assert report.figures
    for figure in report.figures:
        (mail,) = (one for one in figure.controls if one.name == "mail was there")
        assert mail.found == (share > MAIL_LEAST)
        assert mail.found or figure.verdict == "not shown"
    notes = [figure.note for figure in report.figures if figure.note]
    assert all(f"planted in {share:.0%} of the cells" in note for note in notes)


def test_what_no_packer_reads_is_said_in_a_line(tmp_path: Path) -> None:
    file, packed = tmp_path / "link.npz", tmp_path / "packed.npz"
    link(1).save(file)
    with ZipFile(file) as old, ZipFile(packed, "w", ZIP_BZIP2) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    octets = bytearray(packed.read_bytes())
    octets[200:260] = bytes(60)
    packed.write_bytes(octets)
    with pytest.raises(
        (MessageError, NoInputError), match=r"packed\.npz: [a-zA-Z]"
    ) as said:
        of_capture(packed, None)
    assert "None" not in str(said.value)


def test_of_several_links_it_says_which_it_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "wire.pcap"
    others = (("10.0.0.1", 7000), ("10.0.0.7", 5))
    more = pcap(stream(9), lambda one: ethernet(ipv4(one, others))).getvalue()[24:]
    file.write_bytes(pcap(stream(40)).getvalue() + more)
    said = of_capture(file, None).notes
    assert said[0] == f"{file}: of 2 links, that of 10.0.0.1 and 10.0.0.2"
    file.write_bytes(pcap(stream(40)).getvalue())
    assert said[1:] == of_capture(file, None).notes
