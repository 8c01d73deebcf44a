# SPDX-License-Identifier: MIT
"""Who asks while a node starts is told so, and what a killed node left is no node."""

import json
import os
import select
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from mesh.cli.main import main
from mesh.core.control import CONTROL_NAME, Ask, Request, encode_request
from mesh.errors import CannotCreateError, SpoolCorruptError
from mesh.node import starting as module
from mesh.node.qmgr import QueueManager
from mesh.node.service import lock_state
from mesh.node.starting import Starting
from tests.harness import Patience
from tests.node.homes import Home, running

pytestmark = pytest.mark.usefixtures("small")

Capture = pytest.CaptureFixture[str]


def asked(path: Path, question: bytes = b"{}\n") -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.settimeout(20)
        sock.sendall(question)
        told = json.loads(sock.makefile().readline())
    assert isinstance(told, dict)
    return told


STARTING = {
    "ok": False,
    "code": 75,
    "why": "starting: the node reads its spool; ask again in a while",
}


def test_every_question_has_one_answer(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    starting = Starting(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert asked(path, encode_request(Request(Ask.STATUS))) == STARTING
    assert asked(path, b"\0" * 5000) == STARTING
    with socket.socket(socket.AF_UNIX) as leaves:
        leaves.connect(str(path))
    with socket.socket(socket.AF_UNIX) as mute:  # holds up nobody for long
        mute.connect(str(path))
        assert asked(path) == STARTING
        assert json.loads(mute.makefile().readline()) == STARTING
    starting.close()
    starting.close()
    assert not path.exists()


def test_the_socket_goes_on_to_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    threads = threading.active_count()
    starting = Starting(path)
    sock = starting.take()
    assert threading.active_count() == threads
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(str(path))
        select.select([sock], [], [], 10)
        accepted, _ = sock.accept()
        accepted.close()
    starting.close()
    assert sock.fileno() == -1
    assert not path.exists()


def test_what_a_killed_node_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    with pytest.raises(ConnectionRefusedError):
        asked(path)
    starting = Starting(path)
    assert asked(path) == STARTING
    starting.close()
    path.mkdir()
    with pytest.raises(CannotCreateError, match="no socket: move it away"):
        Starting(path)


def test_a_mute_one_does_not_hold_up_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_SECONDS", 0.3)
    starting = Starting(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.connect(str(tmp_path / "control.sock"))
        began = time.monotonic()
        starting.close()
        assert time.monotonic() - began < 10


async def test_status_while_the_spool_is_read(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    del autojump_clock, patience
    alpha = Home(tmp_path, "alpha")
    recover = QueueManager.recover
    said: list[tuple[int, str, str]] = []

    def ask(*words: str) -> None:
        capsys.readouterr()
        code = main([*words, "-c", str(alpha.toml)])
        captured = capsys.readouterr()
        said.append((code, captured.out, captured.err))

    def slow(qmgr: QueueManager) -> None:
        ask("status")
        ask("status", "--json")
        ask("queue", "retry")
        ask("ping", "bravo")
        recover(qmgr)

    monkeypatch.setattr(QueueManager, "recover", slow)
    async with running(alpha):
        text = f"mesh: {STARTING['why']}\n"
        assert [(code, err) for code, _, err in said] == [(75, text)] * 4
        told = json.loads(said[1][1])
        assert (told["state"], told["links"]) == ("degraded", [])
        assert told["queue"] == {"waiting": None, "deferred": None, "corrupt": None}
        assert (alpha.path / "state" / CONTROL_NAME).exists()
    assert not (alpha.path / "state" / CONTROL_NAME).exists()
    ask("status")
    assert said[-1][0] == 69


def test_a_start_that_fails_leaves_neither_socket_nor_lock(tmp_path: Path) -> None:
    alpha = Home(tmp_path, "alpha")
    (alpha.path / "state" / "spool" / "spool.db").write_bytes(b"no database" * 1000)
    threads = threading.active_count()
    with pytest.raises(SpoolCorruptError):
        alpha.make()
    assert not (alpha.path / "state" / CONTROL_NAME).exists()
    assert threading.active_count() == threads
    os.close(lock_state(alpha.path / "state"))
