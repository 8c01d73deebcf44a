# SPDX-License-Identifier: MIT
r"""Command lines: the words of the dialogue (RFC 5321 4.1, 1870, 3030, 2033, 6152).

    HELO SP name   EHLO SP name   LHLO SP name
    MAIL SP FROM:path  [SP SIZE=1*20digit] [SP BODY=7BIT/8BITMIME] [SP ID=32hex]
    RCPT SP TO:path
    DATA           BDAT SP count [SP LAST]
    RSET           QUIT             TURN
    NOOP [SP DONE=32hex *(, 32hex)] [SP string]
    HELP [SP string]                VRFY SP string

Verbs, FROM, TO, LAST and parameters in any case; blanks behind the colon and at the
end of a line are forgiven, nothing else is.  ID and DONE are ours: an id is 16
octets, new for every hop (`mesh help protocol`, 4).

Invariant: encode_command and parse_command_untrusted are each other's inverse.  This
module knows no state: which command may stand where is dialogue.py's table.
"""

import enum
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from mesh.core.envelope import NULL_PATH, Path, split_path_untrusted
from mesh.errors import CommandError

# Octets of a line with its CRLF.  RFC 5321 says 512 and MAIL's extensions add to it;
# 2,048 is Postfix's line and holds DONE_IDS_MAX ids.
LINE_MAX: Final = 2048
# Octets of an id, as PROTOCOL says: 128 random bits.
ID_LEN: Final = 16
# Ids in one NOOP DONE=: 33 characters each, 1,660 in all, below LINE_MAX.
DONE_IDS_MAX: Final = 50

_SIZE: Final = re.compile(r"[0-9]{1,20}")
# What a peer's MAIL has: the same as its words one by one.
_USUAL: Final = re.compile(r" SIZE=([0-9]{1,20}) ID=([0-9A-Fa-f]{32})")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*+")
_CHUNK: Final = re.compile(r"([0-9]{1,20})( ++LAST)?", re.IGNORECASE | re.ASCII)


class Verb(enum.Enum):
    """The verbs that have a meaning; all others are 500."""

    HELO = "HELO"
    EHLO = "EHLO"
    LHLO = "LHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"
    RSET = "RSET"
    NOOP = "NOOP"
    HELP = "HELP"
    VRFY = "VRFY"
    QUIT = "QUIT"
    TURN = "TURN"

    # An enum member's own hash runs Python code, four times a command.
    __hash__ = object.__hash__


class Command(NamedTuple):
    """One command; the fields that its verb has no use for keep their defaults."""

    verb: Verb
    argument: str = ""  # a name or a free string
    path: Path = NULL_PATH  # MAIL, RCPT
    size: int | None = None  # MAIL: octets announced; BDAT: octets that follow
    body: str = ""  # MAIL: "7BIT", "8BITMIME" or nothing
    id: bytes | None = None  # MAIL
    last: bool = False  # BDAT
    ids: tuple[bytes, ...] = ()  # NOOP DONE=


def parse_command_untrusted(line: bytes) -> Command:
    """The command that a line (without its CRLF) holds.

    Raises CommandError with the reply: 500 unknown verb, 501 syntax, 553 an address
    beyond ASCII, 555 unknown parameter.
    """
    known = _KNOWN.get(line)
    if known is not None:
        return known
    word, _, argument = line.decode("latin-1").rstrip(" ").partition(" ")
    verb = _VERBS.get(word.upper())
    if verb is None:
        raise CommandError(500, "no such command")
    return _PARSERS[verb](verb, argument)


def _parse_bare(verb: Verb, argument: str) -> Command:
    if argument:
        raise CommandError(501, f"{verb.value} takes no argument")
    return Command(verb)


def _parse_name(verb: Verb, argument: str) -> Command:
    # Any name: programs send the machine's own, whatever octets that has.
    name = argument.strip(" ")
    if not name:
        raise CommandError(501, f"{verb.value} needs a name")
    return Command(verb, name)


def _parse_string(verb: Verb, argument: str) -> Command:
    argument = argument.strip(" ")
    if not _PRINTABLE.fullmatch(argument):
        raise CommandError(501, "not printable ASCII")
    return Command(verb, argument)


def _parse_vrfy(verb: Verb, argument: str) -> Command:
    command = _parse_string(verb, argument)
    if not command.argument:
        raise CommandError(501, "VRFY needs a string")
    return command


def _parse_noop(verb: Verb, argument: str) -> Command:
    if argument[:5].upper() != "DONE=":
        return _parse_string(verb, argument)
    words = argument[5:].split(",")
    if len(words) > DONE_IDS_MAX:
        raise CommandError(501, "too many ids")
    return Command(verb, ids=tuple([_parse_id(word) for word in words]))


