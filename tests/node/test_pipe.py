# SPDX-License-Identifier: MIT
"""Messages into real programs: what they get, what their ends mean, how they are ended.

Real time: the programs are other processes.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mesh.core.content import to_lf
from mesh.core.drop import PIECE_LEN
from mesh.node import pipe
from mesh.node import pipe as pipe_module
from mesh.node.pipe import PipeDelivery
from tests.harness import Half, half, until


def program(folder: Path, body: str) -> tuple[str, ...]:
    """A Python script as a program; `out` is a folder for what it leaves."""
    path = folder / "program.py"
    text = f"import os, sys, time, signal, pathlib\nout = {str(folder)!r}\n{body}\n"
    path.write_text(text)
    return (sys.executable, "-I", "-S", str(path), "a b", "c")


@asynccontextmanager
async def piped(
    folder: Path, argv: tuple[str, ...], limit_seconds: float = 30.0
) -> AsyncIterator[Half]:
    async with (
        half(folder, "alpha", {"mix@a.test": "local:0"}) as alpha,
        trio.open_nursery() as nursery,
    ):
        delivery = PipeDelivery(
            argv=argv,
            destination="local:0",
            qmgr=alpha.qmgr,
            limit_seconds=limit_seconds,
        )
        nursery.start_soon(delivery.run)
        yield alpha
        nursery.cancel_scope.cancel()


async def test_it_gets_the_octets_with_lf_and_a_clean_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the node")
    argv = program(
        tmp_path,
        "number = len(list(pathlib.Path(out).glob('got*')))\n"
        "told = [os.getcwd(), *sys.argv[1:], *sorted(os.environ)]\n"
        "told.append(str(os.getpid() == os.getpgrp() == os.getsid(0)))\n"
        "print('nobody reads this')\n"
        "pathlib.Path(out, 'told').write_text('\\n'.join(told))\n"
        "pathlib.Path(out, f'got{number}').write_bytes(sys.stdin.buffer.read())",
    )
    contents = [b"From: x\r\n\r\n.dot\r\n\0\xff\r\n", b"", b"x" * 300_000 + b"\r\n"]
    async with piped(tmp_path, argv) as alpha:
        for content in contents:
            alpha.submit(content, "mix@a.test")
        await until(lambda: len(list(tmp_path.glob("got*"))) == len(contents), 20)
        await until(lambda: not alpha.spool.waiting, 20)
    for number, content in enumerate(contents):
        got = (tmp_path / f"got{number}").read_bytes()
        assert got == content.replace(b"\r\n", b"\n")
    told = (tmp_path / "told").read_text().split("\n")
    names = [name for name in told[3:-1] if not name.startswith("LC_")]
    assert told[:3] == ["/", "a b", "c"]
    assert set(names) == {"HOME", "LOGNAME", "PATH", "USER"}
    assert told[-1] == "True"


async def test_twenty_megabytes_are_converted_beside_trio_s_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And in short pieces: one call would keep the interpreter for 40 ms."""
    seen: list[tuple[bool, int]] = []

    def converting(piece: bytes) -> bytes:
        on_trio = threading.current_thread() is threading.main_thread()
        seen.append((on_trio, len(piece)))
        return to_lf(piece)

    monkeypatch.setattr(pipe, "to_lf", converting)
    body = "pathlib.Path(out, 'got').write_bytes(sys.stdin.buffer.read())"
    content = b"line\r\n" * 3_500_000
    async with piped(tmp_path, program(tmp_path, body)) as alpha:
        alpha.submit(content, "mix@a.test")
        await until(lambda: (tmp_path / "got").exists(), 20)
        await until(lambda: not alpha.spool.waiting, 20)
    assert (tmp_path / "got").read_bytes() == content.replace(b"\r\n", b"\n")
    assert not any(on_trio for on_trio, _ in seen)
    assert max(length for _, length in seen) <= PIECE_LEN + 1


