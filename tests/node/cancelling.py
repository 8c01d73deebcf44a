# SPDX-License-Identifier: MIT
"""Operations cancelled at each of their checkpoints, one after the other.

    AT      the task has come to its k-th checkpoint: the cancellation hits it there
    AFTER   it has what it waited for and goes on: the cancellation hits the next one

k counts the steps of all tasks of the operation, from 1 until it ends by itself.  After
each run nothing may be left of it: no task, no descriptor, no child, no thread, no key;
and what it promised must hold, which operations.py knows.  The world around it is the
same for all runs of an operation, as a node's is: what one leaves behind the next meets.

`python -m tests.node.cancelling --all` cuts every step and prints how many; scripts/cancel.
"""

import argparse
import enum
import gc
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing
from rich.console import Console
from rich.progress import Progress, TaskID

from tests.handshakes import live_keys, settled_keys
from tests.harness import Patience, patient_clock

STEPS_MAX = 1_000
"""An operation that has not ended by then never does."""
REAL_SECONDS = 20.0
"""For one run in real time: what then still runs hangs."""


class When(enum.Enum):
    """Where in a step the cancellation comes."""

    AT = "at"
    AFTER = "after"


class Cut(trio.abc.Instrument):
    """Cancels an operation at one of its steps."""

    def __init__(self, step: int, when: When) -> None:
        self._left, self._when = step, when
        self.steps = 0
        """Taken until now."""
        self._root: trio.lowlevel.Task | None = None
        self.scope = trio.CancelScope()
        self.came = False

    async def run(self, act: Callable[[], Awaitable[None]]) -> None:
        """Run the operation, and be there when it is cut; it raises nothing of its own."""

        async def rooted() -> None:
            self._root = trio.lowlevel.current_task()
            with self.scope:
                await act()
            self._left = 0

        trio.lowlevel.add_instrument(self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rooted)
        finally:
            trio.lowlevel.remove_instrument(self)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._when is When.AT:
            self._step(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._when is When.AFTER and self._root is not None:
            self._step(task)

    def _step(self, task: trio.lowlevel.Task) -> None:
        if not self._is_ours(task):
            return
        self.steps += 1
        if self._left:
            self._left -= 1
            if not self._left:
                self.came = True
                self.scope.cancel()

    def _is_ours(self, task: trio.lowlevel.Task) -> bool:
        one: trio.lowlevel.Task | None = task
        while one is not None and one is not self._root:
            one = one.parent_nursery.parent_task if one.parent_nursery else None
        return one is not None


def _tasks() -> Counter[str]:
    found: Counter[str] = Counter()
    waiting = [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        if task is not None:
            found[task.name] += 1
            waiting += [t for n in task.child_nurseries for t in n.child_tasks]
    return found


def _files() -> Counter[str]:
    found: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder itself
            found[str(link.readlink()).partition(":[")[0]] += 1
    return found


def _children() -> Counter[str]:
    """Processes of ours, also those that nobody has waited for."""
    found: Counter[str] = Counter()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):
            found.update((thread / "children").read_text().split())
    return found


def _threads() -> Counter[str]:
    """Threads that are not trio's, which idle for a while and then end."""
    names = (each.name for each in threading.enumerate())
    return Counter(name for name in names if not name.startswith("Trio thread"))


@dataclass
class Left:
    """What there is of everything that an operation may leave behind."""

    tasks: Counter[str]
    files: Counter[str]
    children: Counter[str]
    threads: Counter[str]
    keys: int

    @classmethod
    def now(cls) -> "Left":
        return cls(_tasks(), _files(), _children(), _threads(), settled_keys())

    def compare(self) -> None:
        """AssertionError names what is there that was not, or is not that was."""
        for name, before, now in (
            ("tasks", self.tasks, _tasks()),
            ("files", self.files, _files()),
            ("children", self.children, _children()),
            ("threads", self.threads, _threads()),
        ):
            assert now == before, f"{name}: more {now - before}, fewer {before - now}"
        if live_keys() != self.keys:  # a forgotten frame may have some: look again
            assert settled_keys() == self.keys, f"{live_keys()} keys of {self.keys}"


async def _nothing() -> None:
    """What an operation needs to begin with."""


@dataclass
class Trial:
    """An operation in its world."""

    act: Callable[[], Awaitable[None]]
    check: Callable[[bool], Awaitable[None]]
    """AssertionError when something promised does not hold; told whether it was cut."""
    prepare: Callable[[], Awaitable[None]] = _nothing
    settle: float = 1.0
    """Seconds until all that knows of the operation knows of its end."""
    keys: bool = True
    """Keys are counted: the world itself makes none and drops none."""


Making = Callable[[Path], AbstractAsyncContextManager[Trial]]


@dataclass(frozen=True)
class Operation:
    """How to make its world, and whether time there is real."""

    make: Making
    real: bool = False


async def _round(trial: Trial, cut: Cut, left: Left | None) -> None:
    await trial.prepare()
    with trio.fail_after(REAL_SECONDS if left and not trial.settle else 1e9):
        await cut.run(trial.act)
    await trio.sleep(trial.settle)
    await trial.check(cut.came)
    if left is not None:
        if not trial.keys:
            left.keys = live_keys()
        left.compare()


Plan = Callable[[int], Iterable[tuple[When, Iterable[int]]]]
"""Of so many steps: where to cut; a list of steps ends when one was not reached."""


def each(stride: int = 1) -> Plan:
    """Cut at every step, or at every so many."""
    return lambda _: ((when, count(1, stride)) for when in When)


@dataclass(frozen=True)
class Some:
    """Cut at so many steps in the middle of equal stretches, AT and AFTER by turns."""

    cuts: int
    turn: int = 0

    def __call__(self, steps: int) -> Iterator[tuple[When, Iterable[int]]]:
        """Give one step at a time."""
        for number in range(self.cuts):
            step = 1 + (2 * number + 1) * steps // (2 * self.cuts)
            yield list(When)[(number + self.turn) % len(When)], [step]


async def cancel_each(
    operation: Operation, folder: Path, plan: Plan
) -> AsyncIterator[int]:
    """Cut an operation at its steps, each or some; gives the count after each."""
    done = 0
    async with operation.make(folder) as trial:
        await _round(trial, Cut(0, When.AT), None)  # what is made once for all is made
        whole = Cut(0, When.AT)
        await _round(trial, whole, None)
        left = Left.now()
        for when, steps in plan(whole.steps):
            for step in steps:
                assert step < STEPS_MAX
                cut = Cut(step, when)
                try:
                    await _round(trial, cut, left)
                except AssertionError as error:
                    raise AssertionError(
                        f"cut {when.value} step {step}: {error}"
                    ) from error
                if not cut.came:
                    break
                done += 1
                yield done
        await _round(trial, Cut(0, When.AT), left)


def run_one(
    operation: Operation,
    plan: Plan | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> int:
    """Cut one operation at its steps in a world of its own; how many cuts that were."""
    gc.collect()  # whatever others left is not ours

    async def run() -> int:
        done = 0
        async for done in cancel_each(operation, Path(folder), plan or each()):
            told(done)
        return done

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if operation.real:
            return trio.run(run)
        return trio.run(run, clock=patient_clock(Patience(patch)))


def main(words: Iterable[str] | None = None) -> int:
    """Run the command."""
    from tests.node.operations import OPERATIONS

    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/cancel")
    parser.add_argument("--all", action="store_true", help="every step, not each fifth")
    parser.add_argument("only", nargs="*", help="operations: " + ", ".join(OPERATIONS))
    chosen = parser.parse_args(None if words is None else list(words))
    names = chosen.only or list(OPERATIONS)
    gc.freeze()
    total = failed = 0
    with Progress() as progress:
        bar = progress.add_task("", total=len(names))
        for name in names:
            done, found = _try(name, 1 if chosen.all else 5, progress, bar)
            progress.console.print(f"{name:16} {done:5}  {found}", soft_wrap=True)
            total, failed = total + done, failed + (found != NOTHING)
            progress.advance(bar)
    Console().print(f"{total} cancellations, {failed} operations that left something")
    return 1 if failed else 0


NOTHING: Final = "nothing left"


def _try(name: str, stride: int, progress: Progress, bar: TaskID) -> tuple[int, str]:
    """Cut one operation, and say how often and what was found."""
    from tests.node.operations import OPERATIONS

    done = 0

    def told(cuts: int) -> None:
        nonlocal done
        done = cuts
        progress.update(bar, description=f"{name}: {cuts}")

    told(0)
    try:
        run_one(OPERATIONS[name], each(stride), told=told)
    except Exception as error:
        return done, repr(error)
    return done, NOTHING


if __name__ == "__main__":
    sys.exit(main())
