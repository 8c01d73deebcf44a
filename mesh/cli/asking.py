# SPDX-License-Identifier: MIT
"""Asking the running node, with plain sockets: what status, queue, ping, connect share.

nobody answers            69, node not running
not ours to ask           77
the node's refusal        its code, its line; 75 while it starts
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mesh.core.control import (
    ANSWER_MAX_LEN,
    CONTROL_NAME,
    Ask,
    Refusal,
    Request,
    encode_request,
    parse_answer_untrusted,
)
from mesh.core.names import check_name
from mesh.errors import (
    MeshError,
    NotPermittedError,
    RemoteProtocolError,
    TryLaterError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)

if TYPE_CHECKING:
    from mesh.config import Config

ANSWER_SECONDS: Final = 10.0
"""For what the node knows at once."""
_KINDS: Final = (UsageError, UnknownNameError, UnavailableError, TryLaterError)


def about_peer(ask: Ask, name: str) -> Request:
    """Build a question about a peer; UnknownNameError for what nobody can be called."""
    try:
        return Request(ask, peer=check_name(name))
    except ValueError as error:
        raise UnknownNameError(str(error)) from error


def ask(
    config: "Config", request: Request, seconds: float | None = ANSWER_SECONDS
) -> dict[str, Any]:
    """Ask one thing; the node's answer."""
    with asked(config, request, seconds) as (_, answer):
        return answer


@contextmanager
def asked(
    config: "Config", request: Request, seconds: float | None = ANSWER_SECONDS
) -> Iterator[tuple[socket.socket, dict[str, Any]]]:
    """Ask; the answer, and within it the socket on which what follows comes."""
    with _connect(config.state_dir) as sock:
        sock.settimeout(seconds)
        try:
            sock.sendall(encode_request(request))
            line = _read_line(sock)
        except TimeoutError as error:
            raise UnavailableError(
                "the node does not answer: is it stopped?"
            ) from error
        except OSError as error:
            raise UnavailableError(f"the node went away: {error.strerror}") from error
        yield sock, _understood(line)


def _connect(state: Path) -> socket.socket:
    try:
        folder = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreachable(state, error) from error
    sock = socket.socket(socket.AF_UNIX)
    try:
        # A path of any length in the 107 octets that an address holds.
        sock.connect(f"/proc/self/fd/{folder}/{CONTROL_NAME}")
    except OSError as error:
        sock.close()
        raise _unreachable(state, error) from error
    finally:
        os.close(folder)
    return sock


def _unreachable(state: Path, error: OSError) -> MeshError:
    if isinstance(error, PermissionError):
        return NotPermittedError(f"{state}: ask as the node's own user")
    return UnavailableError(f"{state}: node not running: start it with `mesh run`")


def _read_line(sock: socket.socket) -> bytes:
    """Read the answer and not one octet behind it."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) <= ANSWER_MAX_LEN:
        seen = sock.recv(65_536, socket.MSG_PEEK)
        if not seen:
            raise UnavailableError("the node went away before it answered")
        line += sock.recv(seen.find(b"\n") + 1 or len(seen))
    return bytes(line)


def _understood(line: bytes) -> dict[str, Any]:
    try:
        answer = parse_answer_untrusted(line)
    except RemoteProtocolError as error:
        raise UnavailableError(str(error)) from error
    if not isinstance(answer, Refusal):
        return answer
    for kind in _KINDS:
        if kind.exit_code == answer.code:
            raise kind(answer.why)
    raise UnavailableError(answer.why)
