# SPDX-License-Identifier: MIT
"""status, queue, ping, connect before a node that says what it is told to say."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.cli import ping
from mesh.cli.asking import ANSWER_SECONDS, ask
from mesh.cli.main import main
from mesh.core.clock import rate_of
from mesh.core.control import (
    Ask,
    LinkFacts,
    QueueFacts,
    Request,
    encode_answer,
    encode_refusal,
    status,
)
from mesh.errors import NotPermittedError
from mesh.node import control
from mesh.node.control import LINK_SECONDS, PING_CELLS
from tests.cli.terminal import typing
from tests.disk import unprivileged

Capture = pytest.CaptureFixture[str]


class Node:
    """Answers one question after the other, each with the next of its answers."""

    def __init__(self, path: Path) -> None:
        self.answers: list[bytes] = []
        self.asked: list[dict[str, Any]] = []
        self.heard = b""
        self._listening = socket.socket(socket.AF_UNIX)
        folder = os.open(path.parent, os.O_PATH)
        self._listening.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            with suppress(BrokenPipeError), sock, sock.makefile("rb") as lines:
                self.asked.append(json.loads(lines.readline()))
                first, *more = self.answers.pop(0).split(b"|")
                sock.sendall(first)
                for octets in more:
                    self.heard += lines.readline()
                    sock.sendall(octets)
                while more and lines.read(1):
                    pass

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """Alpha, who does not run; the environment names its node.toml."""
    folder = tmp_path / ("a" * 90) / "alpha"
    folder.parent.mkdir()
    flags = ["--name", "alpha", "--address", "alpha.test:4000"]
    assert main(["init", str(folder), *flags]) == 0
    monkeypatch.setenv("MESH_CONFIG", str(folder / "node.toml"))
    capsys.readouterr()
    return folder


@pytest.fixture
def node(home: Path) -> Iterator[Node]:
    node = Node(home / "state" / "control.sock")
    yield node
    node.close()


QUESTIONS = [
    ["status"],
    ["queue"],
    ["queue", "retry"],
    ["queue", "drop", "--deferred", "--yes"],
    ["ping", "bravo"],
    ["connect", "bravo"],
]


@pytest.mark.parametrize("argv", QUESTIONS)
def test_no_node(argv: list[str], home: Path, capsys: Capture) -> None:
    line = f"mesh: {home}/state: node not running: start it with `mesh run`\n"
    assert main(argv) == 69
    assert capsys.readouterr() == ("", line)
    stale = socket.socket(socket.AF_UNIX)
    folder = os.open(home / "state", os.O_PATH)
    stale.bind(f"/proc/self/fd/{folder}/control.sock")
    os.close(folder)
    stale.close()
    assert main(argv) == 69
    assert capsys.readouterr() == ("", line)


def test_no_state(home: Path, capsys: Capture) -> None:
    (home / "state").rename(home / "elsewhere")
    assert main(["status"]) == 69
    assert "node not running" in capsys.readouterr().err


def test_status_of_no_node_is_the_same_object(home: Path, capsys: Capture) -> None:
    assert main(["status", "--json"]) == 69
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "name": "alpha",
        "state": "down",
        "links": [],
        "queue": {"waiting": None, "deferred": None, "corrupt": None},
    }


def test_somebody_elses_node() -> None:
    config = SimpleNamespace()
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        config.state_dir = Path(name) / "state"
        config.state_dir.mkdir(mode=0o700)
        with unprivileged(), pytest.raises(NotPermittedError, match="own user"):
            ask(config, Request(Ask.STATUS))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (encode_refusal(67, "bravo: no such peer"), 67, "bravo: no such peer"),
        (encode_refusal(69, "bravo: no link"), 69, "bravo: no link"),
        (encode_refusal(64, "what?"), 64, "what?"),
        (encode_refusal(99, "new"), 69, "new"),
        (b"nonsense\n", 69, "not JSON"),
        (b"", 69, "went away before it answered"),
    ],
)
def test_refusals(
    node: Node, answer: bytes, code: int, says: str, capsys: Capture
) -> None:
    node.answers.append(answer)
    assert main(["ping", "bravo"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mesh: ")
    assert says in err
    assert err.count("\n") == 1


def test_a_node_that_is_stopped(
    node: Node, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ANSWER_SECONDS == 10
    monkeypatch.setattr(socket.socket, "recv", _never)
    node.answers.append(b"")
    assert main(["status"]) == 69
    assert "is it stopped?" in capsys.readouterr().err


def test_a_node_that_breaks_off(
    node: Node, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "recv", _broken)
    node.answers.append(b"")
    assert main(["status"]) == 69
    assert "the node went away: Broken pipe" in capsys.readouterr().err


def _never(*_: object) -> bytes:
    raise TimeoutError


def _broken(*_: object) -> bytes:
    raise BrokenPipeError(32, "Broken pipe")


def link(peer: str, *, up: bool = True, insecure: tuple[str, ...] = ()) -> LinkFacts:
    reason = "" if up else "cannot connect: is the port open?"
    return LinkFacts(peer, up, reason, "renewal", 0.5, insecure)


DIRECTORY = {"version": 7, "nodes": 12, "days_left": 54}


def told(
    *links: LinkFacts, directory: dict[str, int] | None = None, **queue: int
) -> bytes:
    facts = status("alpha", links, QueueFacts(**queue), (), directory)
    return encode_answer({"status": facts, "notes": ["peers.d/x.mesh: damaged"]})


def test_status_on_a_screen(node: Node, capsys: Capture) -> None:
    node.answers.append(
        told(
            link("bravo", insecure=("greedy clock",)),
            link("al", up=False),
            waiting=9,
            deferred=3,
            corrupt=1,
            directory=DIRECTORY,
        )
    )
    assert main(["status"]) == 75
    out, err = capsys.readouterr()
    assert out == (
        "alpha: degraded, 1 of 2 links up\n"
        "  al     down  cannot connect: is the port open?\n"
        "  bravo  up    renewal, 0.5 cells/s; INSECURE: greedy clock\n"
        "directory: version 7, 12 nodes, 54 days left\n"
        "queue: about 16 waiting, about 4 deferred\n"
        "damaged: 1 records do not open and are set aside: look to the disk\n"
    )
    assert err == "mesh: peers.d/x.mesh: damaged\n"
    assert node.asked == [{"ask": "status"}]


def test_status_of_many_fits_one_screen(node: Node, capsys: Capture) -> None:
    links = [link(f"n{i}", up=i != 40) for i in range(50)]
    for directory, more in ((None, 31), (DIRECTORY, 32)):
        node.answers.append(told(*links, directory=directory, corrupt=1))
        assert main(["status"]) == 75
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) < 24
        assert "n40" in lines[1]
        assert any(f"{more} more" in line for line in lines)


def test_status_of_ten_with_much_to_say_fits_one_screen(
    node: Node, capsys: Capture
) -> None:
    reason = "expired descriptor: ask its operator for a fresh `mesh export`"
    insecure = ("debug log", "greedy clock")
    links = [
        LinkFacts(f"{n}.remailers.test", False, reason, "greedy", 8.0, insecure)
        for n in range(10)
    ]
    node.answers.append(told(*links, corrupt=1))
    assert main(["status"]) == 69
    out = capsys.readouterr().out
    assert out.count(reason) == 10
    assert sum(-(-len(line) // 80) for line in out.splitlines()) < 24


def test_the_object_of_json_is_exact(node: Node, capsys: Capture) -> None:
    """The keys, their order and their types: programs read it."""
    links = [link("bravo", insecure=("greedy clock",)), link("carol", up=False)]
    node.answers.append(told(*links, waiting=3, deferred=1, corrupt=1))
    assert main(["status", "--json"]) == 75
    assert capsys.readouterr().out == (
        json.dumps(
            {
                "schema": 1,
                "name": "alpha",
                "state": "degraded",
                "links": [
                    {
                        "peer": "bravo",
                        "up": True,
                        "reason": "",
                        "clock": "renewal",
                        "cells_per_second": 0.5,
                        "insecure": ["greedy clock"],
                    },
                    {
                        "peer": "carol",
                        "up": False,
                        "reason": "cannot connect: is the port open?",
                        "clock": "renewal",
                        "cells_per_second": 0.5,
                        "insecure": [],
                    },
                ],
                "queue": {"waiting": 4, "deferred": 1, "corrupt": 1},
            },
            indent=2,
        )
        + "\n"
    )


@pytest.mark.parametrize(
    ("links", "code"), [((), 0), ((link("b"),), 0), ((link("b", up=False),), 69)]
)
def test_status_codes(
    node: Node, links: tuple[LinkFacts, ...], code: int, capsys: Capture
) -> None:
    node.answers += [told(*links), told(*links)]
    assert main(["status"]) == code
    assert ("no peers yet" in capsys.readouterr().out) == (not links)
    assert main(["status", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["schema"] == 1


HOSTILE = "\x1b]0;x\x07\x1b[2J\x9b31m\r\0\x7f\u202e\u2028"


def test_nothing_that_a_terminal_would_obey_gets_there(
    node: Node, capsys: Capture
) -> None:
    facts = LinkFacts(HOSTILE, False, HOSTILE, HOSTILE, 1, (HOSTILE,))
    answer = {
        "status": status(HOSTILE, [facts], QueueFacts()),
        "notes": [f"peers.d/{HOSTILE}.mesh\n: damaged"],
    }
    pong = {"seconds": 2.345, "clock": HOSTILE, "cells_per_second": 0.5}
    counts = dict.fromkeys(QueueFacts().rounded(), HOSTILE)
    node.answers += [
        *[encode_answer(answer)] * 2,
        *[encode_answer({"queue": counts})] * 2,
        encode_answer(pong),
        encode_refusal(69, HOSTILE),
    ]
    for words in (
        ["status"], ["status", "--json"], ["queue"], ["queue", "--json"],
        ["ping", "bravo"], ["ping", "bravo"],
    ):  # fmt: skip
        main(words)
        shown = "".join(capsys.readouterr())
        assert "x1b" in shown or "u001b" in shown
        assert shown.replace("\n", "").isprintable()


def test_queue(node: Node, capsys: Capture) -> None:
    facts = QueueFacts(waiting=5, peers=3, deferred=0, corrupt=0).rounded()
    node.answers += [encode_answer({"queue": {"schema": 1, **facts}})] * 2
    assert main(["queue"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["8", "4", "0"]
    assert main(["queue", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["waiting"] == 8


def test_queue_retry_and_drop(
    home: Path, node: Node, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = ["-c", str(home / "node.toml")]
    node.answers += [encode_answer({})] * 4
    assert main(["queue", "retry"]) == 0
    assert capsys.readouterr().out == (
        "done: what was deferred is led back to its queue\n"
    )
    assert main(["queue", "drop"]) == 64
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        assert main(["queue", "drop", "--deferred"]) == 64
    capsys.readouterr()
    assert main(["queue", "drop", "--unrouted", "--deferred", "--yes"]) == 0
    assert capsys.readouterr().out == (
        "done: deferred mail is dropped\ndone: unrouted mail is dropped\n"
    )
    with typing("n\n", monkeypatch):
        assert main(["queue", "drop", "--deferred", *c]) == 0
    assert capsys.readouterr().out == "nothing dropped\n"
    with typing("y\n", monkeypatch):
        assert main(["queue", "drop", "--deferred", *c]) == 0
    assert node.asked == [
        {"ask": "retry"},
        {"ask": "drop", "what": "deferred"},
        {"ask": "drop", "what": "unrouted"},
        {"ask": "drop", "what": "deferred"},
    ]


def test_ping(node: Node, capsys: Capture) -> None:
    answer = {"seconds": 2.345, "clock": "renewal", "cells_per_second": 0.5}
    node.answers.append(encode_answer(answer))
    assert main(["ping", "bravo"]) == 0
    assert capsys.readouterr().out == (
        "bravo: up, answered in 2.35 s (renewal, 0.5 cells/s)\n"
    )
    assert node.asked == [{"ask": "ping", "peer": "bravo"}]


def test_a_stopped_node_whom_many_have_asked(home: Path, capsys: Capture) -> None:
    folder = os.open(home / "state", os.O_PATH)
    path = f"/proc/self/fd/{folder}/control.sock"
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as asking:
        listener.bind(path)
        listener.listen(0)
        for _ in range(2):  # one waits already where none may
            with suppress(BlockingIOError):
                other = asking.enter_context(socket.socket(socket.AF_UNIX))
                other.setblocking(False)
                other.connect(path)
        assert main(["queue"]) == 69
    os.close(folder)
    assert "is it stopped?" in capsys.readouterr().err


def test_ping_of_a_node_that_is_stopped(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = LINK_SECONDS + control.PING_SECONDS + PING_CELLS / rate_of(0)
    assert longest < ping.PING_SECONDS
    monkeypatch.setattr(ping, "PING_SECONDS", 0.1)
    folder = os.open(home / "state", os.O_PATH)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{folder}/control.sock")
        listener.listen()
        assert main(["ping", "bravo"]) == 69
    os.close(folder)
    assert "is it stopped?" in capsys.readouterr().err


def connected(
    said: bytes, monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False
) -> tuple[int, bytes]:
    """Run connect with these octets on its standard input; its code and its output."""
    ours, theirs = os.pipe()
    shown, out = os.pipe()
    os.write(theirs, said)
    os.close(theirs)
    monkeypatch.setattr("mesh.cli.connect.STDIN", ours)
    monkeypatch.setattr("mesh.cli.connect.STDOUT", out)
    if terminal:
        monkeypatch.setattr(os, "isatty", lambda _: True)
    try:
        code = main(["connect", "bravo"])
        os.close(out)
        return code, os.read(shown, 100_000)
    finally:
        os.close(ours)
        os.close(shown)


def test_connect_ends_well_with_221(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.answers.append(encode_answer({}) + b"220 hi\r\n|250 ok\r\n22|1 bye\r\n|")
    node.answers[0] = node.answers[0].removesuffix(b"|")
    code, shown = connected(b"NOOP\nQUIT\n", monkeypatch, terminal=True)
    assert code == 0
    assert shown == b"220 hi\r\n250 ok\r\n221 bye\r\n"
    assert node.heard == b"NOOP\r\nQUIT\r\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_connect_shows_a_terminal_no_orders(
    node: Node, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    node.answers.append(encode_answer({}) + b"220 \x1b[2J\x9b\r\n|221 bye\r\n")
    code, shown = connected(b"QUIT\r\n", monkeypatch, terminal=terminal)
    assert code == 0
    greeting = rb"220 \x1b[2J\x9b" if terminal else b"220 \x1b[2J\x9b"
    assert shown == greeting + b"\r\n221 bye\r\n"


def test_connect_without_its_221(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    node.answers.append(encode_answer({}) + b"220 hi\r\n421 lost\r\n")
    code, shown = connected(b"NOOP\r\n" * 3, monkeypatch)
    assert code == 69
    assert shown.endswith(b"421 lost\r\n")
    assert "without its 221" in capsys.readouterr().err


def test_connect_with_much_to_say(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.answers.append(encode_answer({}) + b"220 hi\r\n|221 bye\r\n")
    code, _ = connected(b"x" * 60_000 + b"\r\n", monkeypatch)
    assert code == 0
    assert len(node.heard) == 60_002


def test_none_of_them_is_slow_to_load() -> None:
    """No event loop, no cryptography beyond what reading node.toml needs."""
    script = (
        "import sys, mesh.cli.status, mesh.cli.queue, mesh.cli.ping, mesh.cli.connect\n"
        "assert not {'trio', 'apsw', 'nacl', 'rich'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
