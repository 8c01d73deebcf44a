# SPDX-License-Identifier: MIT
"""`mesh-sendmail`: what remailers and cron call to hand a message over.

    standard input -> lines end with CRLF -> -t takes recipients and drops Bcc
        node up    -> its local socket (submit.py); exit by its reply
        node down  -> its drop folder, sealed and fsynced (dropoff.py); exit 0

More recipients than the node takes at once, or too many for so long a message, are not
handed over in parts, of which it might refuse the second: it is asked about all, and then
the message goes to the drop folder even while it runs, all or none.  Only where that is
not to be had it goes in parts; once some are taken, a refusal is 75 and says so.

    code   when
      0    on the node's disk, or in its drop folder's
     64    the command line is wrong, or names no recipient
     65    no lawful message: a CR alone, too long, an address that is none
     66    no node.toml, or no standard input
     67    the node serves no such recipient
     70    a bug
     75    try later: no room, no one-time key left
     77    not permitted to
     78    node.toml does not say where

Mixmaster ignores the code, so the second row is there.  The node.toml is the one that
-c or $MESH_CONFIG names, or /etc/mesh/node.toml: NEVER one in the working directory,
where a stranger may have put it.  Only [local] is read, by tomllib alone; what else is
wrong in the file is the node's matter.  A header is never added, and nothing is
printed but one line on standard error when it fails, without any address.

This runs once a message: no click, trio, pydantic, and cryptography only when sealing
needs libsodium.
"""

import os
import sys
from _socket import SHUT_WR
from _socket import socket as Socket  # noqa: N812  # a class with a small name
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from mesh.cli.flags import Flags, parse_flags
from mesh.cli.submit import (
    COPIES_MAX,
    RECIPIENTS_MAX,
    NodeDownError,
    check,
    connect,
    submit,
)
from mesh.core.content import from_lf, is_lawful
from mesh.errors import (
    ConfigError,
    MeshError,
    MessageError,
    NoInputError,
    TryLaterError,
    UsageError,
)

SYSTEM_CONFIG: Final = "/etc/mesh/node.toml"
CONFIG_VARIABLE: Final = "MESH_CONFIG"
CONFIG_MAX_LEN: Final = 1_048_576
"""Octets of a node.toml, as in mesh/config.py."""
MESSAGE_BYTES: Final = 20_971_520
"""[local] message_bytes where the file does not say."""
ADDRESS_MAX_LEN: Final = 254
"""Octets of an address without its brackets: RFC 5321 4.5.3.1.3."""
READ_MAX: Final = 1_048_576
EXIT_BUG: Final = 70
EXIT_INTERRUPTED: Final = 130

HELP: Final = """\
mesh-sendmail [-c FILE] [-t] [-i] [-f ADDR] [RCPT...]   a message on standard input
  -t   recipients also from To, Cc and Bcc; Bcc is removed
  -i   a line of one dot does not end the message
  -f   who is told when it fails; without it nobody is
  -bs  speak SMTP with the node on standard input and output
  -c   the node.toml; else $MESH_CONFIG, /etc/mesh/node.toml
All other options of a sendmail are accepted and mean nothing.
"""
QUEUE: Final = "The queue is the node's: ask it with `mesh queue`.\n"


