# SPDX-License-Identifier: MIT
"""Delivery into a program: `deliver = "pipe:/usr/bin/mixmaster -R"`.

    argv       split as a shell would, run without one
    stdin      the whole message with LF line ends, as a file in memory: a program that
               does not read it blocks nobody, and a node that dies leaves no half one;
               20 MB are converted by the thread that starts it, in pieces, so that the
               Trio thread never waits 5 ms for the interpreter
    environ    PATH, HOME, USER, LOGNAME and nothing else; working directory /
    stdout     thrown away, stderr too: what a program says may name a recipient
    exit       sysexits.py; past LIMIT_SECONDS the program's group is killed: not now

One program at a time for each remailer.  It is the leader of a group of its own, which
ends with the node: SIGTERM, END_SECONDS, SIGKILL; a node that is killed takes the
program with it (PR_SET_PDEATHSIG).  What the program leaves running when it ends by
itself is its own affair.  setpriv(1) says that to the kernel, because what Python runs
between fork and exec needs a copy of the node's memory, and the Trio thread stands
still for it: 3 ms with 100 MB, 15 with 300.  Only where it is not there does Python.
One that the kernel does not let go of, because its disk does
not answer, holds up its own remailer's mail and nothing else: the node ends without it.

A program that was running when the node crashed is run again with the same message.
"""

import ctypes
import math
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, Final

import trio

from mesh.core.content import to_lf
from mesh.core.drop import pieces
from mesh.core.record import Record
from mesh.core.reply import Reply
from mesh.core.sysexits import NOT_NOW, reply_of
from mesh.node.parking import Parking
from mesh.node.qmgr import QueueManager
from mesh.node.records import Records
from mesh.node.writer import Writer

LIMIT_SECONDS: Final = 600.0
"""For one message: Mixmaster's slowest pool takes seconds; a program that waits for
something else for so long waits for ever."""
LOOK_SECONDS: Final = 0.1
"""Between two looks at a program that cannot be waited for."""
END_SECONDS: Final = 1.0
"""Between SIGTERM and SIGKILL when the node ends; it has 10 s for everything."""
KILL_SECONDS: Final = 0.5
"""After SIGKILL, and for a start under way: what lasts longer is in the kernel's hands."""
PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
PR_SET_PDEATHSIG: Final = 1
_PRCTL: Final = ctypes.CDLL(None).prctl


class PipeDelivery:
    """One remailer's program."""

    def __init__(
        self,
        *,
        argv: Sequence[str],
        destination: str,
        qmgr: QueueManager,
        limit_seconds: float = LIMIT_SECONDS,
    ) -> None:
        self._argv = tuple(argv)
        self._qmgr = qmgr
        self._limit_seconds = limit_seconds
        queue = qmgr.queue(destination)
        self._records = Records(qmgr, queue)
        self._release = partial(qmgr.release, destination)
        self._parking = Parking()
        queue.wake = self._parking.wake
        # Its own thread and not one of Trio's, which end when idle: PDEATHSIG means
        # the thread that made the program.
        self._thread = Writer()
        self._starting = False
        self._ending = False
        self.busy = False
        """The program runs."""

    def end(self) -> None:
        """Begin nothing new."""
        self._ending = True

    async def run(self) -> None:
        """Deliver for ever."""
        self._thread.start()
        try:
            while True:
                if self._ending or not self._records:
                    self.busy = False
                    await self._parking.park()
                    continue
                self.busy = True
                for ref, record in await self._records.take(1):
                    reply = NOT_NOW
                    try:
                        with self._qmgr.guard():
                            reply = await self._deliver(record)
                    except trio.Cancelled:
                        self._release([ref])
                        raise
                    with self._qmgr.guard():
                        replies = [reply] * len(record.recipients)
                        if self._qmgr.settle(ref, record, replies):
                            self._qmgr.delivered(ref)
        finally:
            if not self._starting:  # else it hangs, and what it starts dies with it
                await self._thread.stop()

    async def _deliver(self, record: Record) -> Reply:
        """Run the program once; what its end says."""
        process = await self._begin(record.content)
        if process is None:
            return NOT_NOW
        in_time = False
        try:
            in_time = await _ended(process, self._limit_seconds)
        finally:
            await _end(process)
        if in_time:
            return reply_of(process.wait())
        await _ended(process, math.inf)  # nobody runs beside one that nothing ends
        return NOT_NOW

    async def _begin(self, content: bytes) -> "subprocess.Popen[bytes] | None":
        """Start the program on the thread; cancelled, end it when it starts soon."""
        outcome: list[Any] = []
        known = trio.Event()

        def started(process: Any, error: BaseException | None) -> None:
            self._starting = False
            outcome.extend((process, error))
            known.set()

        self._starting = True
        self._thread.submit(partial(_try_start, self._argv, content), started)
        try:
            await known.wait()
        except trio.Cancelled:
            with trio.move_on_after(KILL_SECONDS, shield=True):
                await known.wait()
            begun = outcome[0] if outcome else None
            if not (begun is None or isinstance(begun, Exception)):
                await _end(begun)
            raise
        process, error = outcome
        if error is None and isinstance(process, Exception):
            error = process
        if error is not None:
            raise error
        return process  # type: ignore[no-any-return]


