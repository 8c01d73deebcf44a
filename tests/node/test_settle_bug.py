# SPDX-License-Identifier: MIT
"""A bug while the replies to a message are weighed: it is tried again, and comes once.

Whoever had the message has taken it out of its lists by then; it must be in one of them
again, and not in two.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from mesh.core.bounce import judge
from mesh.core.dialogue import MessageReceived
from mesh.core.reply import OK, TRY_LATER, Reply
from mesh.node import settling
from mesh.node.lmtp import SHARE
from mesh.node.visit import Cargo, Visit
from tests.harness import Half, Patience, connect, half, until
from tests.node.exits import WHO, exit_node, stored, visit_of
from tests.node.test_delivery import (
    TO,
    Server,
    alpha_half,
    found,
    lmtp,
    lmtp_delivery,
    maildir_delivery,
)
from tests.node.test_pipe import piped, program

SECRET = "who@secret.example"


class Judge:
    """Breaks at its first call, and then does what it is to do."""

    def __init__(self, judge: Callable[..., object]) -> None:
        self._judge = judge
        self.calls = 0

    def __call__(self, *args: object, **options: object) -> object:
        self.calls += 1
        if self.calls == 1:
            raise RuntimeError(SECRET)
        return self._judge(*args, **options)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    broken = Judge(judge)
    monkeypatch.setattr(settling, "judge", broken)
    yield broken
    assert broken.calls


def listed(alpha: Half, place: str) -> tuple[int, int]:
    """How many are ready for a place, and how many are deferred."""
    return len(alpha.qmgr.queue(place).ready), alpha.qmgr.deferred


async def test_on_a_link(
    tmp_path: Path, once: Judge, autojump_clock: MockClock, patience: Patience
) -> None:
    async with (
        half(tmp_path, "alpha", {"mix@bravo": "bravo"}) as alpha,
        half(tmp_path, "bravo", {}) as bravo,  # which has no such address
        trio.open_nursery() as nursery,
    ):
        with alpha.qmgr.guard():  # as whoever serves a connection has one
            async with trio.open_nursery() as link:
                await connect(link, alpha, bravo)
                alpha.submit(b"x\r\n", "mix@bravo")
                await trio.sleep(60)
        await trio.sleep(0.1)
        assert listed(alpha, "bravo") == (0, 1)
        bravo.routes["mix@bravo"] = "local:0"
        await connect(nursery, alpha, bravo, counter=2)
        await until(lambda: alpha.quiet, 3_000)
        assert await bravo.arrived() == [b"x\r\n"]
        nursery.cancel_scope.cancel()


async def test_of_an_lmtp_server(
    tmp_path: Path, once: Judge, autojump_clock: MockClock
) -> None:
    answers = [(TRY_LATER,), (OK,)]

    def answer(_: MessageReceived) -> tuple[Reply, ...]:
        return answers.pop(0)

    async with lmtp(tmp_path, answer) as (alpha, server, _):
        alpha.submit(b"x\r\n", TO)
        await until(lambda: alpha.spool.waiting)
        await until(lambda: alpha.quiet, 3_000)
        assert len(server.messages) == 2
        assert alpha.qmgr.guard.bugs == 1


async def test_of_an_lmtp_connection_that_ends_by_a_bug(
    tmp_path: Path, once: Judge, autojump_clock: MockClock
) -> None:
    """Two are under way then; that both were tried breaks too, at the first."""
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        server = Server(tmp_path / "lmtp.sock")
        server.slow = 1e6
        nursery.start_soon(server.run)
        delivery = lmtp_delivery(alpha, tmp_path / "lmtp.sock")
        nursery.start_soon(delivery.run)
        for _ in range(SHARE):
            alpha.submit(b"x\r\n", TO)
        await until(lambda: any(len(c.flying) > 1 for c in delivery._connections))
        flying = sum(len(c.flying) for c in delivery._connections)
        delivery.end()
        for connection in list(delivery._connections):
            with alpha.qmgr.guard(connection.drop):
                raise RuntimeError(SECRET)
        await until(lambda: not delivery._connections)
        await trio.sleep(0.1)
        ready, deferred = listed(alpha, "local:0")
        assert ready + deferred + len(delivery._fetched) == SHARE
        assert deferred in (1, flying)
        nursery.cancel_scope.cancel()


async def test_of_a_maildir(
    tmp_path: Path, once: Judge, autojump_clock: MockClock
) -> None:
    maildir = tmp_path / "later" / "Maildir"
    async with alpha_half(tmp_path) as alpha, trio.open_nursery() as nursery:
        nursery.start_soon(maildir_delivery(alpha, maildir).run)
        alpha.submit(b"hello\r\n", TO)
        await until(lambda: once.calls)
        maildir.parent.mkdir()
        await until(lambda: alpha.quiet, 3_000)
        assert found(maildir) == [b"hello\n"]
        assert alpha.qmgr.guard.bugs == 1
        nursery.cancel_scope.cancel()


async def test_of_a_program(tmp_path: Path, once: Judge) -> None:
    """In real time: a fake clock does not wait for a program."""
    body = """
