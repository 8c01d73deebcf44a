# SPDX-License-Identifier: MIT
"""A sample of the suite as a command: two nodes and, as root, two Postfixes beside them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema

import benchmarks

ROOT = Path(benchmarks.__file__).parent
SECONDS = 200
"""For a machine that does much else."""


def test_a_sample_of_relay_beside_postfix(
    tmp_path: Path, tool: Callable[[str, str], str]
) -> None:
    tool("smtp-source", "postfix"), tool("smtp-sink", "postfix")
    done = subprocess.run(
        [
            sys.executable, "-bb", "-m", "benchmarks", "--quick", "--only", "relay",
            "--pairs", "postfix-reuse", "--json", str(tmp_path / "a.json"),
            "--html", str(tmp_path / "a.html"),
        ],
        check=False, capture_output=True, text=True, timeout=SECONDS, cwd=ROOT.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "a.json").read_text())
    jsonschema.validate(told, json.loads((ROOT / "schema.json").read_text()))
    (result,) = told["results"]
    names = {series["name"] for each in result["figures"] for series in each["series"]}
    wanted = {"mesh", "Postfix, reuse"} if os.geteuid() == 0 else {"mesh"}
    assert names == wanted, result["notes"]
    assert all(each["value"] for each in result["figures"] if each["of_rival"] is False)
    assert result["figures"][0]["name"] == "10 kB, 20 sessions"
    assert "figures with a bound hold" in done.stdout
    assert "<svg" in (tmp_path / "a.html").read_text()
