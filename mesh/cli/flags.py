# SPDX-License-Identifier: MIT
"""The command line of a sendmail: what thirty years of programs pass to one.

    -t                 recipients also from the header; Bcc goes
    -i -oi             a line of one dot is no end
    -f ADDR -r ADDR    the reverse-path; without it `<>`: nothing of the user or the host
    -bm -bs -bp -bi    take a message; speak SMTP; show the queue; rebuild aliases
    -q...              run the queue: nothing to do
    -c FILE            our own: the node.toml
    --                 what follows are recipients

All else that sendmails know is accepted and means nothing: -A -B -C -F -G -I -L -N -O -R
-U -V -X -d -e -h -m -n -o -p -s -v -x.  Options may stand behind recipients, in one
word (-ti), their values joined or apart.  Modes that would do something else than the
caller expects (-bv -bt -bd and others) are refused.

No argparse: this runs once a message.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from mesh.errors import NoInputError, UsageError

_VALUE: Final = frozenset("ABCFLNORVXbcefhopr")
"""Letters whose value is the rest of the word, or else the next word."""
_JOINED: Final = frozenset("dq")
"""Letters whose value, if any, is the rest of the word."""
_MODES: Final = frozenset("msip")


class Flags(NamedTuple):
    """What a command line asks for."""

    mode: str = "m"  # m: take a message, s: SMTP, p: the queue, i: aliases, h: help
    config: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()
    from_header: bool = False
    dot_ends: bool = True
    runs_queue: bool = False


def parse_flags(args: list[str], program: str = "mesh-sendmail") -> Flags:
    """Read a command line, without the program's name; UsageError, NoInputError."""
    if program == "mailq":
        return Flags(mode="p")
    if program == "newaliases":
        return Flags(mode="i")
    flags = Flags()
    recipients: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            recipients += words
        elif word.startswith("--"):
            flags = _long(flags, word, words)
        elif word.startswith("-") and word != "-":
            for letter, value in _split(word[1:], words):
                flags = _apply(flags, letter, value)
        else:
            recipients.append(word)
    return flags._replace(recipients=tuple(recipients))


def _split(word: str, words: Iterator[str]) -> list[tuple[str, str]]:
    """Divide one word into letters and their values."""
    found: list[tuple[str, str]] = []
    for at, letter in enumerate(word):
        rest = word[at + 1 :]
        if letter in _JOINED:
            return [*found, (letter, rest)]
        if letter in _VALUE:
            return [*found, (letter, rest or _next(f"-{letter}", words))]
        found.append((letter, ""))
    return found


def _next(option: str, words: Iterator[str]) -> str:
    for word in words:
        return word
    raise UsageError(f"{option} needs a value behind it")


def _long(flags: Flags, word: str, words: Iterator[str]) -> Flags:
    name, equals, value = word.partition("=")
    if name == "--config":
        return _apply(flags, "c", value if equals else _next(name, words))
    if word == "--help":
        return flags._replace(mode="h")
    raise UsageError(f"no option {name!a}: see --help")


def _apply(flags: Flags, letter: str, value: str) -> Flags:
    """Take one option; those that mean nothing change nothing."""
    if letter == "b":
        if value not in _MODES:
            raise UsageError(f"mode -b{ascii(value)[1:-1]} is not there: use -bm")
        return flags._replace(mode=value)
    if letter == "c" and not value:  # a variable that is not set: no default for it
        raise NoInputError("-c: no file has an empty name: name the node.toml")
    if letter == "i" or (letter == "o" and value == "i"):
        return flags._replace(dot_ends=False)
    changes: dict[str, dict[str, object]] = {
        "t": {"from_header": True},
        "c": {"config": value},
        "f": {"sender": value},
        "r": {"sender": value},
        "q": {"runs_queue": True},
    }
    return flags._replace(**changes.get(letter, {}))  # type: ignore[arg-type]
