# SPDX-License-Identifier: MIT
"""What a hop adds to the time of a message when nothing else is to do; greedy clock.

    one     client -> bravo's socket -> spool -> LMTP -> sink
    two     client -> alpha's socket -> spool -> link -> bravo's spool -> LMTP -> sink

One message at a time, 10 kB, over sessions that stay open; from just before the message's
octets go out (after the 354) until the sink has its last one.  The next goes out a random
time after that.  One and two take turns, and so do both ways through a pair of Postfix.
What a hop adds is, at each share of the messages, the difference between two and one.

smtp-source and smtp-sink do not say when: client and sink are of our own here, in one
process with one clock.
"""

import random
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks import postfix
from benchmarks.pairs import Mesh, Pair
from benchmarks.processes import BenchmarkError
from benchmarks.result import (
    Chart,
    Figure,
    Result,
    Scale,
    Series,
    Tell,
    distribution,
    quantile,
)

TITLE: Final = "Latency that a hop adds, idle, greedy"
BOUND_MS: Final = 5.0
MESSAGES: Final = 400
"""A round, each way."""
LENGTH: Final = 10_000
PAUSE_SECONDS: Final = 0.02
PATIENCE_SECONDS: Final = 60.0
LINE_MAX: Final = 65_536
TOKEN: Final = b"Subject: "


class Client:
    """A session that stays open."""

    def __init__(self, entry: str) -> None:
        kind, _, where = entry.partition(":")
        if kind == "unix":
            self._sock = socket.socket(socket.AF_UNIX)
            self._sock.connect(where)
        else:
            host, _, port = where.partition(":")
            self._sock = socket.create_connection((host, int(port)))
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.settimeout(PATIENCE_SECONDS)
        self._lines = self._sock.makefile("rb")
        self._hear(b"2")
        self._say(b"HELO alpha.test\r\n")

    def send(self, content: bytes) -> float:
        """Hand a message over; when its octets began to go out."""
        self._say(b"MAIL FROM:<from@alpha.test>\r\n")
        self._say(b"RCPT TO:<mix@bravo.test>\r\n")
        self._say(b"DATA\r\n", b"3")
        began = time.monotonic()
        self._say(content + b".\r\n")
        return began

    def _say(self, octets: bytes, wanted: bytes = b"2") -> None:
        self._sock.sendall(octets)
        self._hear(wanted)

    def _hear(self, wanted: bytes) -> None:
        line = self._lines.readline(LINE_MAX)
        while line[3:4] == b"-":
            line = self._lines.readline(LINE_MAX)
        if not line.startswith(wanted):
            raise BenchmarkError(f"a server said {line!r}")

    def close(self) -> None:
        """End it."""
        self._lines.close()
        self._sock.close()


