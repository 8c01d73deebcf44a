# SPDX-License-Identifier: MIT
"""Wrong uses of every command: for each its exit code and what its one line says.

Alpha is a node that does not run; bravo's descriptor lies beside it.  Each case spoils
one thing, runs one command line in this process, and looks at both.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mesh.cli import handin
from mesh.cli.main import main
from tests.disk import NOBODY
from tests.node.homes import Home, mesh

pytestmark = pytest.mark.usefixtures("small")

Capture = pytest.CaptureFixture[str]
Spoil = Callable[[Home], object]

ME = ["--name", "x", "--address", "x.test:4000"]
MIX = "secret.sender@private.test"
"""An address that no line may repeat."""


@pytest.fixture(scope="module")
def bravo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What bravo's operator sent."""
    home = Home(tmp_path_factory.mktemp("bravo"), "bravo")
    return mesh("export", "-c", str(home.toml))


@pytest.fixture
def alpha(tmp_path: Path, bravo: str, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A node of whose folder this is the working directory."""
    home = Home(tmp_path, "alpha")
    monkeypatch.chdir(home.path)
    monkeypatch.delenv("MESH_CONFIG", raising=False)
    Path("bravo.mesh").write_text(bravo)
    Path("alpha.mesh").write_text(mesh("export"))
    Path("text").write_text("no descriptor\n")
    return home


def nothing(_: Home) -> None:
    """The command line alone is wrong."""


def puts(file: str, text: str = "x\n") -> Spoil:
    """Something else lies there."""

    def spoil(_: Home) -> None:
        path = Path(file)
        if path.is_dir():
            path.rename(f"{file}.old")
        path.write_text(text)
        path.chmod(0o600)

    return spoil


def folder(name: str) -> Spoil:
    """A folder lies where a file belongs."""

    def spoil(_: Home) -> None:
        Path(name).unlink(missing_ok=True)
        Path(name).mkdir()

    return spoil


def removes(name: str) -> Spoil:
    return lambda _: Path(name).rename(f"{name}.old")


def sets(**values: str) -> Spoil:
    return lambda home: home.set(**values)


def changes(file: str, old: str, new: str) -> Spoil:
    def spoil(_: Home) -> None:
        text = Path(file).read_text()
        assert old in text
        Path(file).write_text(text.replace(old, new, 1))

    return spoil


def lists_bravo(_: Home) -> None:
    mesh("peers", "add", "bravo.mesh")


def anothers(name: str) -> Spoil:
    """Somebody else's: only root, which the tests may be, can make it so."""

    def spoil(_: Home) -> None:
        if os.geteuid():
            pytest.skip("only root can give a folder away")
        os.chown(name, NOBODY, NOBODY)

    return spoil


def stale(_: Home) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("state/control.sock")


def refuses(home: Home) -> None:
    home.set(refuse='"refuse"')
    Path("refuse").write_text("x\n")


Case = tuple[int, str, Spoil, list[str]]

ARGUMENTS: list[Case] = [
    (64, "no verb 'exprt': did you mean \"export\"?", nothing, ["exprt"]),
    (64, "Missing command: see `mesh --help`", nothing, ["-c", "node.toml"]),
    (64, "No such option '--quick': see `mesh run --help`", nothing, ["run", "--quick"]),
    (64, "Got unexpected extra argument (now): see", nothing, ["run", "now"]),
    (64, "Option '-c' requires an argument", nothing, ["status", "-c"]),
    (64, "Missing argument 'DIR': see `mesh init --help`", nothing, ["init"]),
    (64, "--name: 'N n' is no name: use 1 to 63 of a-z", nothing,
        ["init", "n", "--name", "N n", "--address", "h.test:1"]),
    (64, "--address: 'h' has no port: write HOST:PORT", nothing,
        ["init", "n", "--name", "n", "--address", "h"]),
    (64, "--address: 'h:0' has no port: write HOST:PORT", nothing,
        ["init", "n", "--name", "n", "--address", "h:0"]),
    (64, "--network: 'A B' is no name", nothing, ["init", "n", *ME, "--network", "A B"]),
    (64, "--remailer: 'bad' is no address: write user@", nothing,
        ["init", "n", *ME, "--remailer", "bad"]),
    (64, "--remailer: 'mbox:/x' is no delivery: write maildir:", nothing,
        ["init", "n", *ME, "--remailer", "a@b.test=mbox:/x"]),
    (64, "one address twice: give each once", nothing,
        ["init", "n", *ME, "--remailer", "a@b.test", "--remailer", "A@B.test"]),
    (64, "DIR is empty: name a folder", nothing, ["init", "", *ME]),
    (64, "Missing argument 'FILE...': see `mesh peers add --help`", nothing,
        ["peers", "add"]),
    (64, "Missing argument 'NAME'", nothing, ["peers", "remove"]),
    (64, "No such command 'ad'. Did you mean 'add'?", nothing, ["peers", "ad"]),
    (64, "Did you mean '--json'?", nothing, ["status", "--jsn"]),
    (64, "name what to drop: --deferred, --unrouted, or both", nothing,
        ["queue", "drop"]),
    (64, "no terminal to ask on: say --yes", nothing, ["queue", "drop", "--deferred"]),
    (64, "Missing argument 'PEER'", nothing, ["ping"]),
    (64, "Missing argument 'PEER'", nothing, ["connect"]),
    (64, "--at, --in and --cancel exclude each other", nothing,
        ["withdraw", "--in", "3", "--cancel"]),
    (64, "--at: no time: write one as 2027-01-15T08:00", nothing,
        ["withdraw", "--at", "tomorrow"]),
    (64, "--at: that has passed", nothing, ["withdraw", "--at", "2020-01-01"]),
    (64, "--at: more than 365 days from now", nothing,
        ["withdraw", "--at", "2999-01-01"]),
    (64, "Invalid value for '--in'", nothing, ["withdraw", "--in", "-1"]),
    (64, "No such option '--agin'. Did you mean '--again'?", nothing,
        ["rotate", "--agin"]),
    (64, "no page 'quikstart': did you mean \"quickstart\"?", nothing,
        ["help", "quikstart"]),
    (64, "No such option '--nodes'", nothing, ["demo", "--nodes"]),
]  # fmt: skip

FILES: list[Case] = [
    (66, "none.toml: No such file or directory: name the node.toml with -c", nothing,
        ["export", "-c", "none.toml"]),
    (66, "-c: no file has an empty name", nothing, ["export", "-c", ""]),
    (66, "Is a directory: did you mean its node.toml?", nothing, ["run", "-c", "."]),
    (66, "no node.toml here nor in /etc/mesh: name one with -c", removes("node.toml"),
        ["status"]),
    (66, "\\x1b[31m: No such file", nothing, ["export", "-c", "\x1b[31m"]),
    (66, "none: No such file or directory: name a file with what `mesh export`", nothing,
        ["peers", "add", "none"]),
    (66, "state: Is a directory: name a file", nothing, ["peers", "add", "state"]),
    (65, "text:1: no descriptor in it: look for the line -----BEGIN", nothing,
        ["peers", "add", "bravo.mesh", "text"]),
    (65, "alpha.mesh: alpha: alpha is this node's own name", nothing,
        ["peers", "add", "alpha.mesh"]),
    (65, "--serves q@q.test: no FILE claims it", nothing,
        ["peers", "add", "bravo.mesh", "--serves", "q@q.test"]),
    (65, "bravo.mesh:1: the readable lines are not what is signed",
        changes("bravo.mesh", "Name: bravo", "Name: carol"),
        ["peers", "add", "bravo.mesh"]),
    (65, "bravo.mesh:1: cut off: ask for the whole text",
        changes("bravo.mesh", "-----END", "-----AND"), ["peers", "add", "bravo.mesh"]),
    (65, "mix@bravo.test: this node serves it: one must give it up",
        changes("node.toml", "mix@alpha.test", "mix@bravo.test"),
        ["peers", "add", "bravo.mesh"]),
    (66, "carol.mesh: not there: `mesh peers list` shows who", nothing,
        ["peers", "remove", "carol"]),
    (66, "'../bravo' is no name", lists_bravo, ["peers", "remove", "../bravo"]),
    (65, "peers.d/carol.mesh:1: no descriptor in it", puts("peers.d/carol.mesh"),
        ["peers", "list"]),
    (65, "state/descriptor: damaged: remove it, then export again",
        puts("state/descriptor"), ["export"]),
    (73, "node.toml: there is a node already", nothing, ["init", ".", *ME]),
    (73, "text: File exists: choose another DIR", nothing, ["init", "text", *ME]),
    (73, "choose another DIR", nothing, ["init", "/proc/no/such", *ME]),
]  # fmt: skip

CONFIGS: list[tuple[str, str, str]] = [
    ('name = "alpha"', 'name = "Alpha"', "node.name: 'Alpha' is no name: use 1 to 63"),
    ('name = "alpha"', "name = 7", "node.name: must be text: write it in quotes"),
    ('name = "alpha"', "", "node.name: is not there: add it"),
    (
        'network = "main"',
        'netwrk = "main"',
        'is no key of [node]: did you mean "network"',
    ),
    ("[node]", "[nodes]", 'is no table: did you mean "node"?'),
    ("[node]", "[node", ": correct the TOML here"),
    ('state = "state"', 'state = ""', "node.state: '' is no path: write one"),
    ('state = "state"', 'clock = "greedy"', "[node]: it belongs in [link]"),
    ('postmaster = ""', 'postmaster = "@a.test"', "must be one mailbox"),
    ("smtp = []", 'smtp = ["0.0.0.0:25"]', "is not loopback: write 127.0.0.1:PORT"),
    ("message_bytes = 20971520", "message_bytes = 0", "local.message_bytes: must be"),
    ('"maildir:Maildir"', '"mbox:/x"', "'mbox:/x' is no delivery: write maildir:PATH"),
    ('"maildir:Maildir"', '"pipe:\'/x"', "cannot be split"),
    ('user = ""', 'user = "no-such-user"', "this machine has no user 'no-such-user'"),
    ("[[remailer]]", "[remailer]", "must be a list of tables: write [[remailer]]"),
    ('clock = "renewal"', 'clock = "sometimes"', "no clock 'sometimes': use one of"),
    (
        "cells_per_second = 1",
        "cells_per_second = 3",
        "3 is no rate: write a power of two",
    ),
    ("exit = false", "exit = 1", "delivery.exit: must be true or false"),
    ('kind = "timed"', 'kind = "time"', "pool.kind: no pool 'time': did you mean"),
    ("tick_seconds = 10", "tick_seconds = 0", "pool.tick_seconds: must be greater"),
]
"""What stands in node.toml, what in its place, what the line says: all are 78."""

STATES: list[Case] = [
    *((69, "state: node not running: start it with `mesh run`", nothing, argv)
      for argv in (
          ["status"], ["queue"], ["queue", "retry"], ["ping", "bravo"],
          ["connect", "bravo"], ["queue", "drop", "--unrouted", "--yes"],
      )),
    (69, "node not running", stale, ["status"]),
    (67, "'a\\nb' is no name: use 1 to 63 of a-z", nothing, ["ping", "a\nb"]),
    (67, "'' is no name", nothing, ["connect", ""]),
    (73, "make it with `mesh init`", removes("state"), ["run"]),
    (78, "state/identity.key: not there: restore it", removes("state/identity.key"),
        ["run"]),
    (78, "state/identity.key:1: no identity key: restore", puts("state/identity.key"),
        ["export"]),
    (78, "state/link.key: not a regular file", folder("state/link.key"), ["run"]),
    (78, "state/link.key: not a regular file", folder("state/link.key"), ["rotate"]),
    (78, "state/link.key: not there: restore it", removes("state/link.key"),
        ["withdraw"]),
    (65, "state/descriptor: damaged: remove it", puts("state/descriptor"),
        ["withdraw"]),
    (73, "state: No such file or directory", removes("state"), ["rotate"]),
    (77, "state: another user's: be the node's own user", anothers("state"), ["rotate"]),
    (77, "state: another user's: be the node's own user", anothers("state"),
        ["withdraw"]),
    (75, "still opens: try again after", lambda _: mesh("rotate"), ["rotate", "--again"]),
    (78, "mode 0644: others may read it: chmod 600",
        lambda _: Path("state/spool.key").chmod(0o644), ["run"]),
    (73, "state/spool: File exists", puts("state/spool"), ["run"]),
    (74, "spool.db: not a spool, or damaged", puts("state/spool/spool.db"),
        ["run"]),
    (78, "state/counters: not what this node wrote", puts("state/counters"), ["run"]),
    (73, "drop: File exists: see to [local] drop", puts("drop"), ["run"]),
    (73, "local.sock: Address already in use; what lies there is no socket",
        puts("local.sock"), ["run"]),
    (73, "local.sock: No such file or directory; is the folder there",
        sets(socket='"no/such/local.sock"'), ["run"]),
    (73, "cannot listen on 192.0.2.1:4000: Cannot assign",
        sets(listen='["192.0.2.1:4000"]'), ["run"]),
    (78, "none: No such file or directory; `[delivery] refuse`",
        sets(refuse='"none"'), ["run"]),
    (78, "refuse:1: no address: write one a line",
        refuses, ["run"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "says", "spoil", "argv"), [*ARGUMENTS, *FILES, *STATES]
)
def test_wrong_use(
    code: int, says: str, spoil: Spoil, argv: list[str], alpha: Home, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    spoil(alpha)
    capsys.readouterr()
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        assert main(argv) == code
    judge(capsys.readouterr().err, says)


@pytest.mark.parametrize(("old", "new", "says"), CONFIGS)
def test_wrong_config(
    old: str, new: str, says: str, alpha: Home, capsys: Capture
) -> None:
    lines = alpha.toml.read_text().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if line[0] != "#" and old in line)
    lines[at] = lines[at].replace(old, new)
    alpha.toml.write_text("".join(lines))
    assert main(["export"]) == 78
    err = capsys.readouterr().err
    assert err.startswith("mesh: node.toml:")
    assert says in err
    assert "a bug" not in err


def judge(err: str, says: str) -> None:
    """One line, which helps, and no more."""
    assert says in err
    assert err.startswith("mesh: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert "a bug" not in err


SENDMAIL: list[tuple[int, str, str, bytes]] = [
    (64, "no option '--quick': see --help", "--quick", b""),
    (64, "-f needs a value behind it", "-f", b""),
    (64, "mode -bv is not there: use -bm", "-bv x@y.test", b""),
    (64, "no recipients: name them, or give -t", "-i", b""),
    (64, "no recipients: neither as arguments nor in To, Cc", "-t", b"Subject: x\n\n"),
    (65, "an address that is none: user@example.net", f"<{MIX}", b"x\n"),
    (65, "an address that is none", f"-f a<{MIX} {MIX}", b"x\n"),
    (65, "a CR that no LF follows: send lines of text", MIX, b"a\rb\n"),
    (65, "longer than [local] message_bytes", f"-c small.toml {MIX}", b"12345678\n"),
    (66, "none.toml: No such file or directory: name the node.toml",
        f"-c none.toml {MIX}", b""),
    (78, "text: no node.toml: ", f"-c text {MIX}", b"x\n"),
    (78, "wrong.toml: [local] is wrong", f"-c wrong.toml {MIX}", b"x\n"),
    (75, "the node does not run, and ", f"-c node.toml {MIX}", b"x\n"),
    (75, "the node does not run: start it, or use -bm", "-c node.toml -bs", b""),
]  # fmt: skip


@contextmanager
def given(octets: bytes) -> Iterator[None]:
    """Within it this is what standard input has."""
    saved = os.dup(0)
    Path("stdin").write_bytes(octets)
    with Path("stdin").open("rb") as file:
        os.dup2(file.fileno(), 0)
        try:
            yield
        finally:
            os.dup2(saved, 0)
            os.close(saved)


@pytest.mark.parametrize(("code", "says", "words", "octets"), SENDMAIL)
def test_wrong_use_of_sendmail(
    code: int, says: str, words: str, octets: bytes, alpha: Home,
    capfd: Capture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MESH_CONFIG", str(alpha.toml))
    Path("small.toml").write_text("[local]\nmessage_bytes = 8\n")
    Path("wrong.toml").write_text("[local]\nsocket = 7\n")
    with given(octets):
        assert handin.main(words.split()) == code
    err = capfd.readouterr().err
    judge(err, says)
    assert "private" not in err
