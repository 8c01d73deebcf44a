# SPDX-License-Identifier: MIT
"""The demo, under fake time: what it prints, and that it leaves nothing."""

import contextlib
import socket
from functools import partial
from pathlib import Path

import click
import pytest
import trio
from trio.testing import MockClock

from mesh.cli import demo
from mesh.cli.main import main
from tests.harness import Patience, patient_clock

Capture = pytest.CaptureFixture[str]


def test_it_delivers_and_cleans_up(
    tmp_path: Path,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(trio, "run", partial(trio.run, clock=patient_clock(patience)))
    assert main(["demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("demo: delivered 1 of 1; idle ")
    idle, busy = (line for line in lines if line[:4] in {"idle", "busy"})
    assert len(idle) == len(busy)
    assert set(idle[7:]) & set("123456789")
    assert not list(tmp_path.iterdir())


async def test_what_does_not_arrive_is_an_error(
    tmp_path: Path,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.setattr(demo, "_submit", lambda _: None)
    assert await demo._demo(tmp_path) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("demo: delivered 0 of 1")


async def test_a_tap_before_nobody_waits_for_somebody(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        tap = demo._Tap()
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            inner = int(nobody.getsockname()[1])
        outer = tap.add(inner)
        tap.start(nursery)
        stream = await trio.open_tcp_stream("127.0.0.1", outer)
        with contextlib.suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
        await stream.aclose()
        await tap.quiet()
        nursery.cancel_scope.cancel()


def test_a_command_of_ours_that_fails_is_said_so() -> None:
    with pytest.raises(click.ClickException, match="mesh help ended with 64"):
        demo._mesh("help", "no such topic")
