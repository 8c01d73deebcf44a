# SPDX-License-Identifier: MIT
"""Records between their commit and their end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.reply import OK, TRY_LATER
from mesh.errors import SpoolFullError
from mesh.node import qmgr as qmgr_
from mesh.node.qmgr import FULL, MANY, STORED
from mesh.node.routing import UNROUTED
from mesh.node.spool import Ref
from tests.harness import Half, Patience, half, until
from tests.node.besides import Reader

ROUTES = {"a@b": "bravo", "b@b": "bravo", "c@c": "charlie", "m@a": "local:0"}


@asynccontextmanager
async def alpha_half(folder: Path, **routes: str) -> AsyncIterator[Half]:
    async with half(folder, "alpha", ROUTES | routes) as made:
        yield made


async def refs_of(alpha: Half, place: str, *recipients: str) -> list[Ref]:
    alpha.submit(b"x\r\n", *recipients)
    queue = alpha.qmgr.queue(place)
    await until(lambda: queue.ready)
    refs = list(queue.ready)
    queue.ready.clear()
    return refs


async def recipients_at(alpha: Half, place: str) -> list[tuple[str, ...]]:
    heads = await alpha.spool.heads(list(alpha.qmgr.queue(place).ready))
    return [head.recipients for head in heads if head]


async def test_one_record_a_place(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with alpha_half(tmp_path) as alpha:
        woken: list[str] = []
        for place in ("bravo", "charlie", UNROUTED):
            alpha.qmgr.queue(place).wake = lambda place=place: woken.append(place)  # type: ignore[misc]
        replies = alpha.submit(b"x\r\n", "a@b", "c@c", "m@a", "b@b", "gone@x")
        assert not replies  # nothing is promised before the commit
        await until(lambda: replies)
        assert replies == [STORED]
        assert await recipients_at(alpha, "bravo") == [("a@b", "b@b")]
        assert await recipients_at(alpha, "charlie") == [("c@c",)]
        assert await recipients_at(alpha, "local:0") == [("m@a",)]
        assert await recipients_at(alpha, UNROUTED) == [("gone@x",)]
        assert sorted(woken) == [UNROUTED, "bravo", "charlie"]
        queues = [alpha.qmgr.queue(place).ready for place in ("bravo", "charlie")]
        ids = {r.id for q in queues for r in await alpha.spool.heads(list(q)) if r}
        assert len(ids) == 2


async def test_an_envelope_that_no_head_holds_is_divided(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    many = [f"{number:03d}{'x' * 50}@b" for number in range(60)]
    async with alpha_half(tmp_path, **dict.fromkeys(many, "bravo")) as alpha:
        replies = alpha.submit(b"x\r\n", *many)
        await until(lambda: replies)
        parts = await recipients_at(alpha, "bravo")
        assert len(parts) > 1
        assert [each for part in parts for each in part] == many


async def test_too_many_copies_are_refused_at_once(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qmgr_, "COPIES_MAX", 1000)
    async with alpha_half(tmp_path) as alpha:
        assert alpha.submit(b"x" * 600, "a@b", "c@c") == [MANY]
        replies = alpha.submit(b"x" * 600, "a@b", "b@b")  # one place: one record
        await until(lambda: replies)
        assert replies == [STORED]


async def test_a_full_disk_is_said_so(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with alpha_half(tmp_path) as alpha:
        (ref,) = await refs_of(alpha, "bravo", "a@b", "b@b")
        record = alpha.spool.hot(ref)
        assert record is not None

        def full(*_: object) -> None:
            raise SpoolFullError("no room")

        monkeypatch.setattr(alpha.spool._groups, "insert", full)
        replies = alpha.submit(b"x\r\n", "a@b")
        await until(lambda: replies)
        assert replies == [FULL]
        # Part of a message was taken: the whole of it waits, and nothing is lost.
        assert not alpha.qmgr.settle(ref, record, [OK, TRY_LATER])
        await trio.sleep(2)
        monkeypatch.undo()
        await until(lambda: alpha.qmgr.queue("bravo").ready)
        assert await recipients_at(alpha, "bravo") == [("a@b", "b@b")]


async def test_refused_by_all_is_deferred_longer_each_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        (ref,) = await refs_of(alpha, "bravo", "a@b", "b@b")
        waits = []
        for _ in range(4):
            record = alpha.spool.hot(ref)
            assert record is not None
            started = trio.current_time()
            assert not alpha.qmgr.settle(ref, record, [TRY_LATER] * 2)
            queue = alpha.qmgr.queue("bravo")
            await until(lambda queue=queue: queue.ready)  # type: ignore[misc]
            assert queue.ready.popleft() == ref
            waits.append(trio.current_time() - started)
        for number, wait in enumerate(waits):
            assert 0.75 * 5 * 2**number <= wait <= 1.25 * 5 * 2**number + 0.1


async def test_partial_success_leaves_a_record_of_the_rest(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        (ref,) = await refs_of(alpha, "bravo", "a@b", "b@b")
        record = alpha.spool.hot(ref)
        assert record is not None
        assert not alpha.qmgr.settle(ref, record, [OK, TRY_LATER])
        await until(lambda: alpha.qmgr.queue("bravo").ready)
        assert await recipients_at(alpha, "bravo") == [("b@b",)]
        assert alpha.spool.waiting == 1
        (rest,) = alpha.qmgr.queue("bravo").ready
        (whole,) = await alpha.spool.read([rest])
        assert whole is not None
        assert (whole.content, whole.id != record.id) == (b"x\r\n", True)
        assert alpha.qmgr.settle(rest, whole, [OK])
        durable: list[bool] = []
        alpha.qmgr.delivered(rest, lambda: durable.append(True))
        await until(lambda: durable)
        assert not alpha.spool.waiting


async def test_unrouted_mail_goes_when_somebody_serves_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        for number in range(70):
            alpha.submit(b"%d\r\n" % number, "new@d")
        await until(lambda: len(alpha.qmgr.queue(UNROUTED).ready) == 70)
        woken: list[bool] = []
        alpha.qmgr.queue("delta").wake = lambda: woken.append(True)
        alpha.routes["new@d"] = "delta"
        await trio.sleep(60)
        alpha.qmgr.reroute(lambda _: True, changed=False)
        await trio.sleep(1)
        assert not woken  # nothing has changed
        alpha.qmgr.reroute(lambda _: True, changed=True)
        await until(lambda: len(alpha.qmgr.queue("delta").ready) == 70)
        assert len(woken) == 70
        assert not alpha.qmgr.queue(UNROUTED).ready


async def test_mail_of_a_peer_that_left_is_routed_anew(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        (ref,) = await refs_of(alpha, "bravo", "a@b")
        alpha.routes["a@b"] = "delta"
        alpha.qmgr.reroute(lambda place: place != "bravo", changed=True)
        alpha.qmgr.release("bravo", [ref])  # the link's end comes after the change
        alpha.qmgr.reroute(lambda place: place != "bravo", changed=False)
        await until(lambda: alpha.qmgr.queue("delta").ready)
        # A deferred one finds its new place too.
        (ref,) = alpha.qmgr.queue("delta").ready
        alpha.qmgr.queue("delta").ready.clear()
        alpha.qmgr.defer(ref)
        alpha.routes["a@b"] = "echo"
        await until(lambda: alpha.qmgr.queue("echo").ready)


async def test_released_records_keep_their_order(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        queue = alpha.qmgr.queue("bravo")
        for number in range(4):
            alpha.submit(b"%d\r\n" % number, "a@b")
        await until(lambda: len(queue.ready) == 4)
        before = list(queue.ready)
        taken = [queue.ready.popleft(), queue.ready.popleft()]
        alpha.qmgr.release("bravo", taken)
        await until(lambda: len(queue.ready) == 4)
        assert list(queue.ready) == before


async def test_what_waited_is_found_again_and_in_doubt(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        for to in ("a@b", "m@a", "gone@x"):
            alpha.submit(to.encode() + b"\r\n", to)
        await until(lambda: alpha.spool.waiting == 3)
        (ref,) = alpha.qmgr.queue("local:0").ready
        assert not alpha.qmgr.may_lie_there(ref)
    async with alpha_half(tmp_path, **{"gone@x": "bravo"}) as alpha:
        assert await alpha.arrived("bravo") == [b"a@b\r\n", b"gone@x\r\n"]
        (ref,) = alpha.qmgr.queue("local:0").ready
        assert alpha.qmgr.may_lie_there(ref)
        alpha.qmgr.delivered(ref)
        assert not alpha.qmgr.may_lie_there(ref)
        await until(lambda: alpha.spool.waiting == 2)


async def test_a_record_that_does_not_open_leaves_every_list(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with alpha_half(tmp_path) as alpha:
        alpha.submit(b"x\r\n", "gone@x")
        await until(lambda: alpha.spool.waiting)
    async with alpha_half(tmp_path) as alpha:
        (ref,) = alpha.qmgr.queue(UNROUTED).ready
        row, _ = alpha.spool._index.place(ref & 0xFFFFFFFF)
        alpha.spool._groups.delete([row])
        alpha.qmgr.reroute(lambda _: True, changed=True)
        await until(lambda: alpha.spool.corrupt)
        assert not alpha.qmgr.may_lie_there(ref)
        assert not alpha.spool.waiting


async def test_peers_that_change_during_a_commit_are_not_missed(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with alpha_half(tmp_path) as alpha:
        with patience.slow_disk(alpha.spool):
            replies = alpha.submit(b"x\r\n", "a@b", "new@d")
            alpha.routes |= {"new@d": "delta", "a@b": "charlie"}
            alpha.qmgr.reroute(lambda _: True, changed=True)
            assert not replies
        await until(lambda: alpha.qmgr.queue("delta").ready)
        await until(lambda: alpha.qmgr.queue("charlie").ready)
        assert not alpha.qmgr.queue("bravo").ready
        assert not alpha.qmgr.queue(UNROUTED).ready


async def test_peers_that_change_during_a_sweep_are_not_missed(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(qmgr_, "SWEEP_SECONDS", 10.0)
    async with alpha_half(tmp_path) as alpha:
        alpha.submit(b"x\r\n", "new@d")
        await until(lambda: alpha.qmgr.queue(UNROUTED).ready)
        heads = alpha.spool.heads
        held: list[trio.Event] = []

        async def slow(refs: list[Ref]) -> object:
            if not held:
                held.append(trio.Event())
                await held[0].wait()
            return await heads(refs)

        monkeypatch.setattr(alpha.spool, "heads", slow)
        await until(lambda: held)
        alpha.routes["new@d"] = "delta"
        alpha.qmgr.reroute(lambda _: True, changed=True)
        held[0].set()
        await until(lambda: alpha.qmgr.queue("delta").ready)
        # Nor does a sweep that finds nothing new keep anybody from their queue.
        woken: list[bool] = []
        alpha.qmgr.queue("delta").wake = lambda: woken.append(True)
        await until(lambda: woken)
        assert len(alpha.qmgr.queue("delta").ready) == 1


async def test_a_large_spool_is_led_to_its_places_beside(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with alpha_half(tmp_path) as alpha:
        for n in range(9):
            alpha.submit(b"%d\r\n" % n, "a@b")
        alpha.submit(b"two\r\n", "a@b", "m@a")
        await until(lambda: alpha.spool.waiting == 11)
    with pytest.MonkeyPatch.context() as patch:
        reader = Reader(patch)
        async with alpha_half(tmp_path) as alpha:
            queue = alpha.qmgr.queue("bravo")
            reader.go_on(2)
            await until(lambda: len(queue.ready) >= 2)
            assert not alpha.spool.is_indexed
            alpha.submit(b"new\r\n", "a@b")
            await until(lambda: queue.newer)
            reader.go_on()
            await until(lambda: alpha.spool.is_indexed)
            arrived = await alpha.arrived("bravo")
            assert arrived == [
                *(b"%d\r\n" % n for n in range(9)),
                b"two\r\n",
                b"new\r\n",
            ]
            assert list(map(alpha.qmgr.may_lie_there, queue.ready)) == [True] * 10 + [
                False
            ]


async def test_routes_that_change_meanwhile_count_for_the_newer_ones_too(
    tmp_path: Path, autojump_clock: MockClock, patience: Patience
) -> None:
    async with alpha_half(tmp_path) as alpha:
        for n in range(5):
            alpha.submit(b"%d\r\n" % n, "a@b")
        await until(lambda: alpha.spool.waiting == 5)
    with pytest.MonkeyPatch.context() as patch:
        reader = Reader(patch)
        async with alpha_half(tmp_path) as alpha:
            queue = alpha.qmgr.queue("bravo")
            reader.go_on(1)
            await until(lambda: queue.ready)
            alpha.submit(b"new\r\n", "a@b")
            await until(lambda: queue.newer)
            alpha.routes["a@b"] = "charlie"
            alpha.qmgr.reroute(lambda _: True, changed=True)
            assert not queue.newer
            reader.go_on()
            await until(lambda: len(alpha.qmgr.queue("charlie").ready) == 6)
            assert not queue.ready
