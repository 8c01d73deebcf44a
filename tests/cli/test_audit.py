# SPDX-License-Identifier: MIT
"""`mesh audit` on the command line: what it refuses, and what its exit code says."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.audit import capture
from mesh.audit.figures import Control, Figure
from mesh.audit.report import Report, read
from mesh.cli.main import main

Capture = pytest.CaptureFixture[str]
FOUND = Control("greedy", 0.99, "> 0.9", True)
GOOD = Figure("idle or busy", "learned", 0.5, 0.51, 0.52, "AUC", 100, "", (FOUND,))


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["x.pcap", "--live"],
        ["--live", "--events", "x"],
        ["x.pcap", "--minutes", "5"],
        ["x.pcap", "--resume", "x"],
        ["--live", "--minutes", "0"],
        ["--live", "--minutes", "nan"],
    ],
)
def test_usage(argv: list[str], capsys: Capture) -> None:
    assert main(["audit", *argv]) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mesh: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["numpy", "sklearn", "dpkt", "aiosmtpd"])
def test_without_the_extra_one_line_says_what_to_install(name: str) -> None:
    words = (
        f"import sys; sys.modules[{name!r}] = None\n"
        "from mesh.cli.main import main; sys.exit(main(['audit', 'x.pcap']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", words], check=False, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (69, "")
    assert ran.stderr == (
        f"mesh: no Python package {name}: pip install 'remailer-mesh[audit]'\n"
    )


def test_a_capture_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert main(["audit", str(tmp_path / "none.pcap")]) == 66
    assert "none.pcap: " in capsys.readouterr().err


def test_a_file_that_is_no_capture(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "wire.pcap"
    file.write_bytes(b"no capture at all, but long enough for a header")
    assert main(["audit", str(file)]) == 65
    assert capsys.readouterr().err.count("\n") == 1


def test_live_is_for_root(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["audit", "--live"]) == 77
    assert "root" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("figures", "code"),
    [
        ((GOOD,), 0),
        ((GOOD, replace(GOOD, bound=None)), 0),
        ((GOOD, replace(GOOD, upper=0.9)), 1),
        ((GOOD, replace(GOOD, controls=())), 1),
        ((replace(GOOD, bound=None),), 1),
        ((), 1),
    ],
)
@pytest.mark.parametrize("has_events", [True, False])
def test_the_exit_code_and_the_files(
    figures: tuple[Figure, ...],
    code: int,
    has_events: bool,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = Report("0", "\x1b[31ma file", 1.0, 10, figures)
    monkeypatch.setattr(capture, "of_capture", lambda *_: report)
    page, told = tmp_path / "page.html", tmp_path / "told.json"
    argv = ["audit", "x.pcap", "--json", str(told), "--html", str(page)]
    if has_events:
        argv += ["--events", "x.jsonl"]
    elif figures and all(figure.bound is None for figure in figures):
        code = 0  # there is none on purpose
    assert main(argv) == code
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert report.summary in out
    assert read(told.read_text()) == report
    assert json.loads(told.read_text())["summary"] == report.summary
    assert report.summary in page.read_text()


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_folder_that_is_not_there_is_said_before_hours_of_work(
    option: str, tmp_path: Path, capsys: Capture
) -> None:
    argv = ["audit", str(tmp_path / "x.pcap"), option, str(tmp_path / "no" / "x")]
    assert main(argv) == 73
    assert (
        capsys.readouterr().err == f"mesh: {tmp_path / 'no'}: no such folder: make it\n"
    )
