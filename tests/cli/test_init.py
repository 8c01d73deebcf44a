# SPDX-License-Identifier: MIT
"""`mesh init`: a folder that is a node, or nothing that looks like one."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.config import load
from mesh.core.crypto import signing_public
from mesh.core.descriptor import fingerprint
from mesh.node.keys import load_identity
from mesh.values import LmtpHost, LmtpSocket, Maildir
from tests.cli.terminal import typing
from tests.disk import forbidden_folder, full_disk

Capture = pytest.CaptureFixture[str]

FLAGS = ["--name", "alpha", "--address", "127.0.0.1:4000"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_whole_node(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "deep" / "alpha"
    old = os.umask(0o777)
    try:
        folder.parent.mkdir(mode=0o700)
        folder.parent.chmod(0o700)
        assert main(["init", str(folder), *FLAGS]) == 0
    finally:
        os.umask(old)
    out, err = capsys.readouterr()
    assert err == ""
    found = {str(p.relative_to(folder)): mode(p) for p in folder.rglob("*")}
    assert found == {
        "node.toml": 0o600,
        "peers.d": 0o700,
        "state": 0o700,
        "state/identity.key": 0o600,
        "state/link.key": 0o600,
        "state/spool": 0o700,
        "state/spool.key": 0o600,
    }
    assert mode(folder) == 0o700
    identity = signing_public(load_identity(folder / "state"))
    assert out.splitlines()[-1] == f"fingerprint {fingerprint(identity)}"


def test_parents_are_made(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "a" / "b" / "c"), *FLAGS]) == 0
    assert mode(tmp_path / "a" / "b" / "c") == 0o700


def test_the_file_loads_and_has_every_key(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path), *FLAGS]) == 0
    config = load(tmp_path / "node.toml")
    assert config.node.name == "alpha"
    assert config.node.network == "main"
    assert config.node.address == "127.0.0.1:4000"
    assert config.node.listen == ("0.0.0.0:4000", "[::]:4000")
    assert config.state_dir == tmp_path / "state"
    assert config.peers_dir == tmp_path / "peers.d"
    assert config.remailer == ()
    for table in (config.node, config.local, config.link, config.delivery, config.pool):
        assert table.model_fields_set == set(type(table).model_fields)


def test_the_example_in_it_is_one(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path), *FLAGS]) == 0
    path = tmp_path / "node.toml"
    lines = path.read_text().splitlines()
    start = lines.index("#[[remailer]]")
    lines[start : start + 4] = [line[1:] for line in lines[start : start + 4]]
    path.write_text("\n".join(lines))
    assert load(path).remailer[0].deliver == Maildir(tmp_path / "Maildir")


def test_it_says_what_cover_costs_and_what_to_back_up(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path), *FLAGS]) == 0
    text = (tmp_path / "node.toml").read_text()
    assert "GB a day" in text
    assert "Back up" in text
    (rates,) = re.findall(r"#   cells_per_second +([0-9. ]+)\n", text)
    (costs,) = re.findall(r"#   GB a day +([0-9. ]+) and", text)
    for rate, cost in zip(rates.split(), costs.split(), strict=True):
        assert float(cost) == pytest.approx(float(rate) * 4096 * 86400 / 1e9, rel=0.02)


def test_flags(tmp_path: Path) -> None:
    flags = ["--name", "a.b-c", "--address", "Node.Example.NET:1", "--network", "test"]
    who = [
        "--remailer=Mix@Node.Example.net",
        "--remailer=@example.net=lmtp:/run/x.sock",
        "--remailer=a=b@example.org=lmtp:127.0.0.1:24",
        '--remailer=c@example.org=maildir:/a "b"\\c/ä',
    ]
    assert main(["init", str(tmp_path / "x"), *flags, *who]) == 0
    config = load(tmp_path / "x" / "node.toml")
    assert config.node.name == "a.b-c"
    assert config.node.network == "test"
    assert config.node.address == "node.example.net:1"
    assert [(r.address, r.deliver) for r in config.remailer] == [
        (("mix@node.example.net",), Maildir(tmp_path / "x" / "Maildir")),
        (("@example.net",), LmtpSocket(Path("/run/x.sock"))),
        (("a=b@example.org",), LmtpHost("127.0.0.1", 24)),
        (("c@example.org",), Maildir(Path('/a "b"\\c/ä'))),
    ]


def test_a_node_that_dials_only(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path), "--name", "alpha", "--address", ""]) == 0
    node = load(tmp_path / "node.toml").node
    assert (node.address, node.listen) == ("", ())


def test_every_wrong_flag_at_once(tmp_path: Path, capsys: Capture) -> None:
    flags = ["--name", "A b", "--address", "x", "--network", "", "--remailer", "q"]
    more = ["--remailer", "a@b.c=pipe:'x", "--remailer", "a@b.c=maildir:\udcff"]
    assert main(["init", str(tmp_path / "x"), *flags, *more]) == 64
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[1] for line in lines] == [
        "--name:",
        "--network:",
        "--address:",
        "--remailer:",
        "--remailer:",
        "--remailer:",
        "--remailer:",
    ]
    assert "cannot be split" in lines[4]
    assert "one address twice" in lines[6]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("missing", ["--name", "--address"])
def test_a_missing_flag_without_a_terminal(
    tmp_path: Path, missing: str, capsys: Capture
) -> None:
    at = FLAGS.index(missing)
    flags = FLAGS[:at] + FLAGS[at + 2 :]
    assert main(["init", str(tmp_path / "x"), *flags]) == 64
    assert capsys.readouterr().err == f"mesh: {missing} is not given: add it\n"


def test_a_missing_flag_is_asked_for_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with typing("alpha\n127.0.0.1:4000\n", monkeypatch):
        assert main(["init", str(tmp_path)]) == 0
    assert load(tmp_path / "node.toml").node.address == "127.0.0.1:4000"


def test_an_interrupted_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with typing("\x04", monkeypatch):
        assert main(["init", str(tmp_path / "x")]) == 130
    assert not (tmp_path / "x").exists()


def test_a_folder_that_holds_a_node(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "node.toml").symlink_to("nowhere")
    assert main(["init", str(tmp_path), *FLAGS]) == 73
    assert capsys.readouterr().err == (
        f"mesh: {tmp_path}/node.toml: there is a node already: edit it, or choose "
        "another DIR\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["node.toml"]


def test_a_folder_with_other_things_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    tmp_path.chmod(0o755)
    assert main(["init", str(tmp_path), *FLAGS]) == 0
    assert mode(tmp_path) == 0o755
    assert mode(tmp_path / "state") == 0o700


def test_an_empty_folder_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert main(["init", str(tmp_path), *FLAGS]) == 0
    assert mode(tmp_path) == 0o700


def test_keys_that_are_there_are_kept(tmp_path: Path, capsys: Capture) -> None:
    assert main(["init", str(tmp_path), *FLAGS]) == 0
    first = capsys.readouterr().out.splitlines()[-1]
    (tmp_path / "node.toml").unlink()
    (tmp_path / "state" / "link.key").unlink()
    assert main(["init", str(tmp_path), *FLAGS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == first
    assert lines[0] == f"kept        {tmp_path}/state/identity.key"


def test_a_key_that_is_none_is_78(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "identity.key").write_text("hello")
    (tmp_path / "state" / "identity.key").chmod(0o600)
    assert main(["init", str(tmp_path), *FLAGS]) == 78
    assert "identity.key:1: no identity key" in capsys.readouterr().err
    assert not (tmp_path / "node.toml").exists()


def test_places_where_nothing_can_be_made(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    assert main(["init", str(tmp_path / "file"), *FLAGS]) == 73
    assert main(["init", str(tmp_path / "file" / "x"), *FLAGS]) == 73
    assert main(["init", "/proc/nothing/x", *FLAGS]) == 73
    with forbidden_folder() as folder:
        assert main(["init", str(folder / "x"), *FLAGS]) == 73
    err = capsys.readouterr().err
    assert err.count("\n") == 4
    assert err.count("choose another DIR") == 4


def test_a_full_disk_leaves_no_node(tmp_path: Path, capsys: Capture) -> None:
    with full_disk():
        code = main(["init", str(tmp_path), *FLAGS])
    assert code == 74
    assert not (tmp_path / "node.toml").exists()
    assert main(["init", str(tmp_path), *FLAGS]) == 0


def test_several_at_once_make_one_node(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mesh", "init", str(tmp_path / "x"), *FLAGS]
    running = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(4)]
    assert sorted(process.wait(60) for process in running) == [0, 73, 73, 73]
    assert main(["export", "-c", str(tmp_path / "x" / "node.toml")]) == 0
    names = sorted(path.name for path in (tmp_path / "x").rglob("*"))
    assert not [name for name in names if name.startswith(".")]