class Places(NamedTuple):
    """What of a node.toml counts here."""

    socket: str
    drop: str
    message_bytes: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Without one it is the whole process, and ends it: nothing is buffered, no exit
    handler is ours, and taking the interpreter apart lasts 5 ms.
    """
    if argv is None:
        os._exit(_main(sys.argv[1:], os.path.basename(sys.argv[0])))  # noqa: PTH119
    return _main(list(argv), "")


def _main(args: list[str], program: str) -> int:
    try:
        return _run(parse_flags(args, program))
    except MeshError as error:
        for line in str(error).splitlines():
            _say(line)
        return error.exit_code
    except OSError as error:
        _say(f"{error.strerror}: try later")
        return TryLaterError.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # the outermost frame; its text may hold an address
        _say(f"a bug: {type(error).__name__}: please report it")
        return EXIT_BUG


def _run(flags: Flags) -> int:
    if flags.mode in "hp":
        os.write(1, (HELP if flags.mode == "h" else QUEUE).encode())
        return 0
    if flags.mode == "i":
        return 0
    if flags.mode == "s":
        return _relay(find_places(flags.config).socket)
    if flags.runs_queue and not (flags.recipients or flags.from_header):
        return 0
    if not (flags.recipients or flags.from_header):
        raise UsageError("no recipients: name them, or give -t")
    places = find_places(flags.config)
    content = to_crlf(read_input(places.message_bytes, dot_ends=flags.dot_ends))
    recipients = list(flags.recipients)
    if flags.from_header:
        from mesh.core.headers import extract_untrusted

        named, content = extract_untrusted(content)
        recipients += named
    if not recipients:
        raise UsageError("no recipients: neither as arguments nor in To, Cc or Bcc")
    if len(content) > places.message_bytes:
        raise MessageError("longer than [local] message_bytes")
    unique = list(dict.fromkeys(check_address(one) for one in recipients))
    hand_over(places, check_address(flags.sender), unique, content)
    return 0


def hand_over(
    places: Places, sender: str, recipients: Sequence[str], content: bytes
) -> None:
    """Give it to the node, or to its drop folder when it is down."""
    count = len(recipients)
    if count > RECIPIENTS_MAX or (count > 1 and count * len(content) > COPIES_MAX):
        _hand_over_many(places, sender, recipients, content)
        return
    try:
        submit(places.socket, sender, recipients, content)
    except NodeDownError:
        _drop(places, sender, recipients, content)


def _hand_over_many(
    places: Places, sender: str, recipients: Sequence[str], content: bytes
) -> None:
    """Give what one transaction does not hold, to all recipients or to none."""
    try:
        check(places.socket, sender, recipients, len(content))
    except NodeDownError:
        _drop(places, sender, recipients, content)
        return
    try:
        _drop(places, sender, recipients, content)
    except TryLaterError:
        _submit_parts(places, sender, recipients, content)


def _drop(
    places: Places, sender: str, recipients: Sequence[str], content: bytes
) -> None:
    from mesh.cli.dropoff import drop
    from mesh.core.drop import Mail, divide

    parts = divide(recipients, len(content))
    drop(places.drop, [Mail(sender, part, content) for part in parts])


def _submit_parts(
    places: Places, sender: str, recipients: Sequence[str], content: bytes
) -> None:
    """Hand over in parts; a refusal of one of them comes too late for the others."""
    most = max(1, min(RECIPIENTS_MAX, COPIES_MAX // max(1, len(content))))
    for at in range(0, len(recipients), most):
        try:
            submit(places.socket, sender, recipients[at : at + most], content)
        except (MeshError, NodeDownError) as error:
            if not at and isinstance(error, MeshError):
                raise
            raise TryLaterError(
                f"taken for {at} of {len(recipients)} recipients, not for the others"
            ) from error


def check_address(text: str) -> str:
    """Take brackets off; MessageError for what could not stand in a command.

    What else an address may be is said by the node, or checked before the sealing.
    """
    bare = text.strip()
    if bare.startswith("<") and bare.endswith(">"):
        bare = bare[1:-1]
    if (
        len(bare) > ADDRESS_MAX_LEN
        or not (bare.isascii() and bare.isprintable())
        or "<" in bare
        or ">" in bare
    ):
        raise MessageError("an address that is none: user@example.net, in ASCII")
    return bare


def read_input(limit: int, *, dot_ends: bool) -> bytes:
    """Read standard input to its end, or to a line of one dot; LF line ends.

    MessageError past so many octets.
    """
    parts: list[bytes] = []
    length = 0
    while part := _read():
        parts.append(part)
        length += len(part)
        if length > limit + READ_MAX:
            break
    text = b"".join(parts).replace(b"\r\n", b"\n")
    if dot_ends:
        if text.startswith(b".\n"):
            return b""
        text = text.partition(b"\n.\n")[0] + b"\n" if b"\n.\n" in text else text
    if len(text) > limit:
        raise MessageError("longer than [local] message_bytes")
    return text


def _read() -> bytes:
    try:
        return os.read(0, READ_MAX)
    except OSError as error:
        raise NoInputError(
            f"standard input: {error.strerror}: give the message there"
        ) from error


def to_crlf(text: bytes) -> bytes:
    """Make every line end CRLF; MessageError for a CR that stands alone."""
    content = from_lf(text)
    if not is_lawful(content):
        raise MessageError("a CR that no LF follows: send lines of text")
    return content


def find_places(option: str) -> Places:
    """Read what counts of the node.toml; NoInputError, ConfigError."""
    path = option or os.environ.get(CONFIG_VARIABLE, "") or SYSTEM_CONFIG
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            text = os.read(file, CONFIG_MAX_LEN)
        finally:
            os.close(file)
    except OSError as error:
        raise NoInputError(
            f"{path}: {error.strerror}: name the node.toml with -c or $MESH_CONFIG"
        ) from error
    import tomllib

    try:
        local = tomllib.loads(text.decode()).get("local", {})
    except ValueError as error:
        raise ConfigError(f"{path}: no node.toml: {error}") from error
    base = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120
    given: dict[str, Any] = local if isinstance(local, dict) else {"socket": None}
    names = given.get("socket", "local.sock"), given.get("drop", "drop")
    limit = given.get("message_bytes", MESSAGE_BYTES)
    if not (all(isinstance(n, str) and n for n in names) and isinstance(limit, int)):
        raise ConfigError(f"{path}: [local] is wrong: `mesh export` says where")
    socket, drop = (os.path.join(base, name) for name in names)  # noqa: PTH118
    return Places(socket, drop, limit)


def _relay(path: str) -> int:
    """Carry a dialogue between standard input and output and the node's socket.

    When the input ends the node hears that and answers what it has got.
    """
    try:
        sock = connect(path)
    except NodeDownError:
        _write(b"421 the node does not run\r\n")
        raise TryLaterError("the node does not run: start it, or use -bm") from None
    sock.setblocking(False)
    try:
        _carry(sock)
    finally:
        sock.close()
    return 0


def _carry(sock: Socket) -> None:
    from select import POLLIN, POLLOUT, poll

    waiting = b""
    is_open = True
    while True:
        watched = poll()
        watched.register(sock.fileno(), POLLIN | (POLLOUT if waiting else 0))
        if is_open and not waiting:
            watched.register(0, POLLIN)
        ready = dict(watched.poll())
        if 0 in ready:
            waiting = os.read(0, READ_MAX)
            if not waiting:
                is_open = False
                sock.shutdown(SHUT_WR)
        state = ready.get(sock.fileno(), 0)
        try:
            if state & POLLOUT:
                waiting = waiting[sock.send(waiting) :]
            if state & ~POLLOUT:
                octets = sock.recv(READ_MAX)
                if not octets:
                    return
                _write(octets)
        except BrokenPipeError:  # what it said before it left is still to be read
            waiting, is_open = b"", False
        except ConnectionResetError:
            return


def _write(octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(1, rest) :]


def _say(line: str) -> None:
    from mesh.cli.plain import plain

    try:
        os.write(2, f"mesh: {plain(line)}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return
