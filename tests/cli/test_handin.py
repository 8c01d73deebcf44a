# SPDX-License-Identifier: MIT
"""mesh-sendmail against a node of a few lines: octets, exit codes, one line each."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from mesh.cli import handin, submit
from mesh.cli.main import main as mesh
from mesh.core import drop as core_drop
from mesh.core.crypto import Key, SystemEntropy, x25519_public
from mesh.core.dialogue import Closed, Dialogue, DialogueKind, MessageReceived
from mesh.core.drop import (
    Mail,
    OneTime,
    key_name,
    mail_key_untrusted,
    mail_name,
    open_mail_untrusted,
    pack_key,
)
from mesh.core.reply import NO_ROOM, NO_SUCH_RECIPIENT, OK, Reply
from tests.disk import NOBODY, unprivileged

ME = "me@alpha.test"
YOU = "you@bravo.test"
Capture = pytest.CaptureFixture[str]


@dataclass
class FakeNode:
    """Our dialogue's receiving half on a socket, in a thread."""

    path: Path
    answer: Reply | None = OK
    greeting: bytes = b""
    answers: list[Reply | None] = field(default_factory=list)
    """Those of the first messages."""
    taken: list[MessageReceived] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)

    @contextmanager
    def serving(self) -> Iterator["FakeNode"]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.path))
            listener.listen()
            thread = threading.Thread(target=self._serve, args=(listener,))
            thread.start()
            try:
                yield self
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                sock = listener.accept()[0]
            except OSError:
                return
            with sock:
                self._converse(sock)

    def _converse(self, sock: socket.socket) -> None:
        if self.greeting:
            sock.sendall(self.greeting)
            return
        dialogue = Dialogue(
            name="alpha",
            kind=DialogueKind.LOCAL,
            accepts=lambda path: NO_SUCH_RECIPIENT if "nobody" in path else None,
            max_message=100_000,
        )
        sock.sendall(dialogue.data_to_send())
        while data := sock.recv(65_536):
            self.heard += data
            dialogue.receive_data(data)
            while (event := dialogue.next_event()) is not None:
                if isinstance(event, MessageReceived):
                    answer = self.answers.pop(0) if self.answers else self.answer
                    if answer is None:
                        return
                    self.taken.append(event)
                    dialogue.answer(answer)
                elif isinstance(event, Closed):
                    sock.sendall(dialogue.data_to_send())
                    return
            sock.sendall(dialogue.data_to_send())
            while dialogue.behind:
                dialogue.go_on()
                sock.sendall(dialogue.data_to_send())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node.toml in use, by $MESH_CONFIG."""
    config = tmp_path / "node.toml"
    config.write_text('[node]\nname = "alpha"\n[local]\nmessage_bytes = 100000\n')
    monkeypatch.setenv("MESH_CONFIG", str(config))
    return tmp_path


@pytest.fixture
def node(home: Path) -> Iterator[FakeNode]:
    with FakeNode(home / "local.sock").serving() as serving:
        yield serving


Say = Callable[..., int]


@pytest.fixture
def say(tmp_path: Path) -> Iterator[Say]:
    """Run it with these octets on its standard input."""
    saved = os.dup(0)

    def run(octets: bytes, *args: str) -> int:
        file = tmp_path / "stdin"
        file.write_bytes(octets)
        with file.open("rb") as stdin:
            os.dup2(stdin.fileno(), 0)
            return handin.main(args)

    yield run
    os.dup2(saved, 0)
    os.close(saved)


def taken(node: FakeNode) -> tuple[str, tuple[str, ...], bytes]:
    [message] = node.taken
    return message.reverse_path, message.recipients, message.content


def test_a_message_as_it_is(node: FakeNode, say: Say, capfd: Capture) -> None:
    assert say(b"Subject: x\n\n\xff\0y", "-f", ME, YOU, f"<{YOU}>", "Z@b.test") == 0
    assert taken(node) == (ME, (YOU, "Z@b.test"), b"Subject: x\r\n\r\n\xff\0y")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("args", "octets", "content"),
    [
        ("", b"a\n.\nb\n", b"a\r\n"),
        ("", b"a\r\n.\r\nb\r\n", b"a\r\n"),
        ("", b".\nb\n", b""),
        ("", b"a\n.", b"a\r\n."),
        ("", b"a\n..\n.b\n", b"a\r\n..\r\n.b\r\n"),
        ("-i", b"a\n.\nb\n", b"a\r\n.\r\nb\r\n"),
        ("-oi", b".\n", b".\r\n"),
        ("", b"", b""),
        ("", b"lf\ncrlf\r\nend", b"lf\r\ncrlf\r\nend"),
    ],
)
def test_lines_and_dots(
    node: FakeNode, say: Say, args: str, octets: bytes, content: bytes
) -> None:
    assert say(octets, *args.split(), YOU) == 0
    assert taken(node) == ("", (YOU,), content)


def test_lists_as_arguments(node: FakeNode, say: Say) -> None:
    assert say(b"x", f"{YOU},a@b.test", 'C, "D" <c@d.test>', '"e,f"@g.test', ",") == 67
    assert say(b"x", f"{YOU},a@b.test", '"C, D" <c@d.test>', '"e,f"@g.test', ",") == 0
    assert taken(node)[1] == (YOU, "a@b.test", "c@d.test", '"e,f"@g.test')


def test_recipients_of_the_header(node: FakeNode, say: Say) -> None:
    text = (
        b"From: x\nTo: A <a@b.test>\nBcc: c@b.test,\n d@b.test\nX: y\n\nTo: no@b.test\n"
    )
    assert say(text, "-t", YOU, "a@b.test") == 0
    assert taken(node) == (
        "",
        (YOU, "a@b.test", "c@b.test", "d@b.test"),
        b"From: x\r\nTo: A <a@b.test>\r\nX: y\r\n\r\nTo: no@b.test\r\n",
    )


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("From me@x.test Thu Jan  1 00:00:00 1970\n", ""),
        (">From x\n>>From y\r\nFrom \n", ""),
        ("From: x@y.test\nFrom x\n", "From: x@y.test\r\nFrom x\r\n"),
        ("From\n", "From\r\n"),
        (" From x\n", " From x\r\n"),
        ("\nFrom x\n", "\r\nFrom x\r\n"),
    ],
)
def test_a_mailbox_s_own_line_is_no_message_s(
    node: FakeNode, say: Say, before: str, kept: str
) -> None:
    text = f"{before}To: a@b.test\n\nFrom here\n".encode()
    rest = f"{kept}To: a@b.test\r\n\r\nFrom here\r\n".encode()
    assert say(text, YOU) == 0
    assert taken(node) == ("", (YOU,), rest)
    node.taken.clear()
    assert say(text, "-t") == (64 if kept else 0)
    assert not node.taken if kept else taken(node) == ("", ("a@b.test",), rest)


def test_nothing_but_a_mailbox_s_line(node: FakeNode, say: Say) -> None:
    assert say(b"From x\n", YOU) == 0
    assert say(b"From x", YOU) == 0
    assert [message.content for message in node.taken] == [b"", b"From x"]


MANY = tuple(f"{n}@b.test" for n in range(250))


@dataclass
class Folder:
    """A drop folder with keys of ours, and what is left in it."""

    path: Path
    keys: dict[bytes, Key] = field(default_factory=dict)

    def stock(self, count: int) -> None:
        self.path.mkdir()
        for slot in range(count):
            key = SystemEntropy().key()
            one = OneTime(bytes([slot]) * 16, x25519_public(key))
            (self.path / key_name(slot)).write_bytes(pack_key(one))
            self.keys[one.id] = key

    def left(self) -> list[Mail]:
        found: list[Mail] = []
        for ident, private in self.keys.items():
            file = self.path / mail_name(ident)
            if file.exists():
                one, octets = OneTime(ident, x25519_public(private)), file.read_bytes()
                key = mail_key_untrusted(private, one, octets)
                found.append(open_mail_untrusted(key, one, octets))
        return sorted(found)


@pytest.fixture
def folder(home: Path) -> Folder:
    made = Folder(home / "drop")
    made.stock(4)
    return made


def test_more_recipients_than_a_transaction_has(
    node: FakeNode, folder: Folder, say: Say
) -> None:
    """All or none: the node is asked about all of them, and one file holds them."""
    assert say(b"x\n", "-f", ME, *MANY) == 0
    assert node.taken == []
    assert bytes(node.heard).count(b"RCPT") == 250
    assert b"BDAT" not in node.heard
    assert folder.left() == [Mail(ME, MANY, b"x\r\n")]


@pytest.mark.parametrize("at", [0, 99, 100, 249])
def test_a_refused_one_among_many_refuses_all(
    node: FakeNode, folder: Folder, say: Say, capfd: Capture, at: int
) -> None:
    assert say(b"x\n", *MANY[:at], "nobody@b.test", *MANY[at:]) == 67
    assert "550 no node serves" in capfd.readouterr().err
    assert not node.taken
    assert not folder.left()


def test_many_recipients_and_no_node(home: Path, folder: Folder, say: Say) -> None:
    assert say(b"x\n", *(f"{n}@b.test" for n in range(1_500))) == 0
    assert sorted(len(each.recipients) for each in folder.left()) == [500, 1000]
    assert say(b"x\n", *(f"{n}@b.test" for n in range(5_000))) == 75
    assert len(folder.left()) == 2
    assert list((home / "drop").glob("temp.*")) == []


def test_many_recipients_and_no_drop_folder(
    node: FakeNode, say: Say, capfd: Capture
) -> None:
    assert say(b"x\n", *MANY) == 0
    assert [len(message.recipients) for message in node.taken] == [100, 100, 50]
    assert sum((message.recipients for message in node.taken), ()) == MANY
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("answers", "code", "line"),
    [
        ([NO_ROOM], 75, "the node says: 452"),
        ([Reply(554, "no")], 65, "the node refuses it: 554 no"),
        ([OK, NO_ROOM], 75, "taken for 100 of 250 recipients, not for the others"),
        ([OK, OK, Reply(554, "no")], 75, "taken for 200 of 250 recipients"),
        ([None], 75, "taken for 0 of 250 recipients"),
        ([OK, None], 75, "taken for 100 of 250 recipients"),
    ],
)
def test_in_parts_a_refusal_after_the_first_is_to_be_tried_again(
    node: FakeNode,
    say: Say,
    capfd: Capture,
    answers: list[Reply | None],
    code: int,
    line: str,
) -> None:
    node.answers = answers
    assert say(b"x\n", *MANY) == code
    assert capfd.readouterr().err.startswith(f"mesh: {line}")


def test_many_copies_of_a_long_message(
    node: FakeNode, folder: Folder, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vars(submit)["COPIES_MAX"] == core_drop.COPIES_MAX
    for module in (handin, core_drop):
        monkeypatch.setattr(module, "COPIES_MAX", 60_000)
    text = b"x" * 20_000
    assert say(text, *MANY[:3]) == 0
    assert taken(node) == ("", MANY[:3], text)
    assert say(text, *MANY[:4]) == 0
    assert folder.left() == [Mail("", MANY[:3], text), Mail("", MANY[3:4], text)]
    assert len(node.taken) == 1
    shutil.rmtree(folder.path)
    assert say(text, *MANY[:4]) == 0
    assert [message.recipients for message in node.taken[1:]] == [MANY[:3], MANY[3:4]]
    assert say(b"x" * 70_000, YOU) == 0  # one copy may have any length
    assert node.taken[-1].recipients == (YOU,)


@pytest.mark.parametrize(
    ("octets", "args", "code", "line"),
    [
        (b"x", "", 64, "no recipients: name them"),
        (b"Subject: x\n\n", "-t", 64, "no recipients: neither"),
        (b"x", "--frob", 64, "no option '--frob'"),
        (b"a\rb\n", YOU, 65, "a CR that no LF follows"),
        (b"x" * 100_001, YOU, 65, "longer than"),
        (b"x" * 1_200_000, YOU, 65, "longer than"),
        (b"\n" * 60_000, YOU, 65, "longer than"),
        (b"x", "j\xf6rg@b.test", 65, "an address that is none"),
        (b"x", "a@b.test>RCPT", 65, "an address that is none"),
        (b"x", "a\r\nRCPT", 65, "an address that is none"),
        (b"x", "a" * 300, 65, "an address that is none"),
        (b"x", f"-f a<b {YOU}", 65, "an address that is none"),
        (b"x", f"-f @ {YOU}", 65, "the node refuses it: 501"),
        (b"x", "nobody@b.test", 67, "the node refuses it: 550 no node serves"),
        (b"x", f"{YOU} nobody@b.test", 67, "the node refuses it: 550"),
        (b"x", "root", 67, "the node refuses it: 501"),
    ],
)
def test_refusals_are_one_line(
    node: FakeNode,
    say: Say,
    capfd: Capture,
    octets: bytes,
    args: str,
    code: int,
    line: str,
) -> None:
    assert say(octets, *args.split(" ") if args else ()) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"mesh: {line}")
    assert err.count("\n") == 1
    assert "@" not in err.replace("user@example.net", "")
    assert node.taken == []


@pytest.mark.parametrize(
    ("reply", "code"),
    [(NO_ROOM, 75), (Reply(554, "no"), 65), (Reply(552, "no"), 65)],
)
def test_the_last_reply_is_the_exit_code(
    node: FakeNode, say: Say, reply: Reply, code: int
) -> None:
    node.answer = reply
    assert say(b"x", YOU) == code


@pytest.mark.parametrize(
    ("greeting", "code", "line"),
    [
        (b"554 this user may not submit here\r\n", 77, "mesh: the node refuses it: 554"),
        (b"450 wait\r\n", 75, "mesh: the node says: 450 wait"),
        # down, and there is no drop folder
        (b"421 ending here\r\n", 75, "mesh: the node does not run, and "),
        (b"hello\r\n", 75, "mesh: the node does not run, and "),
        (b"2", 75, "mesh: the node does not run, and "),
        (b"x" * 200_000, 75, "mesh: the node does not run, and "),
    ],
)  # fmt: skip
def test_greetings(
    home: Path, say: Say, capfd: Capture, greeting: bytes, code: int, line: str
) -> None:
    with FakeNode(home / "local.sock", greeting=greeting).serving():
        assert say(b"x", YOU) == code
    assert capfd.readouterr().err.startswith(line)


def test_a_node_that_dies_before_its_answer_is_down(
    node: FakeNode, say: Say, capfd: Capture
) -> None:
    node.answer = None
    assert say(b"x" * 90_000, YOU) == 75
    assert "does not run" in capfd.readouterr().err


def test_a_node_that_says_nothing(
    home: Path, say: Say, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "_limit", lambda: _timeval(0, 20_000))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "local.sock"))
        listener.listen(0)
        assert say(b"x", YOU) == 75
        assert "does not answer" in capfd.readouterr().err


def _timeval(seconds: int, micros: int) -> bytes:
    return b"".join(n.to_bytes(8, sys.byteorder) for n in (seconds, micros))


def test_a_node_that_does_not_read(
    home: Path, say: Say, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "_limit", lambda: _timeval(0, 20_000))
    (home / "node.toml").write_text("")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "local.sock"))
        listener.listen()

        def greet() -> None:
            with listener.accept()[0] as sock:
                sock.sendall(b"220 here\r\n")
                gone.wait(10)

        gone = threading.Event()
        thread = threading.Thread(target=greet)
        thread.start()
        assert say(b"x" * 5_000_000, YOU) == 75
        gone.set()
        thread.join()
    assert "does not read" in capfd.readouterr().err


def test_a_socket_that_is_not_ours(capfd: Capture) -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        config = home / "node.toml"
        config.touch()
        config.chmod(0o644)
        with FakeNode(home / "local.sock").serving():
            (home / "local.sock").chmod(0)
            with piped(b"x"), unprivileged():
                assert handin.main(["-c", str(config), YOU]) == 77
    assert "Permission denied" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")
@pytest.mark.parametrize(
    ("remailers", "uid", "code"),
    [
        ("", 1, 77),
        ("", 0, 0),
        ("", NOBODY, 0),  # the folder's owner: the node's own user
        ("[[remailer]]\nuser = 'daemon'\n", 1, 0),
        ("[[remailer]]\nuser = 'daemon'\n", 2, 77),
        ("[[remailer]]\nuser = 'daemon'\n[[remailer]]\n", 2, 0),
        ("[[remailer]]\nuser = 'daemon'\n[[remailer]]\nuser = 'no one'\n", 2, 77),
        ('[[remailer]]\nuser = "no\\u0000one"\n', 2, 77),
        ("remailer = 3\n", 2, 77),
    ],
)
def test_who_may_not_submit_is_told_while_the_node_is_down(
    capfd: Capture, remailers: str, uid: int, code: int
) -> None:
    """Or the node would throw the message away, and nobody would know."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        (home / "node.toml").write_text(remailers)
        folder = Folder(home / "drop")
        folder.stock(1)
        for path in (folder.path, *folder.path.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        folder.path.chmod(0o1777)
        with piped(b"x"):
            os.seteuid(uid)
            try:
                found = handin.main(["-c", str(home / "node.toml"), YOU])
            finally:
                os.seteuid(0)
        assert found == code
        assert len(folder.left()) == (not code)
    err = capfd.readouterr().err
    assert err == (
        "mesh: this user may not submit here: see [[remailer]] user\n" if code else ""
    )


def test_what_is_no_message(home: Path, say: Say, capfd: Capture) -> None:
    del home
    assert say(b"", "--help") == 0
    out = capfd.readouterr().out
    assert all(flag in out for flag in ("-t", "-i", "-f", "-bs", "-c"))
    assert say(b"", "-bp") == 0
    assert "mesh queue" in capfd.readouterr().out
    assert say(b"", "-bi") == 0
    assert say(b"x", "-q") == 0
    assert capfd.readouterr() == ("", "")


def test_the_program_s_own_name(tmp_path: Path) -> None:
    """As a process of its own, which ends without taking the interpreter apart."""
    program = tmp_path / "mailq"
    program.symlink_to(Path(sys.executable).with_name("mesh-sendmail"))
    run = partial(
        subprocess.run, check=False, capture_output=True, timeout=30, text=True
    )
    done = run([program, "-v"])
    assert done.returncode == 0
    assert "mesh queue" in done.stdout
    done = run([program.resolve(), "-bv"])
    assert done.returncode == 64
    assert done.stderr == "mesh: mode -bv is not there: use -bm\n"


def test_no_standard_input(node: FakeNode, capfd: Capture) -> None:
    saved = os.dup(0)
    os.close(0)
    try:
        assert handin.main([YOU]) == 66
    finally:
        os.dup2(saved, 0)
        os.close(saved)
    assert "standard input: Bad file descriptor" in capfd.readouterr().err
    assert not node.taken


# the node.toml


def test_never_one_of_the_working_directory(
    home: Path, say: Say, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESH_CONFIG")
    monkeypatch.chdir(home)
    monkeypatch.setattr(handin, "SYSTEM_CONFIG", str(home / "etc" / "node.toml"))
    assert say(b"x", YOU) == 66
    assert re.match(r"mesh: \S+/etc/node.toml: No such file", capfd.readouterr().err)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[local\n", "no node.toml"),
        ("\udcff", "no node.toml"),
        ("local = 3\n", r"\[local\] is wrong"),
        ("[local]\nsocket = 3\n", r"\[local\] is wrong"),
        ("[local]\ndrop = ''\n", r"\[local\] is wrong"),
        ("[local]\nmessage_bytes = '1'\n", r"\[local\] is wrong"),
    ],
)
def test_a_bad_file_is_78(
    home: Path, say: Say, capfd: Capture, text: str, line: str
) -> None:
    (home / "node.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert say(b"x", YOU) == 78
    err = capfd.readouterr().err
    assert re.search(line, err)
    assert err.count("\n") == 1


def test_a_folder_is_no_file(home: Path, say: Say) -> None:
    assert say(b"x", "-c", str(home), YOU) == 66


def test_paths_are_relative_to_the_file(home: Path, say: Say) -> None:
    inner = home / "run"
    inner.mkdir()
    (home / "node.toml").write_text(f"[local]\nsocket = '{inner}/s'\ndrop = 'd'\n")
    places = handin.find_places(str(home / "node.toml"))
    assert places == (str(inner / "s"), str(home / "d"), 20_971_520, ())
    with FakeNode(inner / "s").serving() as node:
        assert say(b"x", YOU) == 0
        assert len(node.taken) == 1


def test_a_path_longer_than_a_socket_s_address(home: Path, say: Say) -> None:
    deep = home / ("d" * 100) / "e"
    deep.mkdir(parents=True)
    (home / "node.toml").write_text(f"[local]\nsocket = '{deep}/s'\n")
    here = Path.cwd()
    os.chdir(deep)
    try:
        with FakeNode(Path("s")).serving() as node:
            assert say(b"x", YOU) == 0
            assert len(node.taken) == 1
    finally:
        os.chdir(here)


# -bs


@contextmanager
def piped(octets: bytes) -> Iterator[None]:
    """Standard input is a pipe with these octets, then its end."""
    saved = os.dup(0)
    reading, writing = os.pipe()
    writer = threading.Thread(target=_write_all, args=(writing, octets))
    writer.start()
    os.dup2(reading, 0)
    os.close(reading)
    try:
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        writer.join()


def _write_all(fd: int, octets: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(fd, "wb") as file:
        file.write(octets)


def test_a_dialogue_is_carried_both_ways(node: FakeNode, capfd: Capture) -> None:
    text = b"x" * 90_000
    lines = (
        f"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<{YOU}>\r\nBDAT {len(text)} LAST\r\n"
    ).encode()
    with piped(lines + text + b"NOOP\r\nQUIT\r\n"):
        assert handin.main(["-bs"]) == 0
    codes = [line[:3] for line in capfd.readouterr().out.splitlines()]
    assert codes[0] == "220"
    assert codes[-1] == "221"
    assert taken(node) == ("", (YOU,), text)


def test_a_dialogue_that_the_input_ends(node: FakeNode, capfd: Capture) -> None:
    with piped(b"EHLO x\r\nNOOP\r\n"):
        assert handin.main(["-bs"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "250 ok"
    assert bytes(node.heard) == b"EHLO x\r\nNOOP\r\n"


@pytest.mark.parametrize("octets", [b"", b"x" * 3_000_000])
def test_a_dialogue_that_the_node_ends(
    home: Path, capfd: Capture, octets: bytes
) -> None:
    with (
        FakeNode(home / "local.sock", greeting=b"554 not you\r\n").serving(),
        piped(octets),
    ):
        assert handin.main(["-bs"]) == 0
    assert capfd.readouterr().out == "554 not you\r\n"


def test_a_dialogue_with_nobody(home: Path, capfd: Capture) -> None:
    del home
    with piped(b"EHLO x\r\n"):
        assert handin.main(["-bs"]) == 75
    out, err = capfd.readouterr()
    assert out == "421 the node does not run\r\n"
    assert err.startswith("mesh: the node does not run")


@contextmanager
def stream(number: int, replacement: int) -> Iterator[None]:
    """Within it a standard stream is this file, which is closed here."""
    saved = os.dup(number)
    os.dup2(replacement, number)
    os.close(replacement)
    try:
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)


def test_a_dialogue_that_nobody_reads_ends(node: FakeNode) -> None:
    del node
    (stdin, keeps_open), (reader, stdout) = os.pipe(), os.pipe()
    os.close(reader)
    codes: list[int] = []
    with stream(0, stdin), stream(1, stdout):
        thread = threading.Thread(target=lambda: codes.append(handin.main(["-bs"])))
        thread.start()
        thread.join(10)
        assert codes == [75]
        os.close(keeps_open)


def test_streams_that_do_not_wait(node: FakeNode) -> None:
    """A program that waits on nothing has made the pipes."""
    lines = b"NOOP\r\n" * 20_000
    got = bytearray()
    reader, stdout = os.pipe()
    os.set_blocking(stdout, False)

    def read_slowly() -> None:
        with os.fdopen(reader, "rb") as file:
            while part := file.read(50_000):
                got.extend(part)

    thread = threading.Thread(target=read_slowly)
    with piped(lines):
        os.set_blocking(0, False)
        with stream(1, stdout):
            thread.start()
            assert handin.main(["-bs"]) == 0
    thread.join()
    assert got.count(b"250 ok\r\n") == 20_000
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with stream(0, reader):
        later = threading.Timer(0.2, _write_all, (writer, b"late\n"))
        later.start()
        assert handin.main([YOU]) == 0
        later.join()
    assert taken(node) == ("", (YOU,), b"late\r\n")


@pytest.mark.parametrize("number", [1, 2])
def test_no_socket_takes_the_place_of_a_closed_stream(
    node: FakeNode, home: Path, number: int
) -> None:
    program = Path(sys.executable).with_name("mesh-sendmail")
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -bs -c "$1" {number}>&-', program, home / "node.toml"],
        input=b"NOOP\r\n", check=False, capture_output=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0
    assert bytes(node.heard) == b"NOOP\r\n"


# the frame


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyError(YOU), 70, "mesh: a bug: KeyError: please report it\n"),
        (OSError(28, "No space left on device"), 75, "mesh: No space left"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_nothing_gets_past_the_frame(
    monkeypatch: pytest.MonkeyPatch,
    capfd: Capture,
    error: BaseException,
    code: int,
    line: str,
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(handin, "_run", fail)
    assert handin.main(["x"]) == code
    err = capfd.readouterr().err
    assert err.startswith(line)
    assert YOU not in err


def test_standard_error_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, octets: bytes) -> int:
        raise BrokenPipeError(fd, octets)

    monkeypatch.setattr(os, "write", refuse)
    assert handin.main([]) == 64


def test_the_verb_is_the_same_program(node: FakeNode, say: Say, home: Path) -> None:
    assert say(b"", "--help") == 0  # makes the file
    config = str(home / "node.toml")
    assert mesh(["sendmail", "-c", config, "-i", "--", YOU]) == 0
    assert mesh(["-c", config, "sendmail", YOU]) == 0
    assert mesh(["sendmail"]) == 64
    assert [message.recipients for message in node.taken] == [(YOU,), (YOU,)]
