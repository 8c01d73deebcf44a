# SPDX-License-Identifier: MIT
"""`mesh rotate` and `mesh withdraw`, as an operator types them while the node is down."""

import re
import time
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.core.descriptor import Descriptor, parse_untrusted
from mesh.node.rotation import end
from tests.descriptors import DAY, NOW
from tests.node.homes import Home, mesh

Capture = pytest.CaptureFixture[str]


class Wall:
    """The clock on the wall."""

    now = NOW


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    made = Wall()
    monkeypatch.setattr(time, "time", lambda: made.now)
    return made


@pytest.fixture
def alpha(tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = Home(tmp_path, "alpha")
    monkeypatch.setenv("MESH_CONFIG", str(home.toml))
    return home


def said() -> Descriptor:
    return parse_untrusted(mesh("export"))[0]


def test_rotate(alpha: Home, wall: Wall, capsys: Capture) -> None:
    first = said()
    printed = mesh("rotate")
    assert (
        "link key: changed; the one before opens until 2027-01-29 08:00:00Z" in printed
    )
    both = said()
    assert both.identity == first.identity
    assert (both.serial, both.link_keys[1:]) == (first.serial + 1, first.link_keys)
    assert main(["rotate"]) == 75
    assert capsys.readouterr().err == (
        "mesh: the link key before this one still opens: "
        "try again after 2027-01-29 08:00:00Z, when it is destroyed\n"
    )
    end(alpha.path / "state")
    wall.now += 29 * DAY
    assert main(["rotate"]) == 75
    assert "wait until 2027-02-14 08:00:00Z, or say --again" in capsys.readouterr().err
    mesh("rotate", "--again")
    assert said().link_keys[1] == both.link_keys[0]


@pytest.mark.parametrize(
    ("argv", "hour"),
    [
        ([], "2027-01-16 08:00:00Z"),
        (["--in", "0"], "2027-01-15 09:00:00Z"),
        (["--in", "3"], "2027-01-15 11:00:00Z"),
        (["--at", "2027-01-20"], "2027-01-20 00:00:00Z"),
        (["--at", "2027-01-20 07:30"], "2027-01-20 08:00:00Z"),
        (["--at", "2027-01-20T07:30+02:00"], "2027-01-20 06:00:00Z"),
        (["--at", "2027-01-20T07:00Z"], "2027-01-20 07:00:00Z"),
    ],
)
def test_withdraw_names_a_full_hour(alpha: Home, argv: list[str], hour: str) -> None:
    serial = said().serial
    printed = mesh("withdraw", *argv)
    assert printed.startswith(f"alpha: leaves at {hour}\nkeep it running until then")
    text = mesh("export")
    assert f"\nLeaves: {hour}\n" in text
    assert parse_untrusted(text)[0].serial == serial + 1
    assert mesh("withdraw", *argv) == printed
    assert said().serial == serial + 1


def test_a_started_hour_is_the_next_one(alpha: Home, wall: Wall) -> None:
    wall.now += 0.5
    assert "leaves at 2027-01-15 09:00:00Z" in mesh("withdraw", "--in", "0")
    wall.now += 3600
    assert "leaves at 2027-01-15 12:00:00Z" in mesh("withdraw", "--in", "2")


def test_who_stays(alpha: Home, wall: Wall) -> None:
    assert mesh("withdraw", "--cancel") == "alpha: stays; no leaving was announced\n"
    mesh("withdraw", "--in", "3")
    printed = mesh("withdraw", "--cancel")
    assert printed.startswith("alpha: stays\na running node tells its peers")
    assert not re.search("(?m)^Leaves:", mesh("export"))
    mesh("withdraw", "--in", "3")
    wall.now += 4 * 3600
    assert "it had left: its links come back" in mesh("withdraw", "--cancel")
    assert said().leaves == 0
