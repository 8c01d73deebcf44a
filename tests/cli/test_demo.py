# SPDX-License-Identifier: MIT
"""The demo, in this process and in real time: what it prints, what it leaves."""

import contextlib
import signal
import socket
import sys
from pathlib import Path

import click
import pytest
import trio
from trio.testing import MockClock

from mesh.cli import demo, tap
from mesh.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "LOOK_SECONDS", 1.5)


def test_it_delivers_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("demo: delivered 1 of 1; idle ")
    idle = [line for line in lines if line.startswith("  idle")]
    busy = [line for line in lines if line.startswith("  busy")]
    assert len(idle) == len(busy) == 6  # both ways: mail goes one, replies the other
    assert "3 of 3 links are up; nothing is sent" in lines
    assert all(len(line) <= 80 for line in lines)
    assert any("cells of one length (0 others)" in line for line in lines)
    assert not list(tmp_path.iterdir())


def test_what_does_not_arrive_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(demo, "_submit", lambda *_: None)
    monkeypatch.setattr(demo, "LINK_SECONDS", 0)
    monkeypatch.setattr(demo, "DELIVERY_SECONDS", 0.1)
    assert trio.run(demo._demo, tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "0 of 3 links are up; nothing is sent" in lines
    assert lines[-1].startswith("demo: delivered 0 of 1")


@pytest.mark.parametrize("number", demo.SIGNALS)
def test_a_signal_ends_it_and_it_cleans_up(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    number: signal.Signals,
) -> None:
    made: list[Path] = []

    def send() -> None:
        made.extend(tmp_path.iterdir())
        signal.raise_signal(number)

    async def signalled(*_: object) -> None:
        send()
        await trio.sleep_forever()

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "_watch", signalled)
    assert main(["demo"]) == 130
    assert made
    assert capsys.readouterr().err == "\nmesh: interrupted\n"
    assert not list(tmp_path.iterdir())


def test_nobody_reads_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def gone(_: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "_say", gone)
    assert main(["demo"]) == 74
    assert capsys.readouterr().err == ""
    assert not list(tmp_path.iterdir())


def test_a_bug_in_it_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "_watch", None)
    assert main(["demo"]) == 70
    assert "a bug: TypeError at demo.py" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_long_name_is_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 25)
    long.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(long)
        listener.bind("local.sock")
        listener.listen()
        listener.close()
    with pytest.raises(ConnectionRefusedError):
        demo._submit(long, "x@y.test", b"")


def test_without_its_sink_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "aiosmtpd.controller", None)
    assert main(["demo"]) == 69
    assert "remailer-mesh[demo]" in capsys.readouterr().err


async def test_a_tap_before_nobody_waits_for_somebody(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        snooper = tap.Tap()
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            inner = int(nobody.getsockname()[1])
        outer = snooper.add("alpha", inner)
        snooper.start(nursery)
        stream = await trio.open_tcp_stream("127.0.0.1", outer)
        with contextlib.suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
        await stream.aclose()
        while not snooper.is_quiet:  # noqa: ASYNC110  # it tells nobody
            await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


def test_a_command_of_ours_that_fails_is_said_so() -> None:
    with pytest.raises(click.ClickException, match="mesh help ended with 64"):
        demo._mesh("help", "no such topic")
