# SPDX-License-Identifier: MIT
"""Machines and wires of a lab: network namespaces of this host, joined by veth pairs.

    each namespace   one address, on lo; a route to each neighbour, by the wire to it
    each wire        MTU 1500; TSO, GSO and GRO off: a packet is what a wire would carry
    snooper          tcpdump at the wire's first end: nanoseconds, headers (or all)

Needs root, ip (iproute2), ethtool and tcpdump.  Everything is gone at the end; what a
lab that was killed has left is removed by the next one.
"""

import ctypes
import fcntl
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from mesh.errors import IoError, NotPermittedError, UnavailableError

T = TypeVar("T")

TOOLS: Final = {"ip": "iproute2", "ethtool": "ethtool", "tcpdump": "tcpdump"}
"""The programs, and Debian's packages of them."""
PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
NAMESPACES: Final = Path("/run/netns")
"""Where iproute2 has them."""
PREFIX: Final = "mesh-audit"
"""A namespace is called PREFIX-the lab's process-its name."""
SNAP_OCTETS: Final = 120
"""Of a packet: Ethernet, IPv6 and TCP's longest head; no figure needs the rest."""
BUFFER_KIB: Final = 16_384
"""For packets that tcpdump has not read yet: seconds of the fastest link."""
SETTLE_SECONDS: Final = 30.0
"""For tcpdump to read what it has: it looks each second."""
STILL_SECONDS: Final = 5.0
"""In which it answers and reads nothing: what else was counted is nothing for it, such as
what came before its filter was there."""
LOOK_SECONDS: Final = 0.1
"""Between two questions to it."""
_CLONE_NEWNET: Final = 0x40000000
_COUNTS: Final = re.compile(
    rb"(\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? dropped"
)

Process = subprocess.Popen[bytes]


class Wire(NamedTuple):
    """Two neighbours, by name; the first one's end is where the snooper sits."""

    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.first}-{self.second}"


