# SPDX-License-Identifier: MIT
"""Mail in at one end, counted at the other: the same driver and sink for every pair.

    smtp-source -> a pair of mail servers -> smtp-sink -L, and its copy of each message

    Load     how many messages, of what length, over how many sessions
    Run      what one load through one pair took
    Sink     Postfix's smtp-sink; what it took lies in memory, a file a message
    drive    one load through one pair: measured, and each message looked at

Every message must arrive once and whole.  The digest of its octets from `From:` on, which
is where smtp-source begins (servers put their `Received:` before that), must be there
once for each recipient: its Message-ID makes it one of its kind.  The same without Date
and Message-ID must be what smtp-source says with nobody between.  Looking is done when the
clock has stopped.  What the copies cost the sink is part of a run, unless the load says
`copies=False`: then messages are counted only.

`smtp-source -d` keeps its sessions open; without it each message has a new connection.
"""

import hashlib
import os
import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.pairs import Pair
from benchmarks.processes import BenchmarkError, Group, tool, wait_listening

MEMORY: Final = Path("/dev/shm")  # noqa: S108  # a folder of our own is made in it
STALL_SECONDS: Final = 60.0
STEP_SECONDS: Final = 0.005
SAMPLE_SECONDS: Final = 0.25
SENDER: Final = "from@alpha.test"
RECIPIENT: Final = "mix@bravo.test"
BEGIN: Final = b"\nFrom: "
RECIPIENTS: Final = re.compile(rb"(?m)^X-Rcpt-Args: (.*\n)")
OWN: Final = re.compile(rb"(?m)^(?:Date|Message-Id): .*\n")
SINK_SESSIONS: Final = 1000


@dataclass(frozen=True)
class Load:
    """What is sent."""

    messages: int
    length: int = 10_000
    sessions: int = 20
    kept_open: bool = True
    recipients: int = 1
    """Of each message; so many that no server splits it."""
    copies: bool = True

    def __str__(self) -> str:
        """Say it in a table."""
        if not self.kept_open:
            kind = f"{self.sessions} at once, a connection each"
        else:
            kind = f"{self.sessions} session{'s' if self.sessions > 1 else ''}"
        several = f", {self.recipients} recipients" if self.recipients > 1 else ""
        return f"{self.length / 1000:g} kB, {kind}{several}"


@dataclass(frozen=True)
class Sample:
    """At one moment of a run."""

    at: float
    cpu: float
    """Seconds of processors so far."""
    memory: int
    taken: int


@dataclass(frozen=True)
class Run:
    """What one load took."""

    pair: str
    load: Load
    seconds: float
    """From the first octet in to the last message out."""
    accepted: float
    """Until the driver had its last 250."""
    cpu: Mapping[str, float]
    """Seconds of processors by part; `source` and `sink` among them."""
    samples: Sequence[Sample] = field(default=(), repr=False)

    @property
    def rate(self) -> float:
        """Messages a second from end to end."""
        return self.load.messages / self.seconds

    @property
    def accept_rate(self) -> float:
        """Messages a second that were accepted."""
        return self.load.messages / self.accepted

    def cpu_us(self, *, ends: bool = True) -> float:
        """Microseconds a message, with the source and the sink or without."""
        parts = (
            seconds
            for name, seconds in self.cpu.items()
            if ends or name not in ("source", "sink")
        )
        return sum(parts) / self.load.messages * 1e6


# what was taken


def begun(copy: bytes) -> bytes:
    """Give a copy from where smtp-source began it, LF lines; `b""`: it did not."""
    at = copy.find(BEGIN)
    return copy[at + 1 :].rstrip(b"\n") if at >= 0 else b""


def digest(content: bytes) -> bytes:
    """Give what stands for a message."""
    return hashlib.blake2b(content, digest_size=16).digest()


def common(content: bytes) -> bytes:
    """Give what all messages of a load have in common: its digest."""
    head, gap, body = content.partition(b"\n\n")
    return digest(OWN.sub(b"", head + b"\n") + gap + body)


@dataclass
class Taken:
    """What a sink has."""

    digests: Counter[bytes] = field(default_factory=Counter)
    kinds: Counter[bytes] = field(default_factory=Counter)

    def add(self, copy: bytes) -> None:
        """Look at one message."""
        content = begun(copy)
        kind = common(content)
        for recipient in RECIPIENTS.findall(copy[: len(copy) - len(content)]):
            self.digests[digest(recipient + content)] += 1
            self.kinds[kind] += 1

    def mistake(self, messages: int, kind: bytes | None = None) -> str:
        """Say what is wrong when so many were sent, all of this kind; nothing: `""`."""
        twice = sum(count - 1 for count in self.digests.values())
        if twice:
            return f"{twice} of {messages} messages came more than once"
        if len(self.digests) != messages:
            return f"{len(self.digests)} of {messages} messages came"
        if kind is not None and self.kinds[kind] != messages:
            return f"{messages - self.kinds[kind]} of {messages} messages are altered"
        return ""


