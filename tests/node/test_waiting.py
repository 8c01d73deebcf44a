# SPDX-License-Identifier: MIT
"""Lists in memory: what is due, what is known, which places there are."""

import trio
from trio.testing import MockClock

from mesh.core.retry import OUTSIDE
from mesh.node.index import Ref
from mesh.node.waiting import NEVER, Waiting
from tests.harness import FixedEntropy

ONE, TWO, THREE = Ref(1), Ref(2), Ref(3)


def test_a_queue_is_made_once_and_wakes_its_worker() -> None:
    waiting = Waiting(FixedEntropy())
    woken: list[int] = []
    queue = waiting.queue("bravo")
    queue.wake = lambda: woken.append(len(queue.ready))
    for ref in (ONE, TWO):
        waiting.enqueue(ref, "bravo")
    assert waiting.queue("bravo") is queue
    assert list(queue.ready) == [ONE, TWO]
    assert woken == [1, 2]


def test_what_its_taker_brought_for_himself_goes_first_and_nothing_else_does() -> None:
    """A heartbeat is not to wait behind all mail; it delays the mail of who sent it."""
    waiting = Waiting(FixedEntropy())
    queue = waiting.queue("bravo")
    waiting.enqueue(ONE, "bravo")
    waiting.enqueue(TWO, "bravo", b"")  # a remailer's own, and nobody's queue yet
    queue.own = b"b" * 16
    woken: list[Ref] = []
    queue.wake = lambda: woken.append(queue.ready[0])
    waiting.enqueue(THREE, "bravo", queue.own)
    assert list(queue.ready) == [THREE, ONE, TWO]
    assert woken == [THREE]
    waiting.enqueue(Ref(4), "bravo", b"c" * 16)
    assert list(queue.ready) == [THREE, ONE, TWO, Ref(4)]


async def test_places_outside_are_there_while_something_waits(
    autojump_clock: MockClock,
) -> None:
    del autojump_clock
    waiting = Waiting(FixedEntropy())
    for place in ("exit:x", "exit:", "bravo", "local:0", "?"):
        waiting.enqueue(ONE, place)
    assert waiting.exits() == []
    for _ in waiting.depart():
        pass
    assert sorted(waiting.exits()) == ["exit:", "exit:x"]
    for queue in waiting.queues.values():
        queue.ready.clear()
    assert waiting.exits() == []
    assert set(waiting.queues) == {"bravo", "local:0", "?"}


async def test_each_try_waits_longer(autojump_clock: MockClock) -> None:
    del autojump_clock
    waiting = Waiting(FixedEntropy())
    assert waiting.due == NEVER
    assert waiting.take_due(NEVER) == []
    waiting.defer(ONE, OUTSIDE)
    waiting.defer(TWO)
    assert waiting.due <= trio.current_time() + 1.25 * 5
    assert waiting.take_due(waiting.due - 1) == []
    assert waiting.take_due(waiting.due) == [TWO]
    waiting.defer(TWO)
    assert waiting.due > trio.current_time() + 0.75 * 10
    assert waiting.take_due(NEVER) == [TWO, ONE]
    assert waiting.attempts == {ONE: 1, TWO: 2}
    waiting.defer(THREE, OUTSIDE)
    waiting.defer(TWO)
    assert sorted(waiting.take_deferred()) == [TWO, THREE]
    assert waiting.take_deferred() == []


def test_what_is_known_of_a_record_goes_on_to_its_part() -> None:
    waiting = Waiting(FixedEntropy())
    waiting.attempts[ONE] = 7
    waiting.doubtful.add(ONE)
    waiting.inherit(TWO, ONE)
    waiting.forget(ONE)
    assert waiting.attempts == {TWO: 7}
    assert waiting.doubtful == {TWO}
    waiting.inherit(THREE, ONE)  # nothing is known of it
    assert THREE not in waiting.attempts
    assert THREE not in waiting.doubtful


def test_what_is_newer_stays_behind_what_is_older() -> None:
    old = {Ref(n) for n in range(10)}
    waiting = Waiting(FixedEntropy(), old.__contains__)
    waiting.reading = True
    woken: list[str] = []
    for place in ("bravo", "charlie"):
        waiting.queue(place).wake = lambda place=place: woken.append(place)  # type: ignore[misc]
    bravo = waiting.queue("bravo")
    waiting.enqueue(Ref(20), "bravo")  # nothing older is known: it may go
    waiting.enqueue(Ref(1), "bravo")
    waiting.enqueue(Ref(21), "bravo")
    waiting.enqueue(Ref(2), "bravo")
    assert list(bravo.ready) == [20, 1, 2]
    assert woken == ["bravo"] * 3
    waiting.let_up()
    assert list(bravo.ready) == [20, 1, 2]  # older ones are still there
    bravo.ready.clear()
    waiting.let_up()
    assert list(bravo.ready) == [21]
    assert woken == ["bravo"] * 4
    for ref in (3, 22, 4):
        waiting.enqueue(Ref(ref), "bravo")
    waiting.queue("exit:x").newer.append(Ref(23))
    assert waiting.exits() == []  # and it is not dropped
    waiting.all_read()
    assert list(bravo.ready) == [3, 4, 21, 22]
    assert waiting.exits() == ["exit:x"]
    waiting.enqueue(Ref(24), "bravo")
    assert list(bravo.ready) == [3, 4, 21, 22, 24]
    assert not bravo.newer


def test_what_was_there_before_is_doubtful() -> None:
    waiting = Waiting(FixedEntropy(), lambda ref: ref == ONE)
    assert waiting.is_doubtful(ONE)
    assert not waiting.is_doubtful(TWO)
    waiting.inherit(TWO, ONE)
    assert waiting.is_doubtful(TWO)