if not (out / "tried").exists():
    (out / "tried").touch()
    sys.exit(75)
(out / "taken").touch()
"""
    argv = program(tmp_path, body.replace("out /", "pathlib.Path(out) /"))
    async with piped(tmp_path, argv) as alpha:
        alpha.submit(b"hello\r\n", "mix@a.test")
        await until(lambda: alpha.qmgr.deferred == 1, 60)
        alpha.qmgr.lead_back(alpha.qmgr.take_deferred())
        await until(lambda: (tmp_path / "taken").exists(), 60)
        await until(lambda: alpha.quiet)
        assert alpha.qmgr.guard.bugs == 1


async def test_of_a_visit(tmp_path: Path, once: Judge) -> None:
    async with exit_node(tmp_path, {}, tick=3_600.0) as (alpha, _):
        await stored(alpha, b"x\r\n", WHO)
        visit = visit_of(alpha)
        taken = await visit.take()
        assert taken is not None
        with pytest.raises(RuntimeError):
            visit.finished(taken[0], [TRY_LATER])
        visit.end()
        await trio.testing.wait_all_tasks_blocked()
        assert listed(alpha, "exit:x.test") == (0, 1)


@pytest.mark.parametrize("late", [False, True], ids=["when read", "when sent"])
async def test_of_whom_nothing_is_sent_to_any_more(
    tmp_path: Path, once: Judge, late: bool
) -> None:
    wants = [not late]
    async with exit_node(tmp_path, {}, tick=3_600.0) as (alpha, _):
        await stored(alpha, b"x\r\n", WHO)
        alpha.tick()
        visit = Visit(alpha.qmgr, "exit:x.test", lambda _: wants[0], Cargo())
        if late:
            assert await visit.has_more()
            wants[0] = True
        with pytest.raises(RuntimeError):
            await visit.take()
        visit.end()
        await trio.testing.wait_all_tasks_blocked()
        assert listed(alpha, "exit:x.test") == (0, 1)
        assert not visit.is_laden


@pytest.mark.parametrize("late", [False, True], ids=["when read", "when sent"])
async def test_of_who_does_not_know_whether_he_wants_mail(
    tmp_path: Path, late: bool
) -> None:
    """There it is weighed before it leaves its place."""
    breaks = [not late]

    def refuses(_: str) -> bool:
        if breaks[0]:
            raise RuntimeError(SECRET)
        return False

    async with exit_node(tmp_path, {}, tick=3_600.0) as (alpha, _):
        await stored(alpha, b"x\r\n", WHO)
        alpha.tick()
        visit = Visit(alpha.qmgr, "exit:x.test", refuses, Cargo())
        if late:
            assert await visit.has_more()
            breaks[0] = True
        with pytest.raises(RuntimeError):
            await visit.take()
        visit.end()
        await trio.testing.wait_all_tasks_blocked()
        assert listed(alpha, "exit:x.test") == (1, 0)
