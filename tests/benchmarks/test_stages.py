# SPDX-License-Identifier: MIT
"""The stages of a message: that each is there, and what is added up."""

import socket
from pathlib import Path

import pytest

from benchmarks.cost import Cost, Load
from benchmarks.speaker import GREETING
from benchmarks.stages import STAGES, Floor, Round, figures, floors_of, table
from benchmarks.steps import measured, speaker
from mesh.cli.help import PAGES

LOAD = Load(4, 10_000, 2, quiet=0.0)
STEPS = {step for stages in STAGES.values() for each in stages for step in each.steps}
FLOORS = {each.floor for stages in STAGES.values() for each in stages} - {""}


def made(cpu: float, whole: dict[str, float]) -> Round:
    """All stages alike."""
    found = dict.fromkeys(STEPS, Cost(cpu, 123_456))
    return Round(found, dict.fromkeys(FLOORS, Floor(1234, 1234)), whole)


def test_every_step_is_measured_on_the_product_itself() -> None:
    found = measured(LOAD)
    assert set(found) == STEPS
    assert all(cost.cpu > 0 for cost in found.values())


def test_every_limit_is_measured() -> None:
    found = floors_of(LOAD)
    assert set(found) == FLOORS
    assert all(floor.cpu > 0 for floor in found.values())


def test_a_part_of_a_stage_is_not_added_again() -> None:
    steps = [step for each in STAGES["alpha"] if not each.part for step in each.steps]
    assert made(2, {}).sum("alpha") == 2 * len(steps)
    assert {"seal", "insert"} <= STEPS - set(steps)


def test_what_no_stage_has_is_said() -> None:
    whole = {"alpha": 500.0, "bravo": 600.0}
    sums = made(10, whole).sum("alpha")
    told = "\n".join(table(LOAD, [made(10, whole)]))
    assert f"{500 - sums:,.0f} are of no stage" in told
    assert "no stage" not in "\n".join(table(LOAD, [made(10, {})]))
    named = {each.name: each for each in figures(LOAD, [made(10, whole)])}
    assert named["alpha: all stages, 2 at once"].ours.values == (sums,)
    rival = named["alpha: all stages, 2 at once"].rival
    assert rival
    assert rival.values == (500.0,)


@pytest.mark.parametrize("cpu", [1.0, 12_345.0])
def test_the_table_fits_the_handbook(cpu: float) -> None:
    lines = table(LOAD, [made(cpu, {"alpha": 1e5, "bravo": 1e5})])
    assert max(map(len, lines)) <= 92 - 4


def test_the_handbook_names_every_stage() -> None:
    page = (PAGES / "performance.md").read_text()
    for stages in STAGES.values():
        for each in stages:
            assert each.name in page


def test_the_server_stays_when_a_session_ends_with_replies_unread(
    tmp_path: Path,
) -> None:
    """As a node's do that is ended: those of another go on, and the end is a good one."""
    path = tmp_path / "sock"
    with speaker("server", path) as process:
        process.stdout.readline()
        for said in (b"", b"LHLO a\r\n", b"LHLO a\r\nQUIT\r\n" * 100):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                sock.recv(1)  # the rest of the greeting is left
                sock.sendall(said)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            assert sock.recv(100) == GREETING
            sock.sendall(b"NOOP\r\n")
            assert sock.recv(100) == b"250 ok\r\n"
