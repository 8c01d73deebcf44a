# SPDX-License-Identifier: MIT
"""Programs that a benchmark starts: in groups, whose CPU and memory can be read.

    Group       what was started in it, and all that came of that
      cpu         user and kernel seconds of all of them so far, of those also that ended
      memory      octets that are theirs alone (resident, not shared)
      close       asks those that were started to end, then ends whatever is left of it

A group is a control group (version 2) where we may make one, as root; then nothing is
missed: Exim's processes leave their parents, and some are never waited for.  Elsewhere it
is the tree of what was started, each process with the children that it has waited for.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
MESH: Final = str(Path(sys.executable).with_name("mesh"))
END_SECONDS: Final = 15.0
START_SECONDS: Final = 60.0
"""On a machine that does much else."""
STEP_SECONDS: Final = 0.01
REST_SECONDS: Final = 0.5
REST_CPU_SECONDS: Final = 0.02
"""Of REST_SECONDS: a processor's ticks are 0.01 s."""
REST_LOOKS: Final = 20
ENTER: Final = 'echo 0 > "$0" && exec "$@"'
"""A shell enters the control group and becomes the program."""


class BenchmarkError(Exception):
    """A benchmark cannot go on; the text says why."""


# control groups


def cgroup_home(mounts: str, own: str) -> Path | None:
    """Say where this process's control groups of version 2 are.

    From /proc/self/mounts and /proc/self/cgroup; None: there are none.
    """
    places = [
        fields[1]
        for fields in map(str.split, mounts.splitlines())
        if len(fields) > 2 and fields[2] == "cgroup2"
    ]
    paths = re.findall(r"(?m)^0::(/.*)$", own)
    return Path(places[0]) / paths[0].lstrip("/") if places and paths else None


def _new_cgroup(name: str) -> Path | None:
    """Make a group, where we may."""
    with suppress(OSError):
        home = cgroup_home(
            Path("/proc/self/mounts").read_text(), Path("/proc/self/cgroup").read_text()
        )
        if home is not None:
            made = home / f"mesh-{os.getpid()}-{time.monotonic_ns()}-{name}"
            made.mkdir()
            if os.access(made / "cgroup.procs", os.W_OK) and _usage(made) is not None:
                return made
            made.rmdir()
    return None


def _usage(cgroup: Path) -> float | None:
    found = re.search(r"usage_usec (\d+)", (cgroup / "cpu.stat").read_text())
    return int(found[1]) / 1e6 if found else None


class Group:
    """What is started in it, with what that starts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._cgroup = _new_cgroup(name)
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        *command: str,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        umask: int = -1,
    ) -> subprocess.Popen[bytes]:
        """Start a program in it."""
        if self._cgroup:
            procs = str(self._cgroup / "cgroup.procs")
            command = ("/bin/sh", "-c", ENTER, procs, *command)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env,
            umask=umask,
        )  # fmt: skip
        self._started.append(process)
        return process

    def pids(self) -> list[int]:
        """Those that are there now."""
        if self._cgroup:
            return [
                int(pid) for pid in (self._cgroup / "cgroup.procs").read_text().split()
            ]
        return list(tree([each.pid for each in self._started if each.poll() is None]))

    def cpu(self) -> float:
        """Seconds of processors so far."""
        if self._cgroup:
            return _usage(self._cgroup) or 0.0
        ticks = 0
        for pid in self.pids():
            with suppress(OSError):  # it has just ended
                fields = _stat(pid)
                ticks += sum(map(int, fields[11:15]))
        return ticks / TICKS

    def memory(self) -> int:
        """Octets of memory now that no other process has part in."""
        pages = 0
        for pid in self.pids():
            with suppress(OSError, IndexError, ValueError):  # it has just ended
                _, resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[:3]
                pages += int(resident) - int(shared)
        return pages * PAGE

    def close(self) -> None:
        """End all of it."""
        # The tree falls apart when its roots end: what was in it is held fast before.
        held = [] if self._cgroup else list(_hold(self.pids()))
        for process in self._started:
            if process.poll() is None:
                process.terminate()
        for process in self._started:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for one in held:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(one, signal.SIGKILL)
            os.close(one)
        if self._cgroup:
            self._empty(self._cgroup)

    def _empty(self, cgroup: Path) -> None:
        """End what is left, and remove the group."""
        deadline = time.monotonic() + END_SECONDS
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise BenchmarkError(f"processes of {self.name} do not end")
            time.sleep(STEP_SECONDS)
        cgroup.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _hold(pids: Sequence[int]) -> Iterator[int]:
    """Open those that are there: a number may become another's."""
    for pid in pids:
        with suppress(ProcessLookupError):
            yield os.pidfd_open(pid)


def _stat(pid: int) -> list[str]:
    """Give /proc/PID/stat behind the name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(roots: list[int]) -> Iterator[int]:
    """Give these processes and all below them."""
    for pid in roots:
        yield pid
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                yield from tree([int(each) for each in task.read_text().split()])


# one process


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program and end it, and only it, in the end."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with ExitStack() as stack:
        if process.stderr:
            stack.callback(process.stderr.close)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(END_SECONDS)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    return sum(map(int, _stat(pid)[11:13])) / TICKS


def peak_mb(pid: int) -> float:
    """Greatest resident memory of a process so far."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


# what is there


def free_port() -> int:
    """Return a port that nobody has at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def mesh(*args: str) -> str:
    """Run a command of the product and return its output."""
    done = subprocess.run([MESH, *args], check=True, capture_output=True, text=True)
    return done.stdout


def find_tool(name: str) -> str | None:
    """Find a program, also where Debian puts those for administrators."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")


def tool(name: str) -> str:
    """Find a program of Postfix's."""
    if (found := find_tool(name)) is None:
        raise BenchmarkError(f"{name} is not installed: scripts/rivals")
    return found


def wait_at_rest(
    cpu: Callable[[], float], sleep: Callable[[float], None] = time.sleep
) -> None:
    """Return when programs have done what they do once, when they begin.

    A new node makes 500 files of keys for its drop folder, with 0.2 to 0.5 s of
    processor: no message costs that.  Whoever is never at rest is waited for so long.
    """
    before = cpu()
    for _ in range(REST_LOOKS):
        sleep(REST_SECONDS)
        now = cpu()
        if now - before <= REST_CPU_SECONDS:
            return
        before = now


def wait_listening(address: Path | int) -> None:
    """Return when somebody accepts at a path, or at a port of loopback."""
    family = socket.AF_INET if isinstance(address, int) else socket.AF_UNIX
    where = ("127.0.0.1", address) if isinstance(address, int) else str(address)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket(family) as sock:
            if sock.connect_ex(where) == 0:
                return
        time.sleep(STEP_SECONDS)
    raise BenchmarkError(f"nobody listens at {address}")


def wait_ready(node: subprocess.Popen[bytes]) -> None:
    """Return when a node has said that it is ready; else what it said instead is told."""
    if node.stderr is None:
        raise BenchmarkError("a node whose words nobody hears")
    said = b""
    timer = threading.Timer(START_SECONDS, node.terminate)
    timer.start()
    try:
        for line in node.stderr:  # it may say something else before
            if re.search(rb"\bready\b", line):
                return
            said += line
    finally:
        timer.cancel()
    words = " ".join(said.decode(errors="replace").split()) or "it said nothing"
    raise BenchmarkError(f"a node did not start in {START_SECONDS:.0f} s: {words}")