class Space(NamedTuple):
    """One machine of the lab."""

    name: str
    known_as: str
    """The namespace's name."""
    address: str

    def words(self, *words: str) -> tuple[str, ...]:
        """The command that runs another one in there."""
        return ("ip", "netns", "exec", self.known_as, *words)

    def enter(self) -> None:
        """Let this thread, and it alone, live in there from now on."""
        libc = ctypes.CDLL(None, use_errno=True)
        place = os.open(NAMESPACES / self.known_as, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(place, _CLONE_NEWNET):
                raise IoError(f"setns: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(place)

    def within(self, work: Callable[[], T]) -> T:
        """Do something in there: a socket made there stays there."""
        with ThreadPoolExecutor(1, initializer=self.enter) as pool:
            return pool.submit(work).result()

    def listen(self, port: int) -> socket.socket:
        """Open a port in there."""
        return self.within(lambda: socket.create_server((self.address, port)))


def check() -> None:
    """See that a lab can be built here.

    NotPermittedError: not root; UnavailableError: a program is missing.
    """
    if os.geteuid():
        raise NotPermittedError("a lab of network namespaces needs root")
    for tool, package in TOOLS.items():
        found = (Path(folder, tool) for folder in PATH.split(":"))
        if not any(os.access(path, os.X_OK) for path in found):
            raise UnavailableError(f"{tool} is missing: install {package}")


def run(*words: str) -> str:
    """Run a program of the system; its output.  IoError: it failed."""
    try:
        done = subprocess.run(  # noqa: S603  # our own words
            words, check=True, capture_output=True, text=True, env=_surroundings()
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise IoError(f"{' '.join(words[:6])}: {last}") from error
    return done.stdout


@contextmanager
def started(words: Sequence[str], folder: Path, log: Path) -> Iterator[Process]:
    """Run a program beside; ended at the end."""
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603  # our own words
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=folder,
            env=_surroundings(),
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def spaces(
    names: Sequence[str], wires: Sequence[Wire], loss: float = 0.0
) -> Iterator[Mapping[str, Space]]:
    """Build namespaces, joined by wires that lose this share of the packets.

    UnavailableError: packets shall get lost, and cannot here.
    """
    remove_left_overs()
    made = {
        name: Space(name, f"{PREFIX}-{os.getpid()}-{name}", f"10.83.0.{number}")
        for number, name in enumerate(names, 1)
    }
    with ExitStack() as stack:
        for space in made.values():
            run("ip", "netns", "add", space.known_as)
            stack.callback(run, "ip", "netns", "del", space.known_as)
            own = ("ip", "-n", space.known_as)
            run(*own, "link", "set", "lo", "up")
            run(*own, "address", "add", f"{space.address}/32", "dev", "lo")
        for wire in wires:
            _join(made[wire.first], made[wire.second], loss)
        yield made


def _join(first: Space, second: Space, loss: float) -> None:
    run(
        "ip", "link", "add", f"to-{second.name}", "netns", first.known_as, "mtu", "1500",
        "type", "veth", "peer", "name", f"to-{first.name}", "netns", second.known_as,
        "mtu", "1500",
    )  # fmt: skip
    for here, there in ((first, second), (second, first)):
        wire, own = f"to-{there.name}", ("ip", "-n", here.known_as)
        run(
            *here.words("ethtool", "-K", wire, "tso", "off", "gso", "off", "gro", "off")
        )
        run(*own, "link", "set", wire, "up")
    for here, there in ((first, second), (second, first)):
        run(
            "ip", "-n", here.known_as, "route", "add", f"{there.address}/32",
            "dev", f"to-{there.name}", "src", here.address,
        )  # fmt: skip
        if loss:
            _lose(here, f"to-{there.name}", loss)


def _lose(space: Space, wire: str, loss: float) -> None:
    """Let a share of the packets that leave by a wire get lost."""
    words = ("tc", "qdisc", "add", "dev", wire, "root", "netem", "loss")
    try:
        run(*space.words(*words, f"{100 * loss:g}%"))
    except IoError:
        raise UnavailableError(
            "no loss: this kernel has no netem, or tc is missing"
        ) from None


def remove_left_overs() -> None:
    """Remove what labs have left whose process is gone, and what runs in there.

    One lab at a time: several that begin together would find the same.
    """
    if not NAMESPACES.exists():
        return
    place = os.open(NAMESPACES, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        for name in sorted(path.name for path in NAMESPACES.iterdir()):
            found = re.fullmatch(rf"{PREFIX}-(\d+)-\w+", name)
            if found and not Path("/proc", found[1]).exists():
                _remove(name)
    finally:
        os.close(place)


def _remove(name: str) -> None:
    pids = run("ip", "netns", "pids", name).split()
    run("ip", "netns", "del", name)
    for pid in pids:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(int(pid), signal.SIGKILL)


@contextmanager
def listening(
    space: Space, wire: Wire, file: Path, snap: int = SNAP_OCTETS
) -> Iterator[None]:
    """Have tcpdump on a wire, into a file; of a packet so many octets, 0: all.

    IoError: it does not start, or has missed packets, so that nothing can be said.
    """
    words = space.words(
        "tcpdump", "-i", f"to-{wire.second}", "-w", str(file), "-Z", "root",
        "-s", str(snap), "-B", str(BUFFER_KIB),
        "--time-stamp-precision=nano", "tcp",
    )  # fmt: skip
    with subprocess.Popen(  # noqa: S603  # our own words
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, env=_surroundings(),
    ) as process:  # fmt: skip
        assert process.stderr  # noqa: S101  # for mypy
        try:
            while b"listening on" not in (line := process.stderr.readline()):
                if not line:
                    raise IoError("tcpdump does not start")
            yield
            _settle(process)
        finally:
            process.terminate()


def _settle(process: Process) -> None:
    """Wait until tcpdump has read what has been there: it would forget the rest."""
    asked, seen, there = time.monotonic(), 0, None
    grew = asked
    while there is None or seen < there:
        now = time.monotonic()
        if there is not None and now > grew + STILL_SECONDS:
            return
        if now > asked + SETTLE_SECONDS:
            raise IoError("tcpdump does not keep up: the host is too busy")
        process.send_signal(signal.SIGUSR1)  # it tells its counts
        time.sleep(LOOK_SECONDS)
        assert process.stderr  # noqa: S101  # for mypy
        counts = _COUNTS.search(process.stderr.readline())
        if counts:
            before = seen
            seen, received, dropped = map(int, counts.groups())
            grew = time.monotonic() if seen != before else grew
            there = received if there is None else there
            if dropped:
                raise IoError(f"tcpdump missed {dropped} packets: the host is too busy")


def _surroundings() -> Mapping[str, str]:
    return {**os.environ, "PATH": PATH}
