# SPDX-License-Identifier: MIT
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.command import (
    DONE_IDS_MAX,
    LINE_MAX,
    Command,
    Verb,
    encode_command,
    parse_command_untrusted,
)
from mesh.core.envelope import Path
from mesh.errors import CommandError
from tests import strategies

ID = bytes(range(16))


def code_of(line: bytes) -> int:
    with pytest.raises(CommandError) as caught:
        parse_command_untrusted(line)
    return caught.value.code


@given(
    st.from_regex(rb"SIZE=[0-9]{1,21}", fullmatch=True),
    st.from_regex(rb"ID=[0-9A-Fa-f]{31,32}", fullmatch=True),
)
def test_parameters_mean_the_same_in_any_order(size: bytes, id_: bytes) -> None:
    lawful = len(size) <= 25 and len(id_) == 35
    for words in ((size, id_), (id_, size), (size, b"BODY=7BIT", id_)):
        line = b"MAIL FROM:<a@b> " + b" ".join(words)
        if not lawful:
            assert code_of(line) == 501
            continue
        command = parse_command_untrusted(line)
        assert command.size == int(size[5:])
        assert command.id == bytes.fromhex(id_[3:].decode())


@given(strategies.commands)
def test_a_command_reads_back(command: Command) -> None:
    line = encode_command(command)
    assert line.endswith(b"\r\n")
    assert len(line) <= LINE_MAX
    assert parse_command_untrusted(line[:-2]) == command


VERBS = st.sampled_from([b"", *[verb.value.encode() for verb in Verb]])
MIDDLES = st.sampled_from(
    [b"", b" ", b" FROM:<", b" FROM:<> ", b" TO:<a@b> ", b" DONE="]
)


@given(VERBS, MIDDLES, st.binary(max_size=30))
def test_garbage_raises_its_own_error_only(
    verb: bytes, middle: bytes, rest: bytes
) -> None:
    codes = set()
    try:
        parse_command_untrusted(verb + middle + rest)
    except CommandError as error:
        codes.add(error.code)
    assert codes <= {500, 501, 553, 555}


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"helo  x y ", Command(Verb.HELO, "x y")),
        (b"EHLO \xe9", Command(Verb.EHLO, "\xe9")),
        (b"mail from:<>", Command(Verb.MAIL)),
        (b"Mail From:  <a@b>", Command(Verb.MAIL, path=Path("a@b"))),
        (
            b"MAIL FROM:<a@b> size=5 body=8bitmime id=" + ID.hex().upper().encode(),
            Command(Verb.MAIL, path=Path("a@b"), size=5, body="8BITMIME", id=ID),
        ),
        (b"RCPT TO: <PostMaster>", Command(Verb.RCPT, path=Path("PostMaster"))),
        (b"bdat 0 last", Command(Verb.BDAT, size=0, last=True)),
        (b"BDAT 7  LAST", Command(Verb.BDAT, size=7, last=True)),
        (b"BDAT 7", Command(Verb.BDAT, size=7)),
        (b"NOOP", Command(Verb.NOOP)),
        (b"noop done=" + ID.hex().encode(), Command(Verb.NOOP, ids=(ID,))),
        (b"HELP", Command(Verb.HELP)),
        (b"VRFY  x", Command(Verb.VRFY, "x")),
        (b"QUIT  ", Command(Verb.QUIT)),
    ],
)
def test_known_lines(line: bytes, command: Command) -> None:
    assert parse_command_untrusted(line) == command
    assert parse_command_untrusted(encode_command(command)[:-2]) == command


def test_lines_have_no_blank_at_their_end() -> None:
    assert encode_command(Command(Verb.RSET)) == b"RSET\r\n"
    assert encode_command(Command(Verb.BDAT, size=3)) == b"BDAT 3\r\n"
    assert encode_command(Command(Verb.MAIL)) == b"MAIL FROM:<>\r\n"


def test_the_longest_list_of_ids_fits_a_line() -> None:
    command = Command(Verb.NOOP, ids=(ID,) * DONE_IDS_MAX)
    line = encode_command(command)
    assert len(line) <= LINE_MAX
    assert parse_command_untrusted(line[:-2]) == command


@pytest.mark.parametrize(
    "line", [b"", b" ", b"EXPN x", b"HELOx", b" HELO x", b"\xff", b"MAIL\tFROM:<>"]
)
def test_unknown_verbs(line: bytes) -> None:
    assert code_of(line) == 500


@pytest.mark.parametrize(
    "line",
    [
        b"HELO",
        b"VRFY",
        b"VRFY \x00",
        b"DATA now",
        b"RSET x",
        b"QUIT x",
        b"TURN x",
        b"NOOP \xe9",
        b"NOOP DONE=",
        b"NOOP DONE=" + ID.hex().encode() + b",x",
        b"NOOP DONE=" + b",".join([ID.hex().encode()] * (DONE_IDS_MAX + 1)),
        b"MAIL",
        b"MAIL TO:<a@b>",
        b"MAIL FORM:<a@b>",
        b"MAIL FROM:<a@b>SIZE=1",
        b"MAIL FROM:<a@b> SIZE=",
        b"MAIL FROM:<a@b> SIZE=-1",
        b"MAIL FROM:<a@b> SIZE=" + b"9" * 21,
        b"MAIL FROM:<a@b> SIZE=1 SIZE=1",
        b"MAIL FROM:<a@b> BODY=9BIT",
        b"MAIL FROM:<a@b> ID=" + b"0" * 31,
        b"MAIL FROM:<a@b> ID=" + b"0" * 33,
        b"MAIL FROM:<a@b> ID=" + b"x" * 32,
        b"MAIL FROM:<a@b> ID=" + b"\xb2" * 32,
        b"NOOP DONE=" + b" 00" * 10 + b" 0",
        b"RCPT",
        b"RCPT FROM:<a@b>",
        b"RCPT IN:<a@b>",
        b"RCPT TO:<a@b>x",
        b"RCPT TO:<>",
        b"RCPT TO:<a>",
        b"BDAT",
        b"BDAT x",
        b"BDAT 1 2",
        b"BDAT 1 LAST x",
        b"BDAT 1\x1cLAST",
        b"BDAT -1",
        b"BDAT " + b"9" * 21,
    ],
)
def test_syntax(line: bytes) -> None:
    assert code_of(line) == 501


@pytest.mark.parametrize(
    "line",
    [
        b"MAIL FROM:<a@b> AUTH=<>",
        b"MAIL FROM:<a@b> SMTPUTF8",
        b"MAIL FROM:<a@b> BODY=BINARYMIME",
        b"RCPT TO:<a@b> NOTIFY=NEVER",
    ],
)
def test_unknown_parameters(line: bytes) -> None:
    assert code_of(line) == 555


def test_addresses_beyond_ascii() -> None:
    assert code_of(b"RCPT TO:<\xc3\xa9@b>") == 553
    assert code_of(b"MAIL FROM:<\xe9@b>") == 553