async def settled(folder: Path, argv: tuple[str, ...], limit: float = 30.0) -> str:
    """Hand over one message: `gone`, or `deferred`."""
    async with piped(folder, argv, limit) as alpha:
        replies = alpha.submit(b"x\r\n", "mix@a.test", reverse_path="")
        await until(lambda: replies, 20)
        await until(lambda: alpha.qmgr._deferred or not alpha.spool.waiting, 20)
        return "deferred" if alpha.qmgr._deferred else "gone"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("", "gone"),  # it never reads its input
        ("sys.exit(75)", "deferred"),
        ("sys.exit(1)", "deferred"),
        ("os.kill(0, signal.SIGKILL)", "deferred"),
    ],
)
async def test_what_its_end_means(tmp_path: Path, body: str, outcome: str) -> None:
    assert await settled(tmp_path, program(tmp_path, body)) == outcome


@pytest.mark.parametrize("argv", [("/no/such/program",), ("/",), ("a\0b",)])
async def test_a_program_that_cannot_start_defers(
    tmp_path: Path, argv: tuple[str, ...]
) -> None:
    assert await settled(tmp_path, argv) == "deferred"


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


STUBBORN = (
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = os.fork()\n"
    "name = 'leader' if child else 'child'\n"
    "pathlib.Path(out, name + '.new').write_text(str(os.getpid()))\n"
    "os.rename(os.path.join(out, name + '.new'), os.path.join(out, name))\n"
    "time.sleep(60)"
)


def pids(folder: Path) -> list[int]:
    names = [folder / "leader", folder / "child"]
    return [int(name.read_text()) for name in names if name.exists()]


async def test_past_the_limit_its_whole_group_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "END_SECONDS", 0.2)
    assert await settled(tmp_path, program(tmp_path, STUBBORN), 1.0) == "deferred"
    found = pids(tmp_path)
    assert len(found) == 2
    await until(lambda: not any(map(is_alive, found)), 10)


async def test_the_group_ends_with_the_node_and_the_message_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "END_SECONDS", 0.2)
    async with piped(tmp_path, program(tmp_path, STUBBORN)) as alpha:
        alpha.submit(b"x\r\n", "mix@a.test")
        await until(lambda: len(pids(tmp_path)) == 2, 20)
    found = pids(tmp_path)
    await until(lambda: not any(map(is_alive, found)), 10)
    assert alpha.qmgr.queue("local:0").ready


@contextmanager
def unkillable(patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Signals do nothing, as in a call to a disk that does not answer.

    Gives the pids; what is left runs to its end when this does.
    """
    found: list[int] = []

    def ignored(pid: int, _number: int) -> None:
        found.append(pid)

    with patch.context() as within:
        within.setattr(os, "killpg", ignored)
        try:
            yield found
        finally:
            for pid in set(found):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_the_node_ends_without_a_program_that_nothing_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "END_SECONDS", 0.1)
    with unkillable(monkeypatch) as found:
        async with piped(tmp_path, program(tmp_path, STUBBORN)) as alpha:
            alpha.submit(b"x\r\n", "mix@a.test")
            await until(lambda: len(pids(tmp_path)) == 2, 20)
            leader, child = pids(tmp_path)
            started = trio.current_time()
        assert trio.current_time() - started < 5
        assert alpha.spool.waiting == 1
        assert found == [leader, leader]
        os.kill(child, signal.SIGKILL)


async def test_nothing_runs_beside_a_program_that_nothing_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "END_SECONDS", 0.1)
    body = (
        "number = len(list(pathlib.Path(out).glob('run*')))\n"
        "pathlib.Path(out, f'run{number}').touch()\n"
        "time.sleep(0 if number else 60)"
    )

    def runs() -> list[Path]:
        return list(tmp_path.glob("run*"))

    async with piped(tmp_path, program(tmp_path, body), 0.5) as alpha:
        with unkillable(monkeypatch) as found:
            for _ in range(2):
                alpha.submit(b"x\r\n", "mix@a.test")
            await until(lambda: len(found) == 2, 20)
            with trio.move_on_after(2):
                await until(lambda: len(runs()) > 1, 60)
            assert len(runs()) == 1
        await until(lambda: len(runs()) == 2, 20)
        await until(lambda: alpha.spool.waiting == 1, 20)


async def test_the_node_ends_without_a_program_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file lies on a disk that does not answer."""
    freed, hangs = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        hangs.set()
        freed.wait(60)

    try:
        async with piped(tmp_path, ("/bin/true",)) as alpha:
            with monkeypatch.context() as patch:
                patch.setattr(subprocess, "Popen", hang)
                alpha.submit(b"x\r\n", "mix@a.test")
                await until(hangs.is_set, 20)
            started = trio.current_time()
        assert trio.current_time() - started < 5
        assert alpha.spool.waiting == 1
    finally:
        freed.set()


async def test_a_program_that_starts_while_the_node_ends_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "END_SECONDS", 0.2)
    freed, hangs = threading.Event(), threading.Event()
    start = subprocess.Popen
    made: list[subprocess.Popen[bytes]] = []

    def hang(*args: Any, **options: Any) -> object:
        hangs.set()
        freed.wait(60)
        made.append(start(*args, **options))
        return made[0]

    async with piped(tmp_path, ("/bin/sleep", "60")) as alpha:
        monkeypatch.setattr(subprocess, "Popen", hang)
        alpha.submit(b"x\r\n", "mix@a.test")
        await until(hangs.is_set, 20)
        threading.Timer(0.2, freed.set).start()
    assert made[0].returncode == -signal.SIGTERM
    assert alpha.spool.waiting == 1


