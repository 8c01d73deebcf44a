# SPDX-License-Identifier: MIT
"""Each exit code of the contract, and its one line a mistake.

Each code comes from the real program once; the other ways to it start no process.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.system.nodes import MESH, World, mesh, mesh_here

WRONG = """\
[node]
name = "Alpha node"
lisen = ["0.0.0.0:48821"]
address = "127.0.0.1"
[local]
message_bytes = -1
[[remailer]]
address = "nobody"
deliver = "mbox:/var/mail/mix"
[link]
clock = "sometimes"
cells_per_second = 3
[pool]
kind = "sometimes"
"""
WRONG_LINES = (2, 3, 4, 6, 8, 9, 11, 12, 14)


def test_all_mistakes_of_a_config_at_once(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(WRONG)
    errors = mesh("run", "-c", str(file), code=78).splitlines()
    places = [int(line.removeprefix(f"mesh: {file}:").split(":")[0]) for line in errors]
    assert places == list(WRONG_LINES)
    assert "did you mean" in errors[1]
    assert "listen" in errors[1]


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (64, ["rum"]),
        (64, ["run", "--quickly"]),
        (64, ["init"]),
        (64, ["init", "x", "--name", "x", "--address", "no port"]),
        (66, ["run", "-c", "nowhere.toml"]),
        (66, ["export", "-c", "nowhere.toml"]),
        (66, ["run"]),
    ],
)
def test_wrong_command_lines(tmp_path: Path, code: int, line: list[str]) -> None:
    errors = mesh_here(*line, code=code, cwd=tmp_path)
    assert errors.startswith("mesh: ")
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "line"), [(64, ["run", "--quickly"]), (66, ["run", "-c", "nowhere.toml"])]
)
def test_the_program_says_the_same(tmp_path: Path, code: int, line: list[str]) -> None:
    errors = mesh(*line, code=code, cwd=tmp_path)
    assert errors == mesh_here(*line, code=code, cwd=tmp_path)


def test_wrong_files(world: World) -> None:
    alpha, bravo = world.node("alpha"), world.node("bravo")
    config = ("-c", str(alpha.config))
    nonsense = world.folder / "nonsense"
    nonsense.write_text("no descriptor\n")
    good = world.folder / "bravo.mesh"
    good.write_text(mesh_here("export", "-c", str(bravo.config)))
    mesh("peers", "add", *config, str(nonsense), code=65)
    mesh_here("peers", "add", *config, str(world.folder / "missing"), code=66)
    mesh_here("peers", "add", *config, str(good), str(nonsense), code=65)
    mesh_here("peers", "add", "--serves", "x@y.test", *config, str(good), code=65)
    assert list((alpha.home / "peers.d").glob("*.mesh")) == []
    init = ("--name", "alpha", "--address", "127.0.0.1:48821")
    mesh("init", str(alpha.home), *init, code=73)
    mesh_here("init", "/proc/no/such/place", *init, code=73)


def test_wrong_keys(world: World) -> None:
    alpha = world.node("alpha")
    keys = [
        alpha.home / "state" / f"{kind}.key" for kind in ("identity", "link", "spool")
    ]
    for key in keys:
        line = key.read_text()
        key.write_text(line.replace(line[30], "?", 1))
        errors = mesh("run", "-c", str(alpha.config), code=78)
        assert str(key) in errors
        assert errors.count("\n") == 1
        key.write_text(line)
    keys[0].chmod(0o644)
    assert "chmod 600" in mesh("run", "-c", str(alpha.config), code=78)


def test_full_standard_output(world: World) -> None:
    alpha = world.node("alpha")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [MESH, "export", "-c", str(alpha.config)],
            check=False, stdout=full, stderr=subprocess.PIPE, timeout=30,
        )  # fmt: skip
    assert done.returncode == 74
    assert done.stderr.startswith(b"mesh: ")


def test_option_c_stands_anywhere_after_the_verb(world: World) -> None:
    alpha = world.node("alpha")
    config = ("-c", str(alpha.config))
    nowhere = world.folder / "nowhere"
    nowhere.mkdir()
    for line in (
        ("peers", "list", *config),
        ("peers", *config, "list"),
        ("peers", *config),
    ):
        assert mesh_here(*line, cwd=nowhere).startswith("no peers yet")
    done = subprocess.run(
        [MESH, "peers"],
        check=True, capture_output=True, text=True, timeout=30, cwd=nowhere,
        env={**os.environ, "MESH_CONFIG": str(alpha.config)},
    )  # fmt: skip
    assert done.stdout.startswith("no peers yet")
    assert mesh_here("peers", cwd=alpha.home).startswith("no peers yet")
