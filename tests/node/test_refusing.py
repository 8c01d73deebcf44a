# SPDX-License-Identifier: MIT
"""The refuse list's file: whatever lies there, the last good list holds and nothing hangs."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from mesh.errors import ConfigError
from mesh.node import refusing
from mesh.node.refusing import GRAIN_NS, REFUSE_MAX_LEN, RefuseList


def refuse_list(path: Path, text: str = "a@x.test\n") -> RefuseList:
    path.write_text(text)
    return RefuseList(path)


class Reads:
    """How often the file was read."""

    count = 0


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    counted = Reads()
    contents = refusing._contents

    def counting(path: Path) -> tuple[bytes, os.stat_result]:
        counted.count += 1
        return contents(path)

    monkeypatch.setattr(refusing, "_contents", counting)
    return counted


@contextmanager
def later(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it a second is over."""
    now = time.time_ns
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now() + GRAIN_NS)
        yield


def test_a_change_counts_and_a_mistake_does_not(tmp_path: Path) -> None:
    path = tmp_path / "no"
    here = refuse_list(path)
    assert here.refuses("A@x.test")
    assert not here.refuses("b@x.test")
    path.write_text("b@x.test\n")
    here.look()
    assert here.refuses("b@x.test")
    assert not here.refuses("a@x.test")
    path.write_text("c@x.test\nnonsense\n")
    here.look()
    assert here.refuses("b@x.test")
    assert not here.refuses("c@x.test")
    assert here.mistake.startswith(f"{path}:2: no address")
    assert here.mistake.endswith("domain: the last good list stays in force")
    path.write_text("nonsense\n" * 3)
    here.look()
    assert "(and 2 more)" in here.mistake
    assert "\n" not in here.mistake
    path.write_text("")
    here.look()
    assert not here.refuses("b@x.test")
    assert not here.mistake


def test_a_file_that_is_gone_is_a_mistake_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "no"
    here = refuse_list(path)
    path.unlink()
    for _ in range(3):
        here.look()
        assert here.refuses("a@x.test")
        assert "No such file" in here.mistake
    path.write_text("a@x.test\n")
    here.look()
    assert not here.mistake


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "no"
    here = refuse_list(path)
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    here.look()
    assert here.refuses("a@x.test")
    assert "no: no regular file" in here.mistake
    with pytest.raises(ConfigError, match="no regular file"):
        RefuseList(path)


def test_only_a_file_that_has_changed_is_read(
    tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "no"
    here = refuse_list(path)
    assert reads.count == 1
    # Written this very second: it may be written again and show the same time.
    here.look()
    assert reads.count == 2
    with later(monkeypatch):
        for _ in range(5):
            here.look()
            assert reads.count == 3
        stat = path.stat()
        path.write_text("b@x.test\n")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        here.look()
        assert here.refuses("b@x.test")
        path.unlink()
        for _ in range(5):
            here.look()
        assert reads.count == 5
        path.mkdir()
        for _ in range(5):
            here.look()
        assert reads.count == 6


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"who\n", "no:1: no address"),
        (b"\xff@x\n", "no:1: no address"),
        (b"#" * (REFUSE_MAX_LEN + 1), "more than 16 MiB"),
    ],
)
def test_a_list_that_is_none_is_an_error_at_the_start(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "no"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=why):
        RefuseList(path)


def test_of_a_file_without_end_so_much_is_read(tmp_path: Path) -> None:
    path = tmp_path / "no"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="more than 16 MiB"):
        RefuseList(path)
    path.write_bytes(b"#" * REFUSE_MAX_LEN)
    assert not RefuseList(path).mistake


async def test_a_disk_that_hangs_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = refuse_list(tmp_path / "no")
    hangs, freed = threading.Event(), threading.Event()

    def look() -> None:
        hangs.set()
        freed.wait(30)

    monkeypatch.setattr(refusing, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(here, "look", look)
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.watch)
        while not hangs.is_set():  # noqa: ASYNC110  # a thread says so
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert time.monotonic() - began < 20
    freed.set()


async def test_without_a_list_nobody_looks() -> None:
    here = RefuseList(None)
    here.look()
    await here.watch()
    assert not here.refuses("a@x.test")
    assert not here.mistake