async def test_one_at_a_time_in_order(tmp_path: Path) -> None:
    argv = program(
        tmp_path,
        "fd = os.open(os.path.join(out, 'busy'), os.O_CREAT | os.O_EXCL)\n"
        "with open(os.path.join(out, 'order'), 'ab') as file:\n"
        "    file.write(sys.stdin.buffer.read())\n"
        "os.unlink(os.path.join(out, 'busy'))",
    )
    async with piped(tmp_path, argv) as alpha:
        for number in range(5):
            replies = alpha.submit(b"%d\r\n" % number, "mix@a.test")
            await until(lambda: replies, 20)  # noqa: B023  # called at once
        await until(lambda: not alpha.spool.waiting, 20)
        assert not alpha.qmgr._deferred
    assert (tmp_path / "order").read_bytes() == b"0\n1\n2\n3\n4\n"


def test_a_user_without_a_name_has_a_path_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert pipe._environment() == {"PATH": pipe.PATH, "HOME": "/"}


@pytest.mark.parametrize("path", [pipe.PATH, "/nowhere"])
async def test_a_killed_node_takes_the_program_with_it(
    tmp_path: Path, path: str
) -> None:
    """Its thread dies with the node; the kernel then kills what the thread made."""
    argv = program(tmp_path, STUBBORN)
    parent = (
        "import threading, time\n"
        "from mesh.node import pipe\n"
        "from mesh.node.pipe import _start\n"
        f"pipe.PATH = {path!r}\n"
        f"run = lambda: (_start({argv!r}, b''), time.sleep(60))\n"
        "threading.Thread(target=run).start()\n"
    )
    process = await trio.lowlevel.open_process([sys.executable, "-c", parent])
    await until(lambda: len(pids(tmp_path)) == 2, 20)
    process.kill()
    await process.wait()
    leader, child = pids(tmp_path)
    await until(lambda: not is_alive(leader), 10)
    os.kill(child, signal.SIGKILL)


@pytest.fixture
def forgetful() -> Iterator[None]:
    """Look for setpriv anew, before and after."""
    pipe._launcher.cache_clear()
    yield
    pipe._launcher.cache_clear()


@pytest.mark.skipif(not shutil.which("setpriv", path=pipe.PATH), reason="no setpriv")
@pytest.mark.usefixtures("forgetful")
async def test_a_start_needs_no_copy_of_the_node_s_memory(tmp_path: Path) -> None:
    """Python makes none where no code of its own runs in it."""
    copies: list[int] = []
    os.register_at_fork(before=lambda: copies.append(1))
    assert await settled(tmp_path, ("/bin/true",)) == "gone"
    assert copies == []


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", "no program"])
async def test_a_setpriv_that_knows_nothing_of_deaths_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "setpriv").write_text(text)
    (folder / "setpriv").chmod(0o755)
    monkeypatch.setattr(pipe, "PATH", str(folder))
    assert pipe._launcher() == ()
    assert await settled(tmp_path, ("/bin/true",)) == "gone"


async def test_a_program_is_waited_for_without_a_descriptor_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(_: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", none_left)
    process = pipe_module._start(["/bin/true"], b"")
    assert process is not None
    assert await pipe_module._ended(process, 10)