@cache
def _launcher() -> tuple[str, ...]:
    """Find a setpriv(1) that knows of parents' deaths (busybox's does not)."""
    found = shutil.which("setpriv", path=PATH)
    words = (found or "", "--pdeathsig", "KILL", "--")
    try:
        done = subprocess.run(  # noqa: S603  # it runs itself
            [*words, words[0], "--version"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return ()
    return () if done.returncode else words


def _try_start(
    argv: Sequence[str], content: bytes
) -> "subprocess.Popen[bytes] | Exception | None":
    """Start it; a bug is a result too, for a thread that failed works no more."""
    try:
        return _start(argv, content)
    except Exception as bug:  # raised again where it counts
        return bug


def _start(argv: Sequence[str], content: bytes) -> "subprocess.Popen[bytes] | None":
    """Start the program in a group of its own; None: it cannot be started."""
    memory = -1
    try:
        memory = os.memfd_create("message", os.MFD_CLOEXEC)
        with os.fdopen(memory, "w+b") as file:
            for piece in pieces(memoryview(content)):
                file.write(to_lf(piece))
            file.seek(0)
            launcher = _launcher()
            return subprocess.Popen(  # noqa: S603  # the operator's words, no shell
                [*launcher, *argv],
                stdin=file,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
                start_new_session=True,
                preexec_fn=None if launcher else _die_with_the_node,
            )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _die_with_the_node() -> None:
    """Between fork and exec: one system call, nothing that could wait for a lock."""
    _PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)


def _environment() -> dict[str, str]:
    try:
        us = pwd.getpwuid(os.geteuid())
    except KeyError:
        return {"PATH": PATH, "HOME": "/"}
    name = us.pw_name
    return {"PATH": PATH, "HOME": us.pw_dir, "USER": name, "LOGNAME": name}


async def _ended(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Wait until it has ended, for so long; False: it goes on."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:  # no descriptor left: look now and then
        with trio.move_on_after(seconds):
            while process.poll() is None:  # noqa: ASYNC110
                await trio.sleep(LOOK_SECONDS)
        return process.poll() is not None
    try:
        with trio.move_on_after(seconds):
            await trio.lowlevel.wait_readable(handle)
        return process.poll() is not None
    finally:
        os.close(handle)


async def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the group of a program that did not end by itself, as far as one can."""
    for number, seconds in (
        (signal.SIGTERM, END_SECONDS),
        (signal.SIGKILL, KILL_SECONDS),
    ):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with trio.CancelScope(shield=True):
            await _ended(process, seconds)
