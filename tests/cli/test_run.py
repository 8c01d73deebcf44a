# SPDX-License-Identifier: MIT
"""`mesh run` in this process: ready, signals, exit codes."""

import gc
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from mesh.cli import run
from mesh.cli.main import main
from mesh.core.control import CONTROL_NAME
from mesh.node.keeping import Keeping
from mesh.node.pacer import client
from mesh.node.service import lock_state
from mesh.node.spool import Spool
from tests.node.homes import Home

pytestmark = pytest.mark.usefixtures("small")

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ready_and_ended_by_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, number: int
) -> None:
    alpha = Home(tmp_path, "alpha")
    said = run._ready

    def ready() -> None:
        said()
        assert alpha.socket.exists()
        os.kill(os.getpid(), signal.SIGHUP)  # looks at peers.d and goes on
        os.kill(os.getpid(), number)

    monkeypatch.setattr(run, "_ready", ready)
    assert main(["run", "-c", str(alpha.toml)]) == 0
    assert capsys.readouterr().err == "mesh: ready\n"
    assert not alpha.socket.exists()


def test_a_signal_as_soon_as_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has begun to accept on the socket yet: the end is in order all the same."""
    alpha = Home(tmp_path, "alpha")
    monkeypatch.setattr(run, "_ready", lambda: os.kill(os.getpid(), signal.SIGTERM))
    for _ in range(8):  # which task runs first is trio's dice
        assert main(["run", "-c", str(alpha.toml)]) == 0


@pytest.mark.parametrize("number", run.SIGNALS)
def test_a_signal_at_its_end_takes_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Also one that trio had taken in and nobody has read."""
    alpha = Home(tmp_path, "alpha")
    killed: list[int] = []
    signal.signal(number, lambda *_: killed.append(1))  # as the system would have it
    close = Spool.close

    def closing(spool: Spool) -> None:
        os.kill(os.getpid(), number)
        close(spool)

    monkeypatch.setattr(run, "_ready", lambda: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(Spool, "close", closing)
    assert main(["run", "-c", str(alpha.toml)]) == 0
    assert signal.getsignal(number) is signal.SIG_IGN
    assert not killed


def test_a_signal_before_anybody_listens_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha = Home(tmp_path, "alpha")
    listen = trio.open_signal_receiver

    def late(*numbers: int) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return listen(*numbers)

    monkeypatch.setattr(trio, "open_signal_receiver", late)
    assert main(["run", "-c", str(alpha.toml)]) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_node_is_made_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, number: int
) -> None:
    alpha = Home(tmp_path, "alpha")
    during_its_making(monkeypatch, number)
    assert main(["run", "-c", str(alpha.toml)]) == 0
    assert capsys.readouterr().err == ""
    assert not alpha.socket.exists()
    assert not (alpha.path / "state" / CONTROL_NAME).exists()
    os.close(lock_state(alpha.path / "state"))
    assert signal.getsignal(number) is signal.SIG_IGN


def test_a_look_at_the_peers_ends_no_node_that_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    alpha = Home(tmp_path, "alpha")
    said, wake, looks = run._ready, Keeping.wake, []

    def waking(keeping: Keeping) -> None:
        looks.append(1)
        wake(keeping)

    def ready() -> None:
        said()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run, "_ready", ready)
    monkeypatch.setattr(Keeping, "wake", waking)
    during_its_making(monkeypatch, signal.SIGHUP)
    assert main(["run", "-c", str(alpha.toml)]) == 0
    assert capsys.readouterr().err == "mesh: ready\n"
    assert looks == [1]


def during_its_making(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Send ourselves a signal when the spool is opened; unheard, it is an error."""

    def unheard(*_: object) -> None:
        raise AssertionError("the system would have ended us")

    signal.signal(number, unheard)
    opened = Spool.open

    def opening(*args: Any) -> Spool:
        os.kill(os.getpid(), number)
        return opened(*args)

    monkeypatch.setattr(Spool, "open", opening)


def test_a_start_that_fails_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in run.SIGNALS]
    assert main(["run", "-c", str(tmp_path / "nowhere.toml")]) == 66
    assert gc.isenabled()
    assert [signal.getsignal(number) for number in run.SIGNALS] == before


def test_mistakes_have_their_codes(tmp_path: Path, capsys: Capture) -> None:
    alpha = Home(tmp_path, "alpha")
    assert main(["run", "-c", str(tmp_path / "nowhere.toml")]) == 66
    lock = lock_state(alpha.path / "state")
    assert main(["run", "-c", str(alpha.toml)]) == 69
    os.close(lock)
    with socket.create_server(("127.0.0.1", alpha.port)):
        assert main(["run", "-c", str(alpha.toml)]) == 73
    alpha.socket.write_bytes(b"in the way")
    assert main(["run", "-c", str(alpha.toml)]) == 73
    alpha.set(clock='"sometimes"')
    assert main(["run", "-c", str(alpha.toml)]) == 78
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("mesh: ") for line in lines)


def test_a_node_whose_pacer_never_starts_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    alpha = Home(tmp_path, "alpha")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(client, "RESTART_SECONDS", 0.01)
    assert main(["run", "-c", str(alpha.toml)]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mesh: the process that sends cells does not start: ")
    assert not alpha.socket.exists()
    os.close(lock_state(alpha.path / "state"))


def test_files_are_allowed_as_far_as_may_be() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    run._allow_files()
    wanted = run.FILES if hard == resource.RLIM_INFINITY else min(run.FILES, hard)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == wanted
    run._allow_files()  # enough: nothing to do
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
