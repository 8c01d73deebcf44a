# SPDX-License-Identifier: MIT
"""Real nodes for the tests: made by our own commands, run as processes, ended always.

A `World` is a folder with nodes in it.  It makes them with `mesh init`, introduces
them with `mesh export` and `mesh peers add`, starts each as a process of its own and
learns by the service manager's datagram (sd_notify) that it is ready.  `close` ends
every process that is still there, by its pid, and then says what a node left behind.
"""

import contextlib
import fcntl
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from mesh.cli.main import main
from tests.system.forks import Process

MESH = str(Path(sys.executable).with_name("mesh"))
READY_SECONDS = 60.0
"""On a machine that does much else; the 2 s of the contract are for one that does not."""
LINK_SECONDS = 15.0
"""A handshake takes up to 2.2 s, a lost race another 4 s, and the machine is busy."""
STOP_SECONDS = 10.0
"""The contract's."""
STEP_SECONDS = 0.02
ABRT = {"PYTHONFAULTHANDLER": "1"}
"""A node that hangs says where when it gets SIGABRT."""


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def find_tool(name: str) -> str | None:
    """Find a program, also where Debian puts those for administrators."""
    return shutil.which(
        name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    )


def eventually(what: str, seconds: float, holds: Callable[[], bool]) -> None:
    """Wait until it holds, for what another process does and nobody tells."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(STEP_SECONDS)


def mesh(*args: str, code: int = 0, cwd: Path | None = None) -> str:
    """Run one of our commands; its standard output, or its errors where it must fail."""
    done = subprocess.run(
        [MESH, *args], check=False, capture_output=True, text=True, timeout=30, cwd=cwd
    )
    assert done.returncode == code, (args, done.returncode, done.stderr)
    return done.stderr if code else done.stdout


class Said(NamedTuple):
    """What a command that ran in this process came to."""

    code: int
    out: str
    err: str


def ask_here(*args: str, cwd: Path | None = None) -> Said:
    """Run one of our commands in this process: what asks often would only start Python."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(cwd or Path.cwd()),
    ):
        code = main(args)
    return Said(code, out.getvalue(), err.getvalue())


def mesh_here(*args: str, code: int = 0, cwd: Path | None = None) -> str:
    """Do as `mesh` does in this process, for what is only prepared with it."""
    said = ask_here(*args, cwd=cwd)
    assert said.code == code, (args, said)
    return said.err if code else said.out


