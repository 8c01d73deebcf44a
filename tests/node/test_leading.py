# SPDX-License-Identifier: MIT
"""Records find their places again; what has parted is divided, and nobody reads it all."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.record import Record
from mesh.core.reply import TRY_LATER
from mesh.core.retry import OUTSIDE
from mesh.errors import SpoolFullError
from mesh.node import leading, parting
from mesh.node.records import Records
from mesh.node.routing import UNROUTED
from mesh.node.spool import Ref
from tests.harness import Half, Patience, half, until

ONE, TWO = "one@alpha.test", "two@alpha.test"
BOTH = {ONE: "local:0", TWO: "local:0"}
MOVED = {ONE: "local:0", TWO: "local:1"}


@asynccontextmanager
async def node(folder: Path, routes: dict[str, str]) -> AsyncIterator[Half]:
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240  # at once
    async with half(folder, "alpha", dict(routes)) as alpha:
        yield alpha


async def waits(alpha: Half, content: bytes, *recipients: str) -> Ref:
    """Hand a message over; where it waits it is the only one."""
    replies = alpha.submit(content, *recipients)
    await until(lambda: replies)
    [ref] = alpha.qmgr.queue(alpha.routes.get(recipients[0], UNROUTED)).ready
    return ref


async def at(alpha: Half, place: str) -> list[Record]:
    """What waits at a place, whole."""
    refs = list(alpha.qmgr.queue(place).ready)
    found = await alpha.spool.read(refs)
    assert None not in found
    return [record for record in found if record is not None]


async def readers(alpha: Half) -> dict[str, list[tuple[str, ...]]]:
    """The recipients of what waits, by place."""
    return {
        place: sorted(record.recipients for record in await at(alpha, place))
        for place, queue in alpha.qmgr.queues.items()
        if queue.ready
    }


DIVIDED = {"local:0": [(ONE,)], "local:1": [(TWO,)]}


async def test_a_start_divides_what_two_remailers_have_by_now(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with node(tmp_path, BOTH) as alpha:
        await waits(alpha, b"x" * 9000, ONE, TWO)
    async with node(tmp_path, MOVED) as alpha:
        await until(lambda: alpha.spool.waiting == 2)
        assert await readers(alpha) == DIVIDED
        [one], [two] = await at(alpha, "local:0"), await at(alpha, "local:1")
        assert one.content == two.content == b"x" * 9000
        assert one.id != two.id
        # It may lie in either Maildir: each looks before it writes.
        for place in DIVIDED:
            assert alpha.qmgr.may_lie_there(alpha.qmgr.queue(place).ready[0])
    async with node(tmp_path, MOVED) as alpha:
        assert await readers(alpha) == DIVIDED


async def deferred(alpha: Half, ref: Ref) -> None:
    alpha.qmgr.defer(ref)


async def led_back(alpha: Half, ref: Ref) -> None:
    alpha.qmgr.lead_back([ref])


async def given_back(alpha: Half, ref: Ref) -> None:
    alpha.qmgr.release("bravo", [ref])


async def changed(alpha: Half, ref: Ref) -> None:
    alpha.qmgr.queue("bravo").ready.append(ref)
    alpha.qmgr.reroute(lambda _: True, changed=True)


@pytest.mark.parametrize("back", [deferred, led_back, given_back, changed])
async def test_whatever_comes_back_is_routed_recipient_by_recipient(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    back: Callable[[Half, Ref], object],
) -> None:
    del autojump_clock, patience
    async with node(tmp_path, {"a@b": "bravo", "b@b": "bravo"}) as alpha:
        ref = await waits(alpha, b"x", "a@b", "b@b")
        alpha.qmgr.queue("bravo").ready.clear()
        alpha.routes["b@b"] = "charlie"
        await back(alpha, ref)  # type: ignore[misc]
        await until(lambda: alpha.spool.waiting == 2)
        await until(lambda: len(alpha.qmgr.queue("charlie").ready) == 1)
        assert await readers(alpha) == {"bravo": [("a@b",)], "charlie": [("b@b",)]}


async def test_a_crash_between_parts_and_forgetting_makes_the_same_parts_again(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with node(tmp_path / "a", BOTH) as alpha:
        await waits(alpha, b"x", ONE, TWO)
    ids: set[tuple[str, bytes]] = set()
    async with node(tmp_path / "a", MOVED) as alpha:
        forget = alpha.spool.forget

        def crash(ref: Ref) -> None:
            shutil.copytree(tmp_path / "a", tmp_path / "b")
            forget(ref)

        alpha.spool.forget = crash  # type: ignore[method-assign,assignment]
        await until(lambda: alpha.spool.waiting == 2)
        for place in DIVIDED:
            ids |= {(place, record.id) for record in await at(alpha, place)}
        assert (tmp_path / "b").exists()
    async with node(tmp_path / "b", MOVED) as alpha:
        assert alpha.spool.waiting == 3  # the whole is there too, and its parts
        await until(lambda: alpha.spool.waiting == 4)
        twice = {place: 2 * who for place, who in DIVIDED.items()}
        assert await readers(alpha) == twice
        for place in DIVIDED:
            records = await at(alpha, place)
            assert {(place, record.id) for record in records} <= ids


async def test_tries_and_doubts_are_the_parts_too(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with node(tmp_path, {"a@b": "bravo", "b@b": "bravo"}) as alpha:
        ref = await waits(alpha, b"x", "a@b", "b@b")
        alpha.qmgr.queue("bravo").ready.clear()
        record = alpha.spool.hot(ref)
        assert record is not None
        alpha.qmgr.doubt(ref)
        for _ in range(3):
            alpha.qmgr.settle(ref, record, [TRY_LATER] * 2, OUTSIDE)
            alpha.qmgr.take_deferred()
        alpha.routes["b@b"] = "charlie"
        alpha.qmgr.lead_back([ref])
        await until(lambda: alpha.spool.waiting == 2 and not alpha.quiet)
        for place in ("bravo", "charlie"):
            [part] = alpha.qmgr.queue(place).ready
            assert alpha.qmgr._waiting.attempts[part] == 3
            assert alpha.qmgr.may_lie_there(part)
        assert ref not in alpha.qmgr._waiting.attempts
        assert not alpha.qmgr.may_lie_there(ref)


async def test_without_room_the_whole_waits(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock, patience

    def full(*_: object) -> None:
        raise SpoolFullError("no room")

    async with node(tmp_path, BOTH) as alpha:
        await waits(alpha, b"x", ONE, TWO)
    async with node(tmp_path, MOVED) as alpha:
        with monkeypatch.context() as patch:
            patch.setattr(alpha.spool._groups, "insert", full)
            await until(lambda: alpha.qmgr.deferred)
            assert alpha.spool.waiting == 1
            assert not await readers(alpha)
        await until(lambda: alpha.spool.waiting == 2)
        assert await readers(alpha) == DIVIDED


async def test_what_is_damaged_is_in_no_list(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with node(tmp_path, BOTH) as alpha:
        await waits(alpha, b"x", ONE, TWO)
    async with node(tmp_path, MOVED) as alpha:
        [ref] = alpha.qmgr._leading._parted
        row, _ = alpha.spool._index.place(ref & 0xFFFFFFFF)
        alpha.spool._groups.delete([row])
        await until(lambda: alpha.spool.corrupt)
        assert not alpha.spool.waiting
        assert not alpha.qmgr.may_lie_there(ref)
    async with node(tmp_path, BOTH) as alpha:
        assert not alpha.spool.waiting


async def test_copies_are_made_a_few_at_a_time(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del autojump_clock
    monkeypatch.setattr(leading, "COPIES_MAX", 100)
    monkeypatch.setattr(parting, "COPIES_MAX", 100)
    names = [f"{number}@x" for number in range(5)]
    async with node(tmp_path, dict.fromkeys(names, "exit:")) as alpha:
        for _ in range(3):
            replies = alpha.submit(b"x" * 50, *names)
        await until(lambda: replies)
    most = 0
    async with node(tmp_path, {name: f"to-{name}" for name in names}) as alpha:
        accept = alpha.spool.accept

        def watched(records: list[Record], done: object) -> None:
            nonlocal most
            assert sum(len(record.content) for record in records) <= 100
            most = max(most, alpha.qmgr._leading._dividing)
            accept(records, done)  # type: ignore[arg-type]

        alpha.spool.accept = watched  # type: ignore[method-assign,assignment]
        with patience.slow_disk(alpha.spool):
            await trio.sleep(5)
            assert alpha.qmgr._leading._dividing == most == 0  # nothing could be read
        await until(lambda: alpha.spool.waiting == 15)
        await until(lambda: sum(len(q.ready) for q in alpha.qmgr.queues.values()) == 15)
        assert 0 < most <= 200
        assert alpha.qmgr._leading._dividing == 0
        assert await readers(alpha) == {f"to-{name}": [(name,)] * 3 for name in names}


async def test_who_was_taken_out_goes_back_to_the_head(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with node(tmp_path, {"a@b": "bravo"}) as alpha:
        ready = alpha.qmgr.queue("bravo").ready
        for number in range(4):
            alpha.submit(b"%d" % number, "a@b")
        await until(lambda: len(ready) == 4)
        woken: list[int] = []
        alpha.qmgr.queue("bravo").wake = lambda: woken.append(len(ready))
        taken = await Records(alpha.qmgr, alpha.qmgr.queue("bravo")).take(2)
        alpha.qmgr.release("bravo", [ref for ref, _ in taken])
        await until(lambda: woken)
        assert woken == [4]
        assert await alpha.arrived("bravo") == [b"0", b"1", b"2", b"3"]


async def test_one_that_does_not_open_is_not_put_back(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    del autojump_clock, patience
    async with node(tmp_path, {"a@b": "bravo"}) as alpha:
        ref = await waits(alpha, b"x", "a@b")
    async with node(tmp_path, {"a@b": "bravo"}) as alpha:
        ref = alpha.qmgr.queue("bravo").ready.popleft()
        row, _ = alpha.spool._index.place(ref & 0xFFFFFFFF)
        alpha.spool._groups.delete([row])
        alpha.qmgr.release("bravo", [ref])
        await until(lambda: alpha.spool.corrupt)
        assert not alpha.qmgr.queue("bravo").ready
        assert not alpha.qmgr.may_lie_there(ref)


@pytest.mark.parametrize("gone", ["exit:", UNROUTED])
async def test_mail_for_a_peer_never_leaves_by_port_25(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience, gone: str
) -> None:
    """Its file was damaged, or taken away, while the node was down."""
    del autojump_clock, patience
    both = {ONE: "bravo", TWO: "bravo"}
    async with node(tmp_path, both) as alpha:
        await waits(alpha, b"x" * 9000, ONE, TWO)
    async with node(tmp_path, {ONE: gone, TWO: "charlie"}) as alpha:
        await until(lambda: alpha.spool.waiting == 2)
        assert await readers(alpha) == {UNROUTED: [(ONE,)], "charlie": [(TWO,)]}
        alpha.routes[TWO] = "exit:"  # and then of the next one, in its life
        alpha.qmgr.reroute(lambda _: False, changed=True)
        await until(lambda: len(alpha.qmgr.queue(UNROUTED).ready) == 2)
        assert not alpha.qmgr.exits()
    async with node(tmp_path, both) as alpha:
        assert await readers(alpha) == {"bravo": [(ONE,), (TWO,)]}
