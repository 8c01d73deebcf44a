# SPDX-License-Identifier: MIT
"""Asks the machine's name servers: core/dns.py over UDP, over TCP what is cut.

    a server                            then
    answers                             that is it
    fails, or answers nonsense          it is not asked again
    says nothing for TRY_SECONDS        the next one; then all again, waiting twice as long
    none is left, or QUESTION_SECONDS   NoAnswerError

The servers are those of resolv.conf, read for each question since it may change: three
at most, and this machine where it names none, as the C library does it; its other
options are for short names, and ours are whole.  Who answers is checked by the kernel
(a connected socket with a port of its choice), a number drawn for each question, and the
question itself.

All on the Trio thread, without waiting in it.  A general library would take seconds of
it for one hostile answer, and no cell would leave meanwhile.
"""

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import trio

from mesh.core.crypto import Entropy
from mesh.core.dns import (
    TCP_MAX,
    Answer,
    Kind,
    encode_question,
    is_answer,
    parse_answer_untrusted,
)
from mesh.errors import RemoteProtocolError

RESOLV_CONF: Final = Path("/etc/resolv.conf")
CONF_MAX: Final = 65_536
"""Octets of it that are read."""
SERVERS_MAX: Final = 3
"""As the C library has it."""
DNS_PORT: Final = 53
TRY_SECONDS: Final = 2.0
"""For one server to answer, at first: a resolver that has to ask others often needs one."""
QUESTION_SECONDS: Final = 14.0
"""For one question: three tries, of 2, 4 and 8 s, of one server."""


class NoAnswerError(Exception):
    """Nobody can say now."""


class Resolver:
    """Asks; `servers` (address, port) in the place of the machine's."""

    def __init__(
        self,
        entropy: Entropy,
        *,
        servers: Sequence[tuple[str, int]] = (),
        configuration: Path = RESOLV_CONF,
        seconds: float = QUESTION_SECONDS,
    ) -> None:
        self._entropy = entropy
        self._servers = servers
        self._configuration = configuration
        self._seconds = seconds

    async def ask(self, name: str, kind: Kind) -> Answer:
        """Ask one question: ValueError for what is no name, NoAnswerError."""
        encode_question(0, name, kind)
        servers = list(self._servers or _configured(self._configuration))
        with trio.move_on_after(self._seconds):
            return await self._ask(servers, name, kind)
        raise NoAnswerError

    async def _ask(
        self, servers: list[tuple[str, int]], name: str, kind: Kind
    ) -> Answer:
        seconds = TRY_SECONDS
        while servers:
            for server in list(servers):
                ident = int.from_bytes(self._entropy.octets(2), "big")
                question = encode_question(ident, name, kind)
                try:
                    with trio.move_on_after(seconds):
                        return await _ask_server(server, question)
                except (OSError, RemoteProtocolError, trio.BrokenResourceError):
                    servers.remove(server)
            seconds *= 2
        raise NoAnswerError


async def _ask_server(server: tuple[str, int], question: bytes) -> Answer:
    """Wait for this server's answer; RemoteProtocolError, OSError, for ever."""
    family = trio.socket.AF_INET6 if ":" in server[0] else trio.socket.AF_INET
    with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as sock:
        await sock.connect(server)
        await sock.send(question)
        while not is_answer(octets := await sock.recv(TCP_MAX), question):
            pass
    answer = parse_answer_untrusted(octets, question)
    if answer is not None:
        return answer
    answer = parse_answer_untrusted(await _by_tcp(server, question), question)
    if answer is None:
        raise RemoteProtocolError("cut, by TCP too")
    return answer


async def _by_tcp(server: tuple[str, int], question: bytes) -> bytes:
    async with await trio.open_tcp_stream(*server) as stream:
        await stream.send_all(len(question).to_bytes(2, "big") + question)
        octets = b""
        while len(octets) < 2 or len(octets) - 2 < int.from_bytes(octets[:2], "big"):
            more = await stream.receive_some(TCP_MAX + 2 - len(octets))
            if not more:
                raise RemoteProtocolError("an answer that is cut short")
            octets += more
    octets = octets[2 : 2 + int.from_bytes(octets[:2], "big")]
    if not is_answer(octets, question):
        raise RemoteProtocolError("an answer to something else")
    return octets


def _configured(path: Path) -> list[tuple[str, int]]:
    """Read resolv.conf: the servers in their order."""
    try:
        with path.open("rb") as file:
            text = file.read(CONF_MAX).decode("utf-8", "replace")
    except OSError:
        text = ""
    words = [line.split() for line in text.splitlines()]
    found = [
        (line[1], DNS_PORT)
        for line in words
        if len(line) > 1 and line[0] == "nameserver" and _is_numeric(line[1])
    ]
    return found[:SERVERS_MAX] or [("127.0.0.1", DNS_PORT)]


def _is_numeric(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
