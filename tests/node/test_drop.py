# SPDX-License-Identifier: MIT
"""Mail out of the drop folder: all of it, once, whatever else lies there."""

import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mesh.cli import dropoff
from mesh.core import drop as core_drop
from mesh.core.drop import (
    MAIL_LEN_MIN,
    Mail,
    mail_name,
    open_mail_untrusted,
    parse_key_untrusted,
    seal_mail,
    temp_name,
)
from mesh.core.reply import Reply
from mesh.errors import CannotCreateError, IoError, MessageError, TryLaterError
from mesh.node import drop as node_drop
from mesh.node import qmgr
from mesh.node.dropbox import DropBox
from mesh.node.onetime import OneTimeKeys
from tests.disk import NOBODY, forbidden_folder, full_disk
from tests.harness import Half, Patience, until
from tests.node.besides import Reader
from tests.node.dropping import (
    few_slots,
    leave,
    mail,
    make_drop,
    make_keys,
    names,
    taking,
)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    few_slots(monkeypatch)


async def stocked(folder: Path) -> None:
    """Let a node lay its keys ready, and end."""
    async with taking(folder):
        await until(lambda: len(names(folder, "key")) == 8)


async def waits(alpha: Half, count: int) -> list[bytes]:
    await until(lambda: len(alpha.qmgr.queue("local:0").ready) >= count, 60)
    return sorted(await alpha.arrived())