class NodeProcess:
    """One node: its folder and, while it runs, its process."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.name = home.name
        self.port = port
        self.config = home / "node.toml"
        self.socket = home / "local.sock"
        self.process: Process | None = None
        self.serves = [f"mix@{self.name}.test"]
        self.before: list[str] = []
        """What stands before our own command: a program that runs it."""
        self.env: dict[str, str] = {}
        """What its environment has beside our own."""
        self.launch: Callable[..., Process] = subprocess.Popen
        self._pids: list[int] = []

    def set(self, **values: str) -> None:
        """Change keys of node.toml; values are TOML."""
        text = self.config.read_text()
        for key, value in values.items():
            text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
            assert count == 1, key
        self.config.write_text(text)

    def start(self, *, wait: bool = True) -> float:
        """Start it; the seconds until it was ready."""
        assert self.process is None, "it runs"
        started = time.monotonic()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            # In the abstract name space, where no path is too long: a name by the kernel.
            notices.bind("")
            name = notices.getsockname().decode().replace("\0", "@", 1)
            with (self.home / "stderr").open("ab") as errors:
                self.process = self.launch(
                    [*self.before, MESH, "run", "-c", str(self.config)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env={**os.environ, **ABRT, **self.env, "NOTIFY_SOCKET": name},
                )
            self._pids.append(self.process.pid)
            if wait:
                self._wait_ready(notices, started)
        return time.monotonic() - started

    def _wait_ready(self, notices: socket.socket, started: float) -> None:
        assert self.process is not None
        notices.settimeout(0.1)
        while time.monotonic() < started + READY_SECONDS:
            assert self.process.poll() is None, self.errors()
            try:
                assert notices.recv(64) == b"READY=1"
            except TimeoutError:
                continue
            return
        self.process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        raise AssertionError(f"{self.name} is not ready: {self.errors()[-9_000:]}")

    def cpu_seconds(self) -> float:
        """Seconds of processors that it and its pacer have had in this life."""
        assert self.process is not None, "it does not run"
        ticks = 0
        for pid in (self.process.pid, self.pacer()):
            with contextlib.suppress(OSError):  # it has just ended, or there is none
                fields = (
                    Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                )
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def errors(self) -> str:
        """What it has written on standard error in all its lives."""
        return (self.home / "stderr").read_text()

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would, as far as a process can be."""
        assert self._end(signal.SIGKILL) == -signal.SIGKILL

    def pacer(self) -> int | None:
        """The pid of the process that sends its cells; None: there is none now."""
        assert self.process is not None, "it does not run"
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # that thread has just ended
                for pid in task.read_text().split():
                    return int(pid)
        return None

    def kill_pacer(self) -> bool:
        """Kill the process that sends its cells; False: there was none."""
        pid = self.pacer()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pid is not None

    def also_serves(self, address: str, deliver: str) -> None:
        """Give it one more remailer; before `introduce`."""
        self.serves.append(address)
        with self.config.open("a") as config:
            config.write(
                f'\n[[remailer]]\naddress = "{address}"\ndeliver = "{deliver}"\n'
            )

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None, "it does not run"
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.name} did not end by itself") from None

    def letters(self) -> dict[str, bytes]:
        """What lies in its Maildir: names and octets."""
        new = self.home / "Maildir" / "new"
        return {path.name: path.read_bytes() for path in new.glob("*")}

    def arrived(self, count: int, seconds: float = LINK_SECONDS) -> list[bytes]:
        """Wait for so many letters; their octets."""
        new = self.home / "Maildir" / "new"
        eventually(
            f"{count} letters in {self.name}'s Maildir",
            seconds,
            lambda: len(list(new.glob("*"))) >= count,
        )
        letters = list(self.letters().values())
        assert len(letters) == count
        return letters

    def _is_ours(self, pid: int) -> bool:
        """It runs; after hundreds of starts its number may be somebody else's."""
        try:
            return (
                str(self.config).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
            )
        except OSError:
            return False

    def leftovers(self) -> list[str]:
        """Say what is still there of a node that has ended."""
        found = [f"process {pid}" for pid in self._pids if self._is_ours(pid)]
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", self.port))
            except OSError:
                found.append(f"port {self.port}")
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(self.socket))
                found.append(f"listener on {self.socket}")
            except OSError:
                pass
        with (self.home / "state" / "lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append("lock")
        return [f"{self.name}: {what}" for what in found]


class World:
    """Some nodes in one folder, and the promise that nothing of them stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: list[NodeProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def node(self, name: str, deliver: str = "", **settings: str) -> NodeProcess:
        """Make a node that serves mix@NAME.test; `settings` go into its node.toml."""
        port = free_port()
        home = self.folder / name
        remailer = f"mix@{name}.test" + (f"={deliver}" if deliver else "")
        mesh_here(
            "init", str(home), "--name", name, "--address", f"127.0.0.1:{port}",
            "--remailer", remailer,
        )  # fmt: skip
        node = NodeProcess(home, port)
        node.set(
            listen=f'["127.0.0.1:{port}"]',
            **{"clock": '"greedy"', "exit": "false", **settings},
        )
        self.nodes.append(node)
        return node

    def introduce(self) -> None:
        """Give each node the descriptors of all others."""
        files = {}
        for node in self.nodes:
            files[node] = self.folder / f"{node.name}.mesh"
            files[node].write_text(mesh_here("export", "-c", str(node.config)))
        for node in self.nodes:
            others = [other for other in self.nodes if other is not node]
            confirmed = [f"--serves={to}" for other in others for to in other.serves]
            mesh_here(
                "peers", "add", "-c", str(node.config), *confirmed,
                *(str(files[other]) for other in others),
            )  # fmt: skip

    def start(self, nodes: Sequence[NodeProcess] = ()) -> None:
        """Start these nodes, or all."""
        for node in nodes or self.nodes:
            node.start()

    def close(self) -> None:
        """End what still runs; AssertionError names what a node left behind."""
        for node in self.nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait()
                node.process = None
        left = [what for node in self.nodes for what in node.leftovers()]
        assert not left, left
