# SPDX-License-Identifier: MIT
"""The README holds: what it says to type works, and its tables name what is there."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import mesh.tables
from mesh.core.clock import Clock
from tests.system.nodes import free_port

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"(?ms)^```sh\n(.*?)^```$", README)
NOT_ROOMS = {"__init__"}


@pytest.mark.parametrize("block", BLOCKS)
def test_what_it_says_to_type(tmp_path: Path, block: str) -> None:
    for port in sorted(set(re.findall(r"488\d\d", block))):
        block = block.replace(port, str(free_port()))  # others may use those
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["sh", "-eu", "-c", block],
        cwd=tmp_path, env={**os.environ, "PATH": path}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        out, err = shell.communicate(timeout=90)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    assert shell.returncode == 0, err
    assert err == "mesh: ready\n" * 2
    assert out.endswith("Subject: hello\n\nfirst light\n")
    assert not list(tmp_path.rglob("*.sock"))


def test_there_is_something_to_type() -> None:
    assert BLOCKS


def test_every_key_of_the_config_with_its_default() -> None:
    rows = re.findall(r"(?m)^\| `\[+(\w+)\]+ (\w+)` \| ([^|]+) \|", README)
    shown = {(table, key): default.strip("` ") for table, key, default in rows}
    models: dict[str, type[BaseModel]] = {
        "node": mesh.tables.Node,
        "local": mesh.tables.Local,
        "remailer": mesh.tables.Remailer,
        "link": mesh.tables.Link,
        "delivery": mesh.tables.Delivery,
        "pool": mesh.tables.Pool,
    }
    there = {
        (table, key): field
        for table, model in models.items()
        for key, field in model.model_fields.items()
    }
    assert list(shown) == list(there)
    for place, field in there.items():
        if field.is_required():
            assert shown[place] == "none", place
        elif place != ("node", "listen"):
            said = tomllib.loads(f"said = {shown[place]}")["said"]
            assert said == _plain(field.get_default(call_default_factory=True)), place


def _plain(value: Any) -> Any:
    """As TOML would say it."""
    if isinstance(value, Path):
        return str(value)
    if value is None:
        return ""
    if isinstance(value, Clock):
        return value.name.lower()
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("room", ["audit", "core", "node"])
def test_every_module_is_in_the_reading_order(room: str) -> None:
    rows = re.findall(rf"(?m)^\| (`{room}/[^|]+) \|", README)
    named = [
        name.removeprefix(f"{room}/")
        for row in rows
        for name in re.findall("`(.*?)`", row)
    ]
    there = {path.stem for path in (ROOT / "mesh" / room).glob("*.py")} - NOT_ROOMS
    assert sorted(named) == sorted(there)


def test_every_file_that_it_names_is_there() -> None:
    for name in re.findall(
        r"`((?:mesh|tests|scripts|node|core|audit)/[\w/.-]+)`", README
    ):
        path = name if name.startswith(("mesh", "tests", "scripts")) else f"mesh/{name}"
        assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), name


def test_the_spool_has_the_states_that_it_names() -> None:
    table = (ROOT / "mesh/node/spool.py").read_text()
    states = set(re.findall(r"\bS\d\b", README))
    assert states == set(re.findall(r"\bS\d\b", table.split('"""')[1]))
