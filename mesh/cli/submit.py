# SPDX-License-Identifier: MIT
"""Handing a message to the node that runs: SMTP on its local socket, once.

    connect -> 220 -> EHLO, MAIL, each RCPT, BDAT with all octets, in one write -> replies

    reply                        becomes
    nobody answers, or 421       NodeDownError: the drop folder takes the message
    554 instead of 220           NotPermittedError      77
    4yz                          TryLaterError          75
    5yz to RCPT                  UnknownNameError       67
    5yz to MAIL or BDAT          MessageError           65

A refused recipient refuses the message for all of its transaction: the node says so
again at BDAT.  More recipients than a transaction takes are asked for with `check`
before anything is handed over: MAIL, each RCPT and RSET, some at a time.

A connection that breaks before the last reply leaves open whether the message was
stored; then it goes to the drop folder, because twice is better than never.

`_socket` is what `socket` wraps in enums and selectors: 4 ms of 60, once a message.
"""

import os
import sys
from _socket import AF_UNIX, SO_RCVTIMEO, SO_SNDTIMEO, SOCK_STREAM, SOL_SOCKET
from _socket import socket as Socket  # noqa: N812  # a class with a small name
from collections.abc import Iterator, Sequence
from typing import Final

from mesh.errors import (
    MeshError,
    MessageError,
    NotPermittedError,
    TryLaterError,
    UnknownNameError,
)

REPLY_SECONDS: Final = 600
"""For one reply, RFC 5321 4.5.3.2.6: under load the node's come late, never as 4yz."""
RECIPIENTS_MAX: Final = 100
"""Recipients of one transaction: what the node takes (RFC 5321 4.5.3.1.8)."""
COPIES_MAX: Final = 67_108_864
"""Octets that one message may become, a copy a recipient: the queue's bound."""
READ_MAX: Final = 65_536


class NodeDownError(Exception):
    """Nobody answers on the socket, or the node ends."""


def connect(path: str) -> Socket:
    """Connect to the node's socket; NodeDownError, NotPermittedError."""
    sock = Socket(AF_UNIX, SOCK_STREAM)
    limit = _limit()
    folder = -1
    try:
        for option in (SO_RCVTIMEO, SO_SNDTIMEO):
            sock.setsockopt(SOL_SOCKET, option, limit)
        # By the folder's number: a socket's address holds 107 octets of path.
        folder = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)  # noqa: PTH120
        sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")  # noqa: PTH119
    except PermissionError as error:
        sock.close()
        raise NotPermittedError(
            f"{path}: {error.strerror}: ask the operator for its group"
        ) from error
    except OSError as error:
        sock.close()
        raise NodeDownError from error
    finally:
        if folder >= 0:
            os.close(folder)
    return sock


def _limit() -> bytes:
    """Write the limit as the C library's struct timeval."""
    return b"".join(n.to_bytes(8, sys.byteorder) for n in (REPLY_SECONDS, 0))


def submit(path: str, sender: str, recipients: Sequence[str], content: bytes) -> None:
    """Hand over one message, in one transaction; returns when it is on the node's disk.

    NodeDownError, or the error that its reply became: nothing was taken.
    """
    sock = connect(path)
    try:
        replies = _replies(sock)
        _judge(next(replies), NotPermittedError)
        envelope = _envelope(sender, recipients, len(content))
        words = f"EHLO localhost\r\n{envelope}BDAT {len(content)} LAST\r\n"
        _send(sock, words.encode("ascii") + content)
        _judge(next(replies), MessageError)
        _judge_envelope(replies, recipients)
        _judge(next(replies), MessageError)
    finally:
        sock.close()


def check(path: str, sender: str, recipients: Sequence[str], length: int) -> None:
    """Ask whether the node would take a message of so many octets for all of these.

    NodeDownError, or the error that a reply became.
    """
    sock = connect(path)
    try:
        replies = _replies(sock)
        _judge(next(replies), NotPermittedError)
        _send(sock, b"EHLO localhost\r\n")
        _judge(next(replies), MessageError)
        for at in range(0, len(recipients), RECIPIENTS_MAX):
            part = recipients[at : at + RECIPIENTS_MAX]
            _send(sock, f"{_envelope(sender, part, length)}RSET\r\n".encode("ascii"))
            _judge_envelope(replies, part)
            _judge(next(replies), MessageError)
    finally:
        sock.close()


def _envelope(sender: str, recipients: Sequence[str], length: int) -> str:
    lines = [f"MAIL FROM:<{sender}> SIZE={length}"]
    lines += [f"RCPT TO:<{recipient}>" for recipient in recipients]
    return "\r\n".join([*lines, ""])


def _judge_envelope(replies: Iterator[tuple[int, str]], names: Sequence[str]) -> None:
    _judge(next(replies), MessageError)
    for _ in names:
        _judge(next(replies), UnknownNameError)


def _send(sock: Socket, octets: bytes) -> None:
    """Send all; a broken connection shows when its last replies are read."""
    try:
        sock.sendall(octets)
    except BlockingIOError as error:
        raise TryLaterError("the node does not read: try later") from error
    except OSError:
        pass


def _judge(reply: tuple[int, str], refused: type[MeshError]) -> None:
    """Let a good reply pass; raise what any other means."""
    code, text = reply
    if code == 421:
        raise NodeDownError
    if code >= 500:
        raise refused(f"the node refuses it: {code} {text}")
    if code >= 400:
        raise TryLaterError(f"the node says: {code} {text}")


def _replies(sock: Socket) -> Iterator[tuple[int, str]]:
    """Read replies: each one's code and last line's text; then NodeDownError."""
    buffer = b""
    while True:
        line, end, rest = buffer.partition(b"\r\n")
        if not end:
            try:
                more = sock.recv(READ_MAX)
            except BlockingIOError as error:
                raise TryLaterError("the node does not answer: try later") from error
            except OSError:
                more = b""
            if not more or len(buffer) > READ_MAX:
                raise NodeDownError
            buffer += more
            continue
        buffer = rest
        if not line[:3].isdigit():
            raise NodeDownError
        if line[3:4] != b"-":
            yield int(line[:3]), line[4:].decode("ascii", "replace")