class Sink:
    """smtp-sink at a path: how many messages it has taken, and which."""

    def __init__(self, path: Path, *, copies: bool = False) -> None:
        path.unlink(missing_ok=True)
        place = MEMORY if os.access(MEMORY, os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix="mesh-sink-", dir=place))
        self._folder.chmod(0o711)
        self._copies = self._folder / "copies"
        self._copies.mkdir()
        self._copies.chmod(0o777)  # it insists on being nobody when started by root
        self._said = (self._folder / "said").open("w+b")
        self.group = Group("sink")
        command = [tool("smtp-sink"), *(["-u", "nobody"] if os.geteuid() == 0 else [])]
        command += ["-c", "-L", "-m", str(SINK_SESSIONS)]
        command += ["-d", f"{self._copies}/m."] if copies else []
        # Other users' servers connect to it.
        self.group.start(*command, f"unix:{path}", "512", stdout=self._said, umask=0)
        wait_listening(path)

    @property
    def taken(self) -> int:
        """Messages so far."""
        size = os.fstat(self._said.fileno()).st_size
        tail = os.pread(self._said.fileno(), 256, max(0, size - 256))
        found = re.findall(rb"mesg=(\d+)(?=\D)", tail + b" ")
        return int(found[-1]) if found else 0

    def wait(self, count: int) -> None:
        """Return when it has taken so many in all."""
        had, since = self.taken, time.monotonic()
        while (has := self.taken) < count:
            if has > had:
                had, since = has, time.monotonic()
            if time.monotonic() > since + STALL_SECONDS:
                raise BenchmarkError(f"the sink has {has} of {count} messages")
            time.sleep(STEP_SECONDS)

    def copies(self) -> Iterator[bytes]:
        """Give all that it has kept, and throw it away."""
        for copy in self._copies.iterdir():
            yield copy.read_bytes()
            copy.unlink()

    def collect(self) -> Taken:
        """Look at all that it has kept."""
        taken = Taken()
        for copy in self.copies():
            taken.add(copy)
        return taken

    def close(self) -> None:
        """End it."""
        self.group.close()
        self._said.close()
        shutil.rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# a run


def source(entry: str, load: Load, recipient: str = RECIPIENT) -> list[str]:
    """Command line of the driver, one recipient a message."""
    return [
        tool("smtp-source"), *(["-d"] if load.kept_open else []),
        "-s", str(load.sessions), "-m", str(load.messages), "-l", str(load.length),
        *(["-r", str(load.recipients)] if load.recipients > 1 else []),
        "-M", "alpha.test", "-f", SENDER, "-t", recipient, entry,
    ]  # fmt: skip


def untouched(length: int) -> bytes:
    """Give a message of that length that nobody was between, lines with LF."""
    with tempfile.TemporaryDirectory(prefix="mesh-kind-") as folder:
        path = Path(folder) / "sink.sock"
        with Sink(path, copies=True) as sink:
            command = source(f"unix:{path}", Load(1, length, 1))
            subprocess.run([command[0], "-L", *command[1:]], check=True)
            sink.wait(1)
            (copy,) = sink.copies()
            return begun(copy)


def kind_of(length: int) -> bytes:
    """Give what messages of that length have in common when they come whole."""
    return common(untouched(length))


def drive(pair: Pair, sink: Sink, load: Load, kind: bytes | None = None) -> Run:
    """Send a load through a pair; BenchmarkError: not every message came, once."""
    target = sink.taken + load.messages
    groups = {**pair.parts, "sink": sink.group}
    began = {name: group.cpu() for name, group in groups.items()}
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    driver = subprocess.Popen(source(pair.entry, load), stdout=subprocess.DEVNULL)
    try:
        accepted, samples = _watch(driver, pair, sink, target, start)
        seconds = time.monotonic() - start
    finally:
        if driver.poll() is None:
            driver.kill()
        driver.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = {name: group.cpu() - began[name] for name, group in groups.items()}
    cpu["source"] = after.ru_utime + after.ru_stime
    cpu["source"] -= children.ru_utime + children.ru_stime
    copies = load.messages * load.recipients
    if load.copies and (wrong := sink.collect().mistake(copies, kind)):
        raise BenchmarkError(f"{pair.name}: {wrong}")
    if sink.taken != target:
        raise BenchmarkError(f"{pair.name}: more came than was sent")
    return Run(pair.name, load, seconds, accepted, cpu, samples)


def _watch(
    driver: "subprocess.Popen[bytes]", pair: Pair, sink: Sink, target: int, start: float
) -> tuple[float, list[Sample]]:
    """Wait for both ends; when the driver ended, and what was seen meanwhile."""
    samples: list[Sample] = []
    began = sum(group.cpu() for group in pair.parts.values())
    accepted, moved, had = 0.0, start, -1
    while True:
        now, taken = time.monotonic(), sink.taken
        if not accepted and (code := driver.poll()) is not None:
            if code:
                raise BenchmarkError(f"{pair.name}: smtp-source ended with {code}")
            accepted = now - start
        if taken >= target and accepted:
            return accepted, samples
        if taken != had:
            moved, had = now, taken
        elif now > moved + STALL_SECONDS:
            raise BenchmarkError(f"{pair.name}: {target - taken} messages do not come")
        if not samples or now - start >= samples[-1].at + SAMPLE_SECONDS:
            cpu = sum(group.cpu() for group in pair.parts.values()) - began
            memory = sum(group.memory() for group in pair.parts.values())
            samples.append(Sample(round(now - start, 2), cpu, memory, taken))
        time.sleep(STEP_SECONDS)