def _parse_mail(verb: Verb, argument: str) -> Command:
    if argument[:5].upper() != "FROM:":
        raise CommandError(501, "MAIL FROM:<address>")
    path, rest = split_path_untrusted(argument[5:].lstrip(" "), reverse=True)
    if not rest:
        return Command(verb, path=path)
    if usual := _USUAL.fullmatch(rest):
        size, id_ = usual.groups()
        return Command(verb, path=path, size=int(size), id=bytes.fromhex(id_))
    given = _parse_parameters(rest)
    size = given.pop("SIZE", None)
    body = given.pop("BODY", None)
    id_ = given.pop("ID", None)
    if given:
        raise CommandError(555, "unknown parameter of MAIL")
    return Command(
        verb,
        path=path,
        size=None if size is None else _parse_size(size),
        body="" if body is None else _parse_body(body),
        id=None if id_ is None else _parse_id(id_),
    )


def _parse_rcpt(verb: Verb, argument: str) -> Command:
    if argument[:3].upper() != "TO:":
        raise CommandError(501, "RCPT TO:<address>")
    path, rest = split_path_untrusted(argument[3:].lstrip(" "), reverse=False)
    if rest and _parse_parameters(rest):
        raise CommandError(555, "unknown parameter of RCPT")
    return Command(verb, path=path)


def _parse_bdat(verb: Verb, argument: str) -> Command:
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise CommandError(501, "BDAT count, or BDAT count LAST")
    return Command(verb, size=int(match[1]), last=match[2] is not None)


def _parse_parameters(rest: str) -> dict[str, str]:
    if not rest.startswith(" "):
        raise CommandError(501, "no blank behind the address")
    given: dict[str, str] = {}
    for word in rest.strip(" ").split(" "):
        name, _, value = word.partition("=")
        name = name.upper()
        if name in given:
            raise CommandError(501, "a parameter twice")
        given[name] = value
    return given


def _parse_size(word: str) -> int:
    if not _SIZE.fullmatch(word):
        raise CommandError(501, "a count is 1 to 20 digits")
    return int(word)


def _parse_body(word: str) -> str:
    body = word.upper()
    if body == "BINARYMIME":  # RFC 3030, which we do not offer: bare CR and LF
        raise CommandError(555, "BODY=BINARYMIME is not offered")
    if body not in {"7BIT", "8BITMIME"}:
        raise CommandError(501, "BODY is 7BIT or 8BITMIME")
    return body


def _parse_id(word: str) -> bytes:
    try:  # `fromhex` alone would take blanks between the digits
        if len(word) == 2 * ID_LEN and word.isalnum():
            return bytes.fromhex(word)
    except ValueError:
        pass
    raise CommandError(501, "an id is 32 hex digits")


_VERBS: Final[Mapping[str, Verb]] = {verb.value: verb for verb in Verb}
_PARSERS: Final[Mapping[Verb, Callable[[Verb, str], Command]]] = {
    Verb.HELO: _parse_name,
    Verb.EHLO: _parse_name,
    Verb.LHLO: _parse_name,
    Verb.MAIL: _parse_mail,
    Verb.RCPT: _parse_rcpt,
    Verb.DATA: _parse_bare,
    Verb.BDAT: _parse_bdat,
    Verb.RSET: _parse_bare,
    Verb.NOOP: _parse_noop,
    Verb.HELP: _parse_string,
    Verb.VRFY: _parse_vrfy,
    Verb.QUIT: _parse_bare,
    Verb.TURN: _parse_bare,
}
# What is said in each message in one way by nearly all is not parsed each time.
_KNOWN: Final[Mapping[bytes, Command]] = {
    verb.value.encode(): Command(verb) for verb in (Verb.DATA, Verb.RSET, Verb.QUIT)
}


def encode_command(command: Command) -> bytes:
    """The line with its CRLF."""
    verb = command.verb
    line = verb.value
    if verb is Verb.RCPT:
        line = f"RCPT TO:<{command.path.text}>"
    elif verb is Verb.MAIL:
        size = "" if command.size is None else f" SIZE={command.size}"
        body = f" BODY={command.body}" if command.body else ""
        id_ = "" if command.id is None else f" ID={command.id.hex()}"
        line = f"MAIL FROM:<{command.path.text}>{size}{body}{id_}"
    elif verb is Verb.BDAT:
        line = f"BDAT {command.size} LAST" if command.last else f"BDAT {command.size}"
    elif command.ids:
        line = f"{line} DONE={','.join([id_.hex() for id_ in command.ids])}"
    elif command.argument:
        line = f"{line} {command.argument}"
    return line.encode("latin-1") + b"\r\n"


def encode_rcpts(recipients: tuple[str, ...]) -> list[bytes]:
    """RCPT lines with their CRLF, for who sends many: no Command each."""
    return [f"RCPT TO:<{path}>\r\n".encode("latin-1") for path in recipients]
