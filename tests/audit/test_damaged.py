# SPDX-License-Identifier: MIT
"""A capture of which octets were changed is a report or a mistake in one line."""

import io
from pathlib import Path
from typing import Final

import dpkt
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.audit import judge, schedule
from mesh.audit.attackers import LikelihoodRatio
from mesh.audit.capture import of_capture
from mesh.audit.planting import LATE
from mesh.audit.report import Report
from mesh.audit.view import COIN_CELLS_MIN
from mesh.errors import MessageError
from tests.audit.frames import Hand, cell, opening, pcap, turned

BLOCKS: Final = 2 * judge.BLOCKS_MIN
CELLS: Final = 5
"""Of a window: twelve of them in a block."""


def packets() -> list[Hand]:
    """A link of one cell a second and side, with windows enough of each kind."""
    found = opening()
    gaps = np.random.default_rng(1).gamma(4.0, 0.25, BLOCKS * COIN_CELLS_MIN)
    for turn, at in enumerate(np.cumsum(gaps).tolist()):
        begin = 1 + 4096 * turn
        found += cell(at, begin, begin)
        found += turned(cell(at + 0.2, begin, begin + 4096))
    return found


FILES: Final = {
    "pcap": pcap(packets()).getvalue(),
    "pcapng": pcap(packets(), writer=dpkt.pcapng.Writer).getvalue(),
}
CHANGES: Final = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("kind", FILES)
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=CHANGES, end=st.floats(0.05, 1))
def test_it_is_read_or_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    changes: list[tuple[float, bytes]],
    end: float,
) -> None:
    monkeypatch.setattr(schedule, "LENGTHS", (CELLS,))
    monkeypatch.setattr(judge, "ATTACKERS", (LikelihoodRatio(),))
    monkeypatch.setattr(judge, "LEAKS", LATE[-1:])
    octets = io.BytesIO(FILES[kind])
    for place, new in changes:
        octets.seek(int(place * len(FILES[kind])))
        octets.write(new)
    file = tmp_path / "wire"
    file.write_bytes(octets.getvalue()[: int(end * len(FILES[kind]))])
    said = ""
    try:
        report = of_capture(file, None)
    except MessageError as error:
        said = str(error)
    else:
        assert isinstance(report, Report)
    assert not said or said.startswith(f"{file}: ")
    assert "\n" not in said


def test_the_whole_capture_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the property above sees parsers only."""
    monkeypatch.setattr(schedule, "LENGTHS", (CELLS,))
    monkeypatch.setattr(judge, "ATTACKERS", (LikelihoodRatio(),))
    monkeypatch.setattr(judge, "LEAKS", LATE[-1:])
    for kind, octets in FILES.items():
        (tmp_path / kind).write_bytes(octets)
        assert of_capture(tmp_path / kind, None).figures
