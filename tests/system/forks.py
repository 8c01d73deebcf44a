# SPDX-License-Identifier: MIT
"""Our commands as forks of one process that has imported everything already.

Imports are two thirds of what a node costs that is started, works a little and ends.  A
Forge is a process that has made them; each launch() is a fork of it, which then is the
command: its own words, environment, standard files and signals, its own end through the
interpreter's usual one.  What a command does by itself, and every child of its own, is
as if it had been started alone.

    driver                          forge                       command
    words, env, 3 descriptors  ---> fork  --------------------> dup2, main(words)
                               <--- [number, pid]
                               <--- [number, code]  <---------- ends

Packets on one socket pair; one driver's thread to a forge.  Commands are numbered from 1,
for the system gives pids again.  When the driver is gone, the
forge ends its commands and itself.  faults.so, when loaded, begins anew in each command.
"""

import ctypes
import faulthandler
import gc
import importlib
import json
import mmap
import os
import pkgutil
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any, Final, NoReturn, Protocol, Self

PACKET_MAX: Final = 65_536
STEP_SECONDS: Final = 0.01


class Process(Protocol):
    """What the tests need of a process, however it was made."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Forge:
    """A process that forks our commands; a context."""

    def __init__(self, env: Mapping[str, str] = {}) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-bb", "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **env},
            )
        self._launched = 0
        self._pids: dict[int, int] = {}
        self._codes: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._process.wait()

    def launch(
        self,
        words: Sequence[str],
        *,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
        env: Mapping[str, str],
    ) -> Process:
        """Start a command, as subprocess.Popen does; its first word is its program."""
        with ExitStack() as closing:
            files = []
            for file in (stdin, stdout, stderr):
                if file == subprocess.DEVNULL:
                    file = closing.enter_context(Path(os.devnull).open("r+b"))
                files.append(file if isinstance(file, int) else file.fileno())
            packet = json.dumps([list(words), dict(env)]).encode()
            socket.send_fds(self._socket, [packet], files)
        self._launched += 1
        while self._launched not in self._pids:
            self._hear(None)
        return Forked(self, self._launched, self._pids[self._launched])

    def run(
        self, words: Sequence[str], octets: bytes, env: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Run a command to its end; its code and its standard error."""
        with TemporaryFile() as given, TemporaryFile() as errors:
            given.write(octets)
            given.seek(0)
            done = self.launch(words, stdin=given, stderr=errors, env=env)
            code = done.wait(30)
            errors.seek(0)
            return code, errors.read()

    def code(self, number: int, timeout: float | None = 0) -> int | None:
        """The exit code of a command; None: it runs, after so many seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while number not in self._codes:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not self._hear(left) and left is not None:
                return None
        return self._codes[number]

    def _hear(self, timeout: float | None) -> bool:
        """Take in one packet; False: none came."""
        if not select.select([self._socket], [], [], timeout)[0]:
            return False
        packet = self._socket.recv(PACKET_MAX)
        if not packet:
            raise RuntimeError("the forge has ended")
        number, figure = json.loads(packet)
        known = self._codes if number in self._pids else self._pids
        known[number] = figure
        return True


class Forked:
    """One command."""

    def __init__(self, forge: Forge, number: int, pid: int) -> None:
        self._forge, self._number = forge, number
        self.pid = pid

    def poll(self) -> int | None:
        """Give the exit code; None: it runs."""
        return self._forge.code(self._number)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        code = self._forge.code(self._number, timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a command", timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


# the forge's own process


def _prepare() -> None:
    """Import what a command may."""
    import mesh

    # What is made at import for keys is in no fork; here it must be, and has none yet.
    vars(mmap)["MADV_DONTFORK"], dont_fork = mmap.MADV_DOFORK, mmap.MADV_DONTFORK
    for module in pkgutil.walk_packages(mesh.__path__, "mesh."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    vars(mmap)["MADV_DONTFORK"] = dont_fork
    gc.collect()
    gc.freeze()


def _serve(sock: socket.socket) -> None:
    """Fork a command for each packet, and say when it has ended."""
    heard, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    children: dict[int, int] = {}
    number = 0
    while True:
        ready = select.select([sock.fileno(), heard], [], [])[0]
        if heard in ready:
            os.read(heard, 4_096)
            for ended, code in _ended(children):
                with suppress(OSError):  # the driver has gone
                    sock.send(json.dumps([ended, code]).encode())
        if sock.fileno() in ready:
            packet, files, _, _ = socket.recv_fds(sock, PACKET_MAX, 3)
            if not packet:
                break
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                os.close(heard)
                os.close(wake)
                sock.close()
                words, env = json.loads(packet)
                _become(words, env, files)
            for file in files:
                os.close(file)
            number += 1
            children[pid] = number
            sock.send(json.dumps([number, pid]).encode())
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _ended(children: dict[int, int]) -> list[tuple[int, int]]:
    """Take leave of the commands that have ended."""
    found = []
    for pid in tuple(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            number = children.pop(pid)
            found.append((number, os.waitstatus_to_exitcode(status)))
    return found


def _become(words: list[str], env: dict[str, str], files: list[int]) -> NoReturn:
    """Be the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    random.seed()
    if "PYTHONFAULTHANDLER" in env:
        faulthandler.enable()
    library: Any = ctypes.CDLL(None)
    if "FAULTS_FILE" in env and hasattr(library, "faults_begin"):
        library.faults_begin()
    sys.argv = words
    if Path(words[0]).name == "mesh-sendmail":
        from mesh.cli import handin

        sys.exit(handin.main())
    from mesh.cli import main

    sys.exit(main.main())


if __name__ == "__main__":
    _prepare()
    _serve(socket.socket(fileno=int(sys.argv[1])))
