# SPDX-License-Identifier: MIT
"""What others wrote reaches a terminal as letters, never as orders."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli import handin
from mesh.cli.main import main
from mesh.cli.plain import plain, plain_json, plain_octets

HOSTILE = "\x1b]0;x\x07\x1b[2J\x9b31m\r\n\0\x7f\u202e\u2028\ufeff\udc9b"
ORDERS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's kinds of what is not seen but obeyed, or means nothing."""


@given(st.text(st.characters()))
@pytest.mark.parametrize("before", ["", HOSTILE])
def test_no_order_is_left(before: str, text: str) -> None:
    shown = plain(before + text)
    assert not {unicodedata.category(letter) for letter in shown} & ORDERS
    assert plain(shown) == shown
    told = plain_json({before + text: [before + text]})
    assert told.isascii()
    assert told.replace("\n", "").isprintable()
    assert json.loads(told) == {before + text: [before + text]}


@given(st.binary())
def test_a_dialogue_keeps_its_lines(octets: bytes) -> None:
    shown = plain_octets(octets)
    assert not set(shown) - {*b"\t\r\n", *range(0x20, 0x7F)}
    assert shown.count(b"\r\n") == octets.count(b"\r\n")


def test_what_is_harmless_stays() -> None:
    assert plain("ä, 中, a\\b 'c'") == "ä, 中, a\\b 'c'"
    assert plain("\x1b[2J\u202e") == "\\x1b[2J\\u202e"
    assert plain_octets(b"250 ok\r\n\t~") == b"250 ok\r\n\t~"
    assert plain_octets(b"\x1b\xff") == b"\\x1b\\xff"


def test_names_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--name", "alpha", "--address", "alpha.test:4000"]
    assert main(["init", str(tmp_path / "alpha"), *flags]) == 0
    monkeypatch.setenv("MESH_CONFIG", str(tmp_path / "alpha" / "node.toml"))
    name = os.fsencode(tmp_path / "alpha" / "peers.d") + b"/\x1b[31m\nred\xff.mesh"
    Path(os.fsdecode(name)).write_text("nonsense")
    capsys.readouterr()
    assert main(["peers"]) == 65
    out, err = capsys.readouterr()
    assert "\\x1b[31m\\nred\\udcff.mesh" in err
    assert err.count("\n") == 1
    assert out.replace("\n", "").isprintable()


def test_what_mesh_sendmail_was_told(capfd: pytest.CaptureFixture[str]) -> None:
    handin._say(f"the node refuses it: 550 {HOSTILE}")
    err = capfd.readouterr().err
    assert err.endswith("\n")
    assert err[:-1].isprintable()
