# SPDX-License-Identifier: MIT
"""`mesh export` and `mesh peers`, as two operators use them."""

import json
import os
import sys
import threading
import time
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.core.descriptor import fingerprint, parse_untrusted
from tests.cli.terminal import typing
from tests.descriptors import DAY, text_of

Capture = pytest.CaptureFixture[str]
NAME_ONE = "name a file with what `mesh export` printed"


def init(folder: Path, name: str, *serves: str) -> Path:
    who = [f"--remailer={address}" for address in (f"mix@{name}.test", *serves)]
    address = f"{name}.test:4000"
    flags = ["--name", name, "--address", address, *who]
    assert main(["init", str(folder / name), *flags]) == 0
    return folder / name / "node.toml"


def export(config: Path, capsys: Capture) -> str:
    capsys.readouterr()
    assert main(["export", "-c", str(config)]) == 0
    return capsys.readouterr().out


@pytest.fixture
def alpha(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Alpha's node.toml, named by the environment."""
    config = init(tmp_path, "alpha")
    monkeypatch.setenv("MESH_CONFIG", str(config))
    capsys.readouterr()
    return config


@pytest.fixture
def bravo(tmp_path: Path, capsys: Capture) -> Path:
    """Bravo's descriptor in a file; it also says it serves list@else.test."""
    config = init(tmp_path, "bravo", "list@else.test")
    path = tmp_path / "bravo.txt"
    path.write_text(export(config, capsys))
    return path


def now_text(node: str, **changes: object) -> str:
    now = int(time.time())
    return text_of(
        node, **({"not_before": now - DAY, "not_after": now + DAY} | changes)
    )


def test_export_is_the_descriptor_and_nothing_else(
    alpha: Path, capsys: Capture
) -> None:
    text = export(alpha, capsys)
    (descriptor,) = parse_untrusted(text)
    assert text.startswith("-----BEGIN")
    assert text.endswith("-----END MESH DESCRIPTOR-----\n")
    assert descriptor.valid_at(time.time())
    assert descriptor.serves == ("mix@alpha.test",)
    assert export(alpha, capsys) == text


def test_export_says_what_node_toml_says_now(alpha: Path, capsys: Capture) -> None:
    (first,) = parse_untrusted(export(alpha, capsys))
    text = alpha.read_text().replace('clock = "renewal"', 'clock = "greedy"')
    alpha.write_text(text)
    (second,) = parse_untrusted(export(alpha, capsys))
    assert second.insecure == ("greedy clock",)
    assert second.serial == first.serial + 1


def test_the_config_option_anywhere(
    alpha: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESH_CONFIG")
    c = ["-c", str(alpha)]
    wrong = ["-c", str(tmp_path / "none.toml")]
    for argv in (
        ["peers", *c],
        ["peers", *c, "list"],
        ["peers", "list", *c],
        [*c, "peers", "list"],
        ["peers", f"--config={alpha}", "list"],
        [*wrong, "peers", *c],
        ["peers", *wrong, "list", *c],
        [*c, "export"],
    ):
        assert main(argv) == 0, argv
    capsys.readouterr()
    assert main(["peers", *c, "list", *wrong]) == 66
    assert (
        capsys.readouterr().err
        == f"mesh: {tmp_path}/none.toml: No such file or directory: "
        "name the node.toml with -c or $MESH_CONFIG\n"
    )
    assert main(["export", "-c", ""]) == 66
    monkeypatch.chdir(alpha.parent)
    assert main(["export"]) == 0


def test_every_verb_tells_all_mistakes_of_the_config(
    alpha: Path, capsys: Capture
) -> None:
    alpha.write_text("[node]\nnmae = 1\n")
    for argv in (
        ["export"],
        ["peers"],
        ["peers", "add", "x"],
        ["peers", "remove", "x"],
    ):
        assert main(argv) == 78
        assert capsys.readouterr().err == (
            f"mesh: {alpha}:1: node.name: is not there: add it\n"
            f'mesh: {alpha}:2: node.nmae: is no key of [node]: did you mean "name"?\n'
        )


def test_export_without_keys(alpha: Path, capsys: Capture) -> None:
    (alpha.parent / "state" / "identity.key").chmod(0o644)
    assert main(["export"]) == 78
    assert "chmod 600" in capsys.readouterr().err


def test_add_list_remove(alpha: Path, bravo: Path, capsys: Capture) -> None:
    (descriptor,) = parse_untrusted(bravo.read_text())
    assert main(["peers"]) == 0
    assert capsys.readouterr().out == "no peers yet: mesh peers add FILE\n"
    assert main(["peers", "add", str(bravo)]) == 0
    out, err = capsys.readouterr()
    shown = fingerprint(descriptor.identity)
    assert out == f"bravo: added, {shown}; serves mix@bravo.test\n"
    assert err == (
        "mesh: bravo: list@else.test lies outside its own host and does not count: if "
        "you know better, add it again with --serves list@else.test\n"
    )
    assert main(["peers", "add", str(bravo), "--serves", "List@Else.test"]) == 0
    out = capsys.readouterr().out
    assert out == f"bravo: updated, {shown}; serves list@else.test, mix@bravo.test\n"
    assert main(["peers", "add", str(bravo)]) == 0
    assert capsys.readouterr().out.startswith("bravo: unchanged, ")
    assert main(["peers", "list"]) == 0
    out = capsys.readouterr().out
    assert fingerprint(descriptor.identity) in out
    assert "list@else.test, mix@bravo.test" in out
    assert "NOT VALID" not in out
    assert main(["peers", "remove", "bravo"]) == 0
    assert capsys.readouterr().out == "bravo: removed\n"
    assert main(["peers", "remove", "bravo"]) == 66
    assert "bravo.mesh: not there" in capsys.readouterr().err


def test_list_for_a_program(alpha: Path, bravo: Path, capsys: Capture) -> None:
    main(["peers", "add", str(bravo)])
    capsys.readouterr()
    assert main(["peers", "--json"]) == 0
    first = capsys.readouterr().out
    for line in (["peers", "list", "--json"], ["peers", "--json", "list"]):
        assert main(line) == 0
        assert capsys.readouterr().out == first
    shown = json.loads(first)
    assert (shown["schema"], shown["mistakes"]) == (1, [])
    (peer,) = shown["peers"]
    assert peer["name"] == "bravo"
    assert peer["serves"] == ["mix@bravo.test"]
    assert peer["not_counted"] == ["list@else.test"]
    assert peer["cells_per_second"] == 1
    assert peer["valid"] is True


def test_list_names_bad_files_and_ends_with_65(
    alpha: Path, bravo: Path, capsys: Capture
) -> None:
    main(["peers", "add", str(bravo)])
    (alpha.parent / "peers.d" / "junk.mesh").write_text("junk")
    capsys.readouterr()
    assert main(["peers"]) == 65
    out, err = capsys.readouterr()
    assert out.startswith("bravo\n")
    assert err.startswith(f"mesh: {alpha.parent}/peers.d/junk.mesh:1: no descriptor")
    assert main(["peers", "--json"]) == 65
    assert len(json.loads(capsys.readouterr().out)["mistakes"]) == 1


def test_list_shows_who_expired(alpha: Path, capsys: Capture) -> None:
    now = int(time.time())
    text = text_of("carol", not_before=now - 2 * DAY, not_after=now - DAY)
    (alpha.parent / "peers.d" / "carol.mesh").write_text(text)
    assert main(["peers"]) == 0
    assert "NOT VALID NOW" in capsys.readouterr().out


def test_several_files_all_or_none(
    alpha: Path, bravo: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "both").write_text(now_text("carol") + "\nand\n" + now_text("dave"))
    (tmp_path / "cut").write_text(now_text("erin")[:200])
    (tmp_path / "own").write_text(now_text("alpha"))
    files = [str(tmp_path / name) for name in ("both", "cut", "none", "own")]
    assert main(["peers", "add", str(bravo), *files]) == 65
    assert capsys.readouterr().err.splitlines() == [
        f"mesh: {tmp_path}/cut:1: cut off: ask for the whole text",
        f"mesh: {tmp_path}/none: No such file or directory: {NAME_ONE}",
    ]
    assert main(["peers", "add", str(bravo), files[0], files[3]]) == 65
    assert "alpha is this node's own name" in capsys.readouterr().err
    assert main(["peers"]) == 0
    assert capsys.readouterr().out.startswith("no peers yet")
    assert main(["peers", "add", str(bravo), files[0]]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_files_that_are_not_there_are_66(
    alpha: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["peers", "add", str(tmp_path / "none")]) == 66
    assert main(["peers", "add", str(tmp_path)]) == 66
    assert capsys.readouterr().err.splitlines() == [
        f"mesh: {tmp_path}/none: No such file or directory: {NAME_ONE}",
        f"mesh: {tmp_path}: Is a directory: {NAME_ONE}",
    ]


def test_a_file_without_end_is_65(alpha: Path, capsys: Capture) -> None:
    assert main(["peers", "add", "/dev/zero"]) == 65
    assert capsys.readouterr().err == (
        "mesh: /dev/zero:1: more than 4 MiB: this is no descriptor\n"
    )


def test_from_a_pipe_and_from_standard_input(
    alpha: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(now_text("carol"),))
    writer.start()
    assert main(["peers", "add", str(pipe)]) == 0
    writer.join()
    stdin = TextIOWrapper(BytesIO(now_text("dave").encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["peers", "add", "-"]) == 0
    found = sorted(p.name for p in (alpha.parent / "peers.d").glob("*.mesh"))
    assert found == ["carol.mesh", "dave.mesh"]


@pytest.mark.parametrize("word", ["nobody@else.test", "nonsense", "", "mix@alpha.test"])
def test_serves_that_no_file_claims(
    alpha: Path, bravo: Path, word: str, capsys: Capture
) -> None:
    assert main(["peers", "add", "--serves", word, str(bravo)]) == 65
    assert capsys.readouterr().err == (
        f"mesh: --serves {word}: no FILE claims it: compare its Serves: lines\n"
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "alpha"}, "own name"),
        ({"serves": ("mix@alpha.test",)}, "mix@alpha.test: this node serves it"),
        ({"serves": ("@alpha.test",)}, "@alpha.test: this node serves it"),
        ({"serves": ("postmaster@alpha.test",)}, "this node serves it"),
        ({"serves": ("mix@bravo.test",)}, "mix@bravo.test: bravo serves it"),
        ({"network": "test"}, "of the network test"),
        ({"not_after": int(time.time()) - 1}, "expired"),
        ({"not_before": int(time.time()) + 9999}, "compare the clocks"),
    ],
)
def test_descriptors_that_are_refused(
    alpha: Path,
    bravo: Path,
    tmp_path: Path,
    changes: dict[str, object],
    why: str,
    capsys: Capture,
) -> None:
    main(["peers", "add", str(bravo)])
    (tmp_path / "carol.txt").write_text(now_text("carol", **changes))
    capsys.readouterr()
    assert main(["peers", "add", str(tmp_path / "carol.txt")]) == 65
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert why in err


def test_an_older_serial_and_the_same_again(
    alpha: Path, tmp_path: Path, capsys: Capture
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    config = init(tmp_path, "carol")
    old.write_text(export(config, capsys))
    config.write_text(
        config.read_text().replace("cells_per_second = 1 ", "cells_per_second = 2 ")
    )
    new.write_text(export(config, capsys))
    assert [main(["peers", "add", str(f)]) for f in (old, new, new, old)] == [
        0,
        0,
        0,
        65,
    ]
    assert "is older than" in capsys.readouterr().err


def test_every_truncation_of_a_file_is_65(alpha: Path, tmp_path: Path) -> None:
    text = now_text("carol")
    for length in range(0, len(text) - 1, 41):
        (tmp_path / "cut").write_text(text[:length])
        assert main(["peers", "add", str(tmp_path / "cut")]) == 65


def test_removing_a_name_that_is_none(alpha: Path, capsys: Capture) -> None:
    assert main(["peers", "remove", "../alpha"]) == 66
    assert "is no name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "counted"), [("y\n", True), ("n\n", False), ("\n", False)]
)
def test_asked_on_a_terminal(
    alpha: Path,
    bravo: Path,
    typed: str,
    counted: bool,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MESH_CONFIG")
    add = ["peers", "add", "-c", str(alpha), str(bravo)]
    with typing(typed, monkeypatch):
        assert main(add) == 0
    capsys.readouterr()
    main(["peers", "--json", "-c", str(alpha)])
    (peer,) = json.loads(capsys.readouterr().out)["peers"]
    assert ("list@else.test" in peer["serves"]) is counted
    if counted:  # what was confirmed is not asked again
        with typing("", monkeypatch):
            assert main(add) == 0


def test_a_bad_disk(alpha: Path, bravo: Path, capsys: Capture) -> None:
    (alpha.parent / "peers.d").rmdir()
    (alpha.parent / "peers.d").touch()
    assert main(["peers", "add", str(bravo)]) == 73
    assert main(["peers"]) == 65
    assert "put the folder back" in capsys.readouterr().err


def test_a_file_of_all_nodes_is_for_each(
    alpha: Path, bravo: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Our own descriptor is passed over in it, and nobody else's by our name."""
    ours = export(alpha, capsys)
    every = tmp_path / "all.txt"
    every.write_text(ours + bravo.read_text() + now_text("carol"))
    assert main(["peers", "add", str(every)]) == 0
    out = capsys.readouterr().out
    assert [line.partition(":")[0] for line in out.splitlines()] == ["bravo", "carol"]
    every.write_text(now_text("alpha") + now_text("dave"))
    assert main(["peers", "add", str(every)]) == 65
    assert "own name" in capsys.readouterr().err
    alone = tmp_path / "alone.txt"
    alone.write_text(ours)
    assert main(["peers", "add", str(alone)]) == 65


def test_list_says_clock_class_and_days_left(alpha: Path, capsys: Capture) -> None:
    folder = alpha.parent / "peers.d"
    now = int(time.time())
    (folder / "carol.mesh").write_text(
        text_of("carol", not_before=now - DAY, not_after=now + 30 * DAY + 60)
    )
    (folder / "dave.mesh").write_text(
        text_of("dave", not_before=now - 2 * DAY, not_after=now - DAY)
    )
    assert main(["peers", "list"]) == 0
    out = capsys.readouterr().out
    carol, dave = out.split("\ndave\n")
    words = [line.split() for line in carol.splitlines()]
    assert ["clock", "renewal"] in words
    assert ["cells", "per", "second", "1.0"] in words
    assert ["days", "left", "30"] in words
    assert "NOT VALID" in dave
    assert ["days", "left", "0"] in [line.split() for line in dave.splitlines()]
    assert main(["peers", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["peers"]
    assert [peer["days_left"] for peer in told] == [30, 0]


def test_peers_need_no_key_of_ours(alpha: Path, bravo: Path, capsys: Capture) -> None:
    (alpha.parent / "state" / "identity.key").unlink()
    assert main(["peers", "add", str(bravo)]) == 0
    assert main(["peers"]) == 0
    assert "listed by         hand" in capsys.readouterr().out