async def test_what_was_left_is_taken_at_the_start(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    keys = {p.name: p.read_bytes() for p in (tmp_path / "drop").iterdir()}
    leave(tmp_path, 1, 2, 3)
    assert len(names(tmp_path, "mail")) == 3
    async with taking(tmp_path) as (alpha, drop):
        assert await waits(alpha, 3) == [b"1\r\n", b"2\r\n", b"3\r\n"]
        await until(lambda: not names(tmp_path, "mail"))
        await until(lambda: len(names(tmp_path, "key")) == 8)
        after = {p.name: p.read_bytes() for p in (tmp_path / "drop").iterdir()}
        assert sum(keys[name] != after[name] for name in keys) == 3
        await trio.sleep(60)
        assert len(await alpha.arrived()) == 3
        assert drop.junk == 0
        head = await alpha.spool.heads(list(alpha.qmgr.queue("local:0").ready))
        assert {h.reverse_path for h in head if h} == {"me@alpha.test"}


async def test_nothing_is_taken_before_it_is_known_what_was(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    leave(tmp_path, 1)
    reader = Reader(monkeypatch)
    async with taking(tmp_path) as (alpha, _):
        await trio.sleep(60)
        assert not alpha.spool.waiting
        assert len(names(tmp_path, "mail")) == 1
        reader.go_on()
        assert await waits(alpha, 1) == [b"1\r\n"]


async def test_and_within_two_seconds_while_it_runs(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with taking(tmp_path) as (alpha, _):
        await until(lambda: len(names(tmp_path, "key")) == 8)
        for number in range(20):
            await trio.sleep(3.7)
            leave(tmp_path, number)
            started = trio.current_time()
            assert len(await waits(alpha, number + 1)) == number + 1
            assert trio.current_time() - started <= 2


async def test_every_key_serves_once_and_then_there_is_none(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    leave(tmp_path, *range(8))
    with pytest.raises(TryLaterError, match="no key is left"):
        leave(tmp_path, 9)
    async with taking(tmp_path) as (alpha, _):
        assert len(await waits(alpha, 8)) == 8
        await until(lambda: not names(tmp_path, "mail"))
        await until(lambda: len(names(tmp_path, "key")) == 8)
        leave(tmp_path, 9)
        assert len(await waits(alpha, 9)) == 9


async def test_a_slot_s_new_key_has_nothing_of_the_old(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    """A copy of the message's file is worth nothing once it was taken."""
    del autojump_clock, patience
    await stocked(tmp_path)
    leave(tmp_path, 1)
    [name] = names(tmp_path, "mail")
    copy = (tmp_path / "drop" / name).read_bytes()
    async with taking(tmp_path) as (alpha, drop):
        await waits(alpha, 1)
        await until(lambda: not names(tmp_path, "mail"))
        await until(lambda: len(names(tmp_path, "key")) == 8)
        for slot in range(8):
            one = drop._keys.one(slot)
            assert mail_name(one.id) != name
            (tmp_path / "drop" / mail_name(one.id)).write_bytes(copy)
        await until(lambda: drop.junk == 8)
        (tmp_path / "drop" / name).write_bytes(copy)
        await trio.sleep(10)
        assert len(await alpha.arrived()) == 1
    assert names(tmp_path, "mail") == [name]  # a name of nobody: not looked at


async def test_hostile_things_under_every_name(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    keys = make_keys(tmp_path)
    drop_folder = tmp_path / "drop"
    paths = [drop_folder / mail_name(keys.one(slot).id) for slot in range(6)]
    keys.close()
    paths[0].symlink_to("/etc/passwd")
    os.mkfifo(paths[1])
    paths[2].mkdir()
    (paths[2] / "x").touch()
    paths[3].write_bytes(os.urandom(MAIL_LEN_MIN))
    paths[4].touch()
    with paths[5].open("wb") as file:
        file.truncate(1 << 40)
    for number in range(50):
        (drop_folder / f"mail.{number:032x}").write_bytes(b"junk")
        (drop_folder / f"other{number}").mkdir()
    leave(tmp_path, 1)
    async with taking(tmp_path) as (alpha, drop):
        assert await waits(alpha, 1) == [b"1\r\n"]
        await until(lambda: drop.junk == 6)
        leave(tmp_path, 2, 3)
        started = trio.current_time()
        assert len(await waits(alpha, 3)) == 3
        assert trio.current_time() - started <= 2
        await until(lambda: not os.path.lexists(paths[0]))
        await trio.sleep(30)
    assert not paths[5].exists()
    assert len(list(drop_folder.glob("other*"))) == 50


async def test_more_than_one_group(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    longs = [mail(content=b"%d" % number * 3_500_000) for number in range(5)]
    dropoff.drop(str(tmp_path / "drop"), longs)
    async with taking(tmp_path, max_message=4_000_000) as (alpha, _):
        assert len(await waits(alpha, 5)) == 5
        await until(lambda: not names(tmp_path, "mail"))


async def test_a_limit_that_was_lowered_loses_nothing(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    dropoff.drop(str(tmp_path / "drop"), [mail(content=b"x" * 3_000_000)])
    async with taking(tmp_path, max_message=10_000) as (alpha, drop):
        assert await waits(alpha, 1) == [b"x" * 3_000_000]
        assert drop.junk == 0


async def test_more_copies_than_the_queue_takes_hold_no_key(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No sender of ours makes such a file; the queue says 452 to it for ever."""
    del autojump_clock, patience
    await stocked(tmp_path)
    for where in (("you@alpha.test", "me@other.test"), ("you@alpha.test",)):
        dropoff.drop(str(tmp_path / "drop"), [Mail("", where, b"x" * 20_000)])
    before = names(tmp_path, "mail")
    for module in (core_drop, qmgr):
        monkeypatch.setattr(module, "COPIES_MAX", 30_000)
    async with taking(tmp_path) as (alpha, drop):
        assert len(await waits(alpha, 1)) == 1
        await until(lambda: not names(tmp_path, "mail"), 5)
        assert drop.junk == 1
        assert len(before) == 2
        await until(lambda: len(names(tmp_path, "key")) == 8)


async def test_messages_are_opened_in_a_thread_of_the_folder_s_own(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One at a time, and none of them on Trio's thread."""
    del autojump_clock, patience
    await stocked(tmp_path)
    leave(tmp_path, 1, 2, 3)
    limiter = trio.to_thread.current_default_thread_limiter()
    seen: list[tuple[bool, float]] = []

    def opening(*args: Any) -> Mail:
        on_trio = threading.current_thread() is threading.main_thread()
        seen.append((on_trio, limiter.borrowed_tokens))
        return open_mail_untrusted(*args)

    monkeypatch.setattr(node_drop, "open_mail_untrusted", opening)
    async with taking(tmp_path) as (alpha, drop):
        assert await waits(alpha, 3) == [b"1\r\n", b"2\r\n", b"3\r\n"]
        assert drop.threads.total_tokens == 1
    assert seen == [(False, 0)] * 3


async def test_no_room_in_the_spool_leaves_it_lying(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    leave(tmp_path, 1)
    async with taking(tmp_path) as (alpha, _):
        with monkeypatch.context() as patch:
            asked: list[object] = []

            def refuse(**message: object) -> None:
                asked.append(message)
                answer = message["answer"]
                answer(Reply(452, "no room"))  # type: ignore[operator]

            patch.setattr(alpha.qmgr, "accept", refuse)
            await until(lambda: len(asked) == 2, 60)
        assert len(names(tmp_path, "mail")) == 1
        assert await waits(alpha, 1) == [b"1\r\n"]


async def test_a_lock_that_somebody_holds(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    """It delays the end of a key, never the message."""
    del autojump_clock, patience
    await stocked(tmp_path)
    leave(tmp_path, 1)
    held = [(tmp_path / "drop" / name).open("rb") for name in names(tmp_path, "key")]
    for file in held:
        fcntl.flock(file, fcntl.LOCK_EX)
    async with taking(tmp_path) as (alpha, _):
        assert await waits(alpha, 1) == [b"1\r\n"]
        await trio.sleep(40)
        assert len(names(tmp_path, "mail")) == 1
        for file in held:
            file.close()
        await until(lambda: not names(tmp_path, "mail"), 15)
        assert await alpha.arrived() == [b"1\r\n"]


async def test_no_lock_keeps_a_key_for_ever(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    leave(tmp_path, 1)
    keys = {p.name: p.read_bytes() for p in (tmp_path / "drop").glob("key.*")}
    slots = (tmp_path / "drop.keys").read_bytes()
    held = [(tmp_path / "drop" / name).open("rb") for name in keys]
    for file in held:
        fcntl.flock(file, fcntl.LOCK_EX)
    async with taking(tmp_path) as (alpha, _):
        assert await waits(alpha, 1) == [b"1\r\n"]
        await trio.sleep(50)
        assert (tmp_path / "drop.keys").read_bytes() == slots
        await until(lambda: not names(tmp_path, "mail"), 25)
        await until(lambda: len(names(tmp_path, "key")) == 8)
        after = {p.name: p.read_bytes() for p in (tmp_path / "drop").glob("key.*")}
        assert sum(keys[name] != after[name] for name in keys) == 1
        assert (tmp_path / "drop.keys").read_bytes() != slots
        await trio.sleep(60)
        assert await alpha.arrived() == [b"1\r\n"]
        assert after == {
            p.name: p.read_bytes() for p in (tmp_path / "drop").glob("key.*")
        }
    for file in held:
        file.close()


async def test_what_a_sender_left_half_written_goes(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    file = tmp_path / "drop" / names(tmp_path, "key")[0]
    temp = tmp_path / "drop" / temp_name(parse_key_untrusted(file.read_bytes()).id)
    temp.write_bytes(b"half")
    leave(tmp_path, *range(7))
    with pytest.raises(TryLaterError):
        leave(tmp_path, 8)
    async with taking(tmp_path) as (alpha, _):
        await waits(alpha, 7)
        await until(lambda: not temp.exists())
        assert len(names(tmp_path, "key")) == 8


async def test_who_may_not_submit(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    leave(tmp_path, 1)
    async with taking(tmp_path, uids=frozenset({NOBODY})) as (alpha, drop):
        await until(lambda: drop.junk == 1)
        assert await alpha.arrived() == []


async def test_somebody_in_the_way_of_a_key(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One key that cannot be laid ready does not hold up the others, nor the mail."""
    del autojump_clock, patience
    await stocked(tmp_path)
    leave(tmp_path, 1)
    for name in names(tmp_path, "key"):
        (tmp_path / "drop" / name).unlink()
    publish = DropBox.publish

    def stumble(box: DropBox, slot: int, one: object) -> None:
        if slot == 3:
            raise OSError(errno.EISDIR, "Is a directory")
        publish(box, slot, one)  # type: ignore[arg-type]

    async with taking(tmp_path) as (alpha, _):
        with monkeypatch.context() as patch:
            patch.setattr(DropBox, "publish", stumble)
            assert await waits(alpha, 1) == [b"1\r\n"]
            await until(lambda: len(names(tmp_path, "key")) == 7)
            await trio.sleep(20)
            assert len(names(tmp_path, "key")) == 7
        await until(lambda: len(names(tmp_path, "key")) == 8, 30)


async def test_a_folder_that_fails_is_tried_again(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    leave(tmp_path, 1)
    async with taking(tmp_path) as (alpha, _):
        with monkeypatch.context() as patch:
            failed: list[int] = []

            def fail(_: object, slot: int, **__: bool) -> bool:
                failed.append(slot)
                raise OSError(errno.EMFILE, "Too many open files")

            patch.setattr(DropBox, "withdraw", fail)
            await until(lambda: len(failed) == 2, 60)
        await until(lambda: not names(tmp_path, "mail"), 60)
        assert await alpha.arrived() == [b"1\r\n"]


@pytest.mark.parametrize(("part", "call"), [(DropBox, "sync"), (OneTimeKeys, "write")])
async def test_a_disk_in_doubt_ends_the_node(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
    part: type,
    call: str,
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    leave(tmp_path, 1)

    def fail(*_: object) -> None:
        raise IoError("Input/output error")

    with (
        monkeypatch.context() as patch,
        pytest.RaisesGroup(IoError, flatten_subgroups=True),
    ):
        patch.setattr(part, call, fail)
        async with taking(tmp_path):
            await trio.sleep(60)
    async with taking(tmp_path) as (alpha, _):
        assert await waits(alpha, 1) == [b"1\r\n"]
        await until(lambda: not names(tmp_path, "mail"))
        assert len(await alpha.arrived()) == 1


async def test_an_emptied_folder_gets_new_keys(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    before = {p.read_bytes() for p in (tmp_path / "drop").iterdir()}
    for path in (tmp_path / "drop").iterdir():
        path.unlink()
    await stocked(tmp_path)
    assert not before & {p.read_bytes() for p in (tmp_path / "drop").iterdir()}


async def test_a_folder_that_cannot_be_had(tmp_path: Path) -> None:
    async with taking(tmp_path) as (alpha, _):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "drop").touch()
        with pytest.raises(CannotCreateError):
            make_drop(tmp_path / "x", alpha.qmgr)
        (tmp_path / "x" / "drop").unlink()
        (tmp_path / "x" / "drop.keys").mkdir()
        with pytest.raises(CannotCreateError):
            make_drop(tmp_path / "x", alpha.qmgr)


# the sender's half


async def test_a_message_says_little(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    leave(tmp_path, 1)
    [name] = names(tmp_path, "mail")
    found = (tmp_path / "drop" / name).stat()
    assert (found.st_size, found.st_mtime, found.st_atime) == (MAIL_LEN_MIN, 0, 0)
    assert found.st_nlink == 1
    assert found.st_mode & 0o777 == 0o644


async def test_only_keys_of_the_folder_s_owner_count(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    if os.geteuid() != 0:
        pytest.skip("gives files to other users")
    await stocked(tmp_path)
    for name in names(tmp_path, "key"):
        os.chown(tmp_path / "drop" / name, NOBODY, NOBODY)
    with pytest.raises(TryLaterError, match="no key"):
        leave(tmp_path, 1)
    os.chown(tmp_path / "drop", NOBODY, NOBODY)
    leave(tmp_path, 1)


async def test_keys_that_are_none(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    folder = tmp_path / "drop"
    paths = [folder / name for name in names(tmp_path, "key")]
    for path in paths:
        octets = path.read_bytes()
        path.unlink()
        match paths.index(path):
            case 0:
                os.mkfifo(path)
            case 1:
                path.symlink_to(paths[7])
            case 2:
                path.mkdir()
            case 3:
                path.write_bytes(octets[:-1])
            case 4:
                path.write_bytes(octets + b"x")
            case 5:
                path.write_bytes(b"")
            case 6:
                pass
            case _:
                path.write_bytes(octets)
    leave(tmp_path, 1)
    with pytest.raises(TryLaterError):
        leave(tmp_path, 2)


async def test_a_key_of_low_order_is_none(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    real = parse_key_untrusted
    monkeypatch.setattr(
        dropoff, "parse_key_untrusted", lambda o: real(o)._replace(public=bytes(32))
    )
    with pytest.raises(TryLaterError, match="no key is left"):
        leave(tmp_path, 1)
    assert names(tmp_path, "temp") == []


async def test_somebody_else_is_faster(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever happens between two steps of a sender, he takes another key."""
    del autojump_clock, patience
    await stocked(tmp_path)
    folder = tmp_path / "drop"
    link, fill, seal = os.link, dropoff._fill, seal_mail
    once: list[str] = []

    def linked_before(temp: str, final: str, **places: Any) -> None:
        if "link" not in once:
            once.append("link")
            (folder / final).touch()
        link(temp, final, **places)

    def cleared(file: int, octets: bytes) -> None:
        fill(file, octets)
        if "fill" not in once:
            once.append("fill")
            [temp] = folder.glob("temp.*")
            temp.unlink()

    def emptied(one: object, message: Mail, entropy: object) -> bytes:
        if "seal" not in once:
            once.append("seal")
            for path in folder.glob("key.*"):
                if parse_key_untrusted(path.read_bytes()) == one:
                    path.unlink()
        elif "temp" not in once:
            once.append("temp")
            (folder / temp_name(one.id)).touch()  # type: ignore[attr-defined]
        return seal(one, message, entropy)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", linked_before)
        patch.setattr(dropoff, "_fill", cleared)
        patch.setattr(dropoff, "seal_mail", emptied)
        leave(tmp_path, 1)
    assert sorted(once) == ["fill", "link", "seal", "temp"]
    sizes = [p.stat().st_size for p in folder.glob("mail.*")]
    assert sorted(sizes) == [0, MAIL_LEN_MIN]
    async with taking(tmp_path) as (alpha, _):
        assert await waits(alpha, 1) == [b"1\r\n"]


async def test_a_key_that_goes_before_its_message_lies_there(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node may have destroyed it, or may not: nothing is left under it."""
    del autojump_clock, patience
    await stocked(tmp_path)
    link = os.link
    gone: list[str] = []

    def emptied(temp: str, final: str, **places: Any) -> None:
        for path in (tmp_path / "drop").glob("key.*"):
            if (
                not gone
                and mail_name(parse_key_untrusted(path.read_bytes()).id) == final
            ):
                path.unlink()
                gone.append(final)
        link(temp, final, **places)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", emptied)
        leave(tmp_path, 1)
    assert len(gone) == len(names(tmp_path, "mail")) == 1
    assert names(tmp_path, "mail") != gone
    async with taking(tmp_path) as (alpha, _):
        await waits(alpha, 1)
        await trio.sleep(30)
        assert await alpha.arrived() == [b"1\r\n"]


async def test_a_key_that_goes_while_it_is_opened(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    parse = parse_key_untrusted

    def gone(octets: bytes) -> object:
        for path in (tmp_path / "drop").glob("key.*"):
            path.unlink()
        return parse(octets)

    monkeypatch.setattr(dropoff, "parse_key_untrusted", gone)
    with pytest.raises(TryLaterError, match="no key"):
        leave(tmp_path, 1)
    assert names(tmp_path, "mail") == []


async def test_disks_and_messages_that_refuse(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    with pytest.raises(TryLaterError, match=r"does not run, and .*No such file"):
        leave(tmp_path, 1)
    await stocked(tmp_path)
    with full_disk(), pytest.raises(TryLaterError, match="File too large: try later"):
        leave(tmp_path, 1)
    assert names(tmp_path, "temp") == names(tmp_path, "mail") == []
    for wrong in (Mail("", (), b""), Mail("", ("x",), b""), Mail("", ("a@b",), b"\r")):
        with pytest.raises(MessageError, match="would not take"):
            dropoff.drop(str(tmp_path / "drop"), [mail(1), wrong])
    with forbidden_folder() as place, pytest.raises(TryLaterError, match="no key"):
        dropoff.drop(str(place), [mail(1)])
    leave(tmp_path, 1)


# several files


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_several_are_left_together_or_not_at_all(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience
    await stocked(tmp_path)
    folder, many = str(tmp_path / "drop"), [mail(number) for number in range(8)]
    files = open_files()
    with pytest.raises(TryLaterError, match="no key is left"):
        dropoff.drop(folder, [*many, mail(9)])
    assert names(tmp_path, "mail") == names(tmp_path, "temp") == []
    for call in ("link", "fsync"):
        for times in range(3, 9):
            with monkeypatch.context() as patch:
                fail_at(patch, call, times)
                with pytest.raises(TryLaterError, match="No space"):
                    dropoff.drop(folder, many)
            assert names(tmp_path, "mail") == names(tmp_path, "temp") == []
    assert open_files() == files
    dropoff.drop(folder, many)
    assert len(names(tmp_path, "mail")) == 8
    assert names(tmp_path, "temp") == []
    async with taking(tmp_path) as (alpha, _):
        assert await waits(alpha, 8) == sorted(each.content for each in many)


def fail_at(patch: pytest.MonkeyPatch, call: str, times: int) -> None:
    """Let the disk be full when this is called so often."""
    real = getattr(os, call)
    calls: list[int] = []

    def failing(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) >= times:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **options)

    patch.setattr(os, call, failing)


async def test_what_may_not_be_looked_at_is_passed_over(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A neighbour's own file system under the names of one key holds up nobody."""
    del autojump_clock, patience
    await stocked(tmp_path)
    keys = (tmp_path / "drop").glob("key.*")
    ids = [parse_key_untrusted(path.read_bytes()).id for path in keys]
    lstat = os.lstat

    def refuse(path: Any, **options: Any) -> Any:
        if path in [mail_name(ident) for ident in ids[1:]]:
            raise PermissionError(errno.EACCES, "Permission denied")
        return lstat(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", refuse)
        leave(tmp_path, 1)
    assert names(tmp_path, "mail") == [mail_name(ids[0])]


async def test_a_key_of_two_names_is_none(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    """A neighbour may have kept one that the node has destroyed since."""
    del autojump_clock, patience
    await stocked(tmp_path)
    for name in names(tmp_path, "key"):
        os.link(tmp_path / "drop" / name, tmp_path / f"kept.{name}")
    with pytest.raises(TryLaterError, match="no key"):
        leave(tmp_path, 1)


async def test_one_that_breaks_us_stays_and_the_others_go(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what it is: it is no junk, for its sender was told that all is well."""
    opens = core_drop.open_mail_untrusted
    breaks = True

    def breaking(*args: Any) -> Mail:
        found = opens(*args)
        if breaks and found.content == mail(1).content:
            raise RuntimeError("in what opens it")
        return found

    monkeypatch.setattr(node_drop, "open_mail_untrusted", breaking)
    await stocked(tmp_path)
    leave(tmp_path, 0, 1, 2)
    async with taking(tmp_path) as (alpha, drop):
        await until(lambda: len(alpha.qmgr.queue("local:0").ready) == 2, 5)
        await trio.sleep(30)
        arrived = sorted(await alpha.arrived())  # a folder has no order
        assert arrived == [mail(0).content, mail(2).content]
        assert alpha.qmgr.guard.bugs > 1  # looked at again and again
        assert not drop.junk
        breaks = False
        await until(lambda: len(alpha.qmgr.queue("local:0").ready) == 3, 30)