class Clocked:
    """An LMTP server that says when the message with a token was there."""

    def __init__(self, path: Path) -> None:
        self._came: dict[bytes, float] = {}
        self._change = threading.Condition()
        clocked = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                clocked.serve(self)

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        self._server.daemon_threads = True
        path.chmod(0o777)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def serve(self, handler: socketserver.StreamRequestHandler) -> None:
        """Answer a connection; every recipient is taken."""
        say, read = handler.wfile.write, handler.rfile.readline
        say(b"220 sink\r\n")
        recipients = 0
        while line := read(LINE_MAX):
            verb = line[:4].upper()
            if verb == b"LHLO":
                say(b"250-sink\r\n250 PIPELINING\r\n")
            elif verb == b"DATA":
                say(b"354 go on\r\n")
                self._take(read)
                say(b"250 ok\r\n" * recipients)
                recipients = 0
            else:
                recipients += verb == b"RCPT"
                say(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")

    def _take(self, read: Callable[[int], bytes]) -> None:
        token = b""
        while (line := read(LINE_MAX)) != b".\r\n":
            if not line:
                return
            if not token and line.startswith(TOKEN):
                token = line[len(TOKEN) :].strip()
        now = time.monotonic()
        with self._change:
            if token in self._came:
                raise BenchmarkError("a message came twice")
            self._came[token] = now
            self._change.notify_all()

    def when(self, token: bytes) -> float:
        """Wait for a message; when it came."""
        with self._change:
            if not self._change.wait_for(lambda: token in self._came, PATIENCE_SECONDS):
                raise BenchmarkError("a message does not come")
            return self._came[token]


class Way:
    """A way into a pair, and the milliseconds that messages took by it."""

    def __init__(self, name: str, entry: str, sink: Clocked) -> None:
        self.name = name
        self.rounds: list[list[float]] = []
        self._sink = sink
        self._client = Client(entry)
        self._sent = 0

    @property
    def all(self) -> list[float]:
        """Of all rounds."""
        return [each for some in self.rounds for each in some]

    def send(self) -> None:
        """Send one message, and wait until it is there."""
        self._sent += 1
        token = f"{self.name} {self._sent}".encode()
        lines = b"x" * 70 + b"\r\n"
        content = TOKEN + token + b"\r\n\r\n" + lines * (LENGTH // len(lines))
        began = self._client.send(content)
        took = 1000 * (self._sink.when(token) - began)
        self.rounds[-1].append(took)
        time.sleep(random.uniform(0, PAUSE_SECONDS))  # noqa: S311  # no secret

    def close(self) -> None:
        """End its session."""
        self._client.close()


@contextmanager
def ways(pair: Pair, sink: Clocked) -> Iterator[tuple[Way, Way]]:
    """Open both ways, and warm them up."""
    with ExitStack() as stack:
        both = (
            Way(f"{pair.name}, one", pair.second, sink),
            Way(f"{pair.name}, two", pair.entry, sink),
        )
        for way in both:
            stack.callback(way.close)
            way.rounds.append([])
            for _ in range(3):
                way.send()
            way.rounds.clear()
        yield both


def added(both: tuple[Way, Way], share: float) -> tuple[float, ...]:
    """Give what a hop adds at this share of the messages, a value a round."""
    one, two = both
    return tuple(
        quantile(slow, share) - quantile(fast, share)
        for fast, slow in zip(one.rounds, two.rounds, strict=True)
    )


def run(scale: Scale, tell: Tell) -> Result:
    """Take turns, message by message."""
    notes: list[str] = []
    settings: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="mesh-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o711)
        pairs: list[tuple[Way, Way]] = []
        for key, make in (("ours", Mesh), ("postfix", _postfix)):
            if key == "postfix" and (why := postfix.is_there()):
                notes.append(f"without Postfix: {why}")
                continue
            sink = stack.enter_context(Clocked(folder / f"{key}.sock"))
            pair: Pair = stack.enter_context(make(folder / key, folder / f"{key}.sock"))
            settings.update(pair.settings)
            pairs.append(stack.enter_context(ways(pair, sink)))
        each = [way for both in pairs for way in both]
        count = scale.of(MESSAGES, 5)
        for number in range(scale.rounds):
            for way in each:
                way.rounds.append([])
            for turn in range(count):
                if turn % 10 == 0:
                    tell(f"round {number + 1}", (number + turn / count) / scale.rounds)
                for way in each if turn % 2 else each[::-1]:
                    way.send()
    curves = {way.name: distribution(way.all) for way in each}
    chart = Chart("Share of messages that were there", "milliseconds", curves)
    return Result(
        "latency", TITLE, tuple(_figures(pairs)), (chart,), settings, tuple(notes)
    )


def _postfix(folder: Path, sink: Path) -> Pair:
    return postfix.Postfix(folder, sink, reuse=True)


def _figures(pairs: Sequence[tuple[Way, Way]]) -> Iterator[Figure]:
    names = ("mesh", "Postfix")
    for share, bound in ((0.5, None), (0.99, BOUND_MS)):
        series = tuple(
            Series(name, added(both, share))
            for name, both in zip(names, pairs, strict=False)
        )
        yield Figure(
            f"added, p{share:.0%}".rstrip("%"), "ms", series, bound, at_least=False
        )
    for number, what in enumerate(("one server", "two servers")):
        for share in (0.5, 0.99):
            series = tuple(
                Series(
                    name, tuple(quantile(some, share) for some in both[number].rounds)
                )
                for name, both in zip(names, pairs, strict=False)
            )
            name = f"through {what}, p{share:.0%}".rstrip("%")
            yield Figure(name, "ms", series, at_least=False)
