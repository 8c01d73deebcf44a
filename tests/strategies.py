# SPDX-License-Identifier: MIT
"""The Hypothesis vocabulary: addresses, replies, commands, contents, splits."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from mesh.core.command import Command, Verb
from mesh.core.envelope import Path
from mesh.core.reply import Reply

# Cut points of one stream: more makes a run slow and finds nothing new.
CUTS_MAX = 8

ATEXT = "abcXYZ019!#$%&'*+/=?^_`{|}~-"

labels = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,6}[A-Za-z0-9])?", fullmatch=True)
domains = st.lists(labels, min_size=1, max_size=3).map(".".join)
dotted = st.text(ATEXT + ".", min_size=1, max_size=12)
quoted = st.lists(
    st.one_of(
        st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'),
        st.characters(min_codepoint=0x20, max_codepoint=0x7E).map(lambda c: "\\" + c),
    ),
    max_size=8,
).map(lambda parts: f'"{"".join(parts)}"')
locals_ = st.one_of(dotted, quoted)
literals = st.sampled_from(["[192.0.2.1]", "[IPv6:2001:db8::1]", "[x-tag:abc]"])
addresses = st.builds("{}@{}".format, locals_, st.one_of(domains, literals))
routes = st.lists(domains.map("@{}".format), min_size=1, max_size=2).map(",".join)
forward_paths = st.one_of(
    addresses.map(Path),
    st.tuples(addresses, routes).map(lambda pair: Path(*pair)),
    st.sampled_from([Path("postmaster"), Path("Postmaster")]),
)
reverse_paths = st.one_of(st.just(Path("")), locals_.map(Path), addresses.map(Path))

printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
replies = st.builds(
    Reply,
    st.integers(200, 599),
    st.lists(printable, min_size=1, max_size=4).map("\n".join),
)
final_replies = st.builds(
    Reply,
    st.sampled_from([250, 250, 251, 450, 452, 550, 554]),
    printable,
)

ids = st.binary(min_size=16, max_size=16)
# Words that survive the stripping of blanks at both ends.
strings = printable.map(lambda text: text.strip(" "))


def _commands(*verbs: Verb, **fields: st.SearchStrategy[Any]) -> Any:
    drawn = st.fixed_dictionaries({"verb": st.sampled_from(verbs), **fields})
    return drawn.map(lambda given: Command(**given))


_sizes = st.integers(0, 10**20 - 1)
commands: st.SearchStrategy[Command] = st.one_of(
    _commands(
        Verb.HELO, Verb.EHLO, Verb.LHLO, Verb.VRFY, argument=strings.filter(bool)
    ),
    _commands(
        Verb.MAIL,
        path=reverse_paths,
        size=st.none() | _sizes,
        body=st.sampled_from(["", "7BIT", "8BITMIME"]),
        id=st.none() | ids,
    ),
    _commands(Verb.RCPT, path=forward_paths),
    _commands(Verb.BDAT, size=_sizes, last=st.booleans()),
    _commands(Verb.NOOP, ids=st.lists(ids, min_size=1, max_size=50).map(tuple)),
    _commands(
        Verb.NOOP,
        Verb.HELP,
        argument=strings.filter(lambda text: text[:5].upper() != "DONE="),
    ),
    _commands(Verb.DATA, Verb.RSET, Verb.QUIT, Verb.TURN),
)

# What mail is made of, and what hurts programs that read it.
PIECES = [
    b"",
    b".",
    b"..",
    b"\r\n",
    b"\r\n.",
    b".\r\n",
    b"\r\n.\r\n",
    b"\r\n..\r\n",
    b"\x00",
    b"\xff\xfe\x80",
    b"From ",
    b"QUIT\r\n",
    b"BDAT 3 LAST\r\n",
    b"line " * 20,
    b"L" * 5000,
]
# Every CR before an LF and every LF behind a CR: joining lawful pieces is lawful.
contents = st.lists(
    st.sampled_from(PIECES)
    | st.binary(max_size=20).map(
        lambda octets: octets.replace(b"\r", b"").replace(b"\n", b"")
    ),
    max_size=8,
).map(b"".join)
# Any octets, most of them near to what the grammar is about.
hostile = st.lists(
    st.sampled_from([*PIECES, b"\r", b"\n", b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n"])
    | st.binary(max_size=12),
    max_size=10,
).map(b"".join)


def splits(octets: bytes) -> st.SearchStrategy[list[bytes]]:
    """The octets, cut at up to CUTS_MAX places; pieces may be empty."""
    cuts = st.lists(st.integers(0, len(octets)), max_size=CUTS_MAX)
    return cuts.map(lambda places: cut(octets, sorted(places)))


def cut(octets: bytes, places: Sequence[int]) -> list[bytes]:
    """The octets, cut at these places."""
    ends = [*places, len(octets)]
    return [octets[a:b] for a, b in zip([0, *places], ends, strict=True)]
