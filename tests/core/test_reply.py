# SPDX-License-Identifier: MIT
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core import reply as reply_module
from mesh.core.reply import (
    BYE,
    KNOWN_MAX,
    OK,
    REPLY_LINE_MAX,
    REPLY_LINES_MAX,
    START_MAIL,
    Reply,
    ReplyReader,
    Severity,
)
from mesh.errors import LocalProtocolError, RemoteProtocolError
from tests import strategies


def read(reader: ReplyReader, *pieces: bytes) -> list[Reply]:
    found = []
    for piece in pieces:
        reader.receive_data(piece)
        while (reply := reader.next_reply()) is not None:
            found.append(reply)
    return found


@given(st.data(), st.lists(strategies.replies, max_size=4))
def test_any_split_of_encoded_replies_reads_back(
    data: st.DataObject, replies: list[Reply]
) -> None:
    octets = b"".join([reply.encode() for reply in replies])
    assert read(ReplyReader(), *data.draw(strategies.splits(octets))) == replies


@given(strategies.hostile | st.binary())
def test_garbage_raises_its_own_error_only(octets: bytes) -> None:
    reader = ReplyReader()
    try:
        read(reader, octets)
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            reader.next_reply()


def test_a_constant_is_not_made_anew() -> None:
    octets = OK.encode() + START_MAIL.encode() + BYE.encode()
    assert [id(reply) for reply in read(ReplyReader(), octets)] == [
        id(OK),
        id(START_MAIL),
        id(BYE),
    ]


def test_a_line_that_comes_again_is_not_made_anew() -> None:
    reader = ReplyReader()

    def read(line: bytes) -> Reply:
        reader.receive_data(line)
        (reply,) = iter(reader.next_reply, None)
        return reply

    assert read(b"250 2.1.0 Ok\r\n") is read(b"250 2.1.0 Ok\r\n")
    read(b"250-two\r\n250 lines\r\n")
    assert read(b"250 lines\r\n") == Reply(250, "lines")


def test_few_lines_are_kept_and_none_with_an_address() -> None:
    reader = ReplyReader()
    for word in ("a" * length for length in range(1, 2 * KNOWN_MAX)):
        for text in (f"<who@{word}> ok", f"2.1.0 {word}", word):
            for _ in range(2):
                assert read(reader, f"250 {text}\r\n".encode()) == [Reply(250, text)]
    assert len(reader._known) == KNOWN_MAX
    assert b"250 2.1.0 a\r\n" in reader._known
    assert not any(b"@" in line for line in reader._known)


@pytest.mark.parametrize(
    "text", ["queued as 7F3A", "2.0.0 Ok: 99", "x" * 65, "2.0.0 " + "x" * 65]
)
def test_a_line_that_may_name_a_message_or_is_long_is_not_kept(text: str) -> None:
    reader = ReplyReader()
    before = len(reader._known)
    for _ in range(2):
        assert read(reader, f"250 {text}\r\n".encode()) == [Reply(250, text)]
    assert len(reader._known) == before


def test_the_last_line_of_several_is_not_kept_for_all_of_them() -> None:
    reader = ReplyReader()
    assert read(reader, b"250-a\r\n250 b\r\n250 b\r\n") == [
        Reply(250, "a\nb"),
        Reply(250, "b"),
    ]


def test_a_constant_line_inside_a_longer_reply_is_its_last_line() -> None:
    assert read(ReplyReader(), b"250-first\r\n" + OK.encode()) == [
        Reply(250, "first\nok")
    ]


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"250\r\n", ""),
        (b"250 \r\n", ""),
        (b"250 a\tb\x00\xff\r\n", "a?b??"),
    ],
)
def test_text_that_is_missing_or_not_printable(octets: bytes, text: str) -> None:
    assert read(ReplyReader(), octets) == [Reply(250, text)]


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"\n",
        b"250 ok\r\n\n",
        b"250 bare line feed\n",
        b"250 a\rb\r\n",
        b"\r\n",
        b"25 x\r\n",
        b"2500 x\r\n",
        b"150 preliminary\r\n",
        b"650 beyond\r\n",
        b"250-one\r\n251 other code\r\n",
        b"250-x\r\n" * REPLY_LINES_MAX + b"250 x\r\n",
        b"250 " + b"x" * (REPLY_LINE_MAX - 5) + b"\r\n",
        b"250 " + b"x" * REPLY_LINE_MAX,
    ],
)
def test_no_reply(octets: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(ReplyReader(), octets)


def test_the_longest_line_and_the_most_lines_pass() -> None:
    line = b"250 " + b"x" * (REPLY_LINE_MAX - 6) + b"\r\n"
    lines = b"250-x\r\n" * (REPLY_LINES_MAX - 1) + b"250 x\r\n"
    assert len(read(ReplyReader(), line + lines)) == 2


def test_a_reply_before_garbage_is_not_lost() -> None:
    reader = ReplyReader()
    reader.receive_data(b"250 ok\r\nnonsense\r\n")
    assert reader.next_reply() is OK
    with pytest.raises(RemoteProtocolError):
        reader.next_reply()


@pytest.mark.parametrize(
    ("code", "severity", "positive", "transient", "permanent"),
    [
        (250, Severity.POSITIVE, True, False, False),
        (299, Severity.POSITIVE, True, False, False),
        (300, Severity.INTERMEDIATE, False, False, False),
        (399, Severity.INTERMEDIATE, False, False, False),
        (400, Severity.TRANSIENT, False, True, False),
        (499, Severity.TRANSIENT, False, True, False),
        (500, Severity.PERMANENT, False, False, True),
        (354, Severity.INTERMEDIATE, False, False, False),
        (452, Severity.TRANSIENT, False, True, False),
        (550, Severity.PERMANENT, False, False, True),
    ],
)
def test_severity(
    code: int, severity: Severity, positive: bool, transient: bool, permanent: bool
) -> None:
    reply = Reply(code, "x")
    assert reply.severity is severity
    assert (reply.positive, reply.transient, reply.permanent) == (
        positive,
        transient,
        permanent,
    )


def test_the_codes_are_those_of_the_protocol() -> None:
    constants = {
        name: value.code
        for name, value in vars(reply_module).items()
        if isinstance(value, Reply)
    }
    assert constants == {
        "HELP": 214,
        "BYE": 221,
        "OK": 250,
        "CANNOT_VERIFY": 252,
        "START_MAIL": 354,
        "SHUTTING_DOWN": 421,
        "TRY_LATER": 451,
        "NO_ROOM": 452,
        "TOO_MANY_RECIPIENTS": 452,
        "UNKNOWN_VERB": 500,
        "LINE_TOO_LONG": 500,
        "BARE_LINE_END": 500,
        "NOT_IMPLEMENTED": 502,
        "BAD_SEQUENCE": 503,
        "NO_SUCH_RECIPIENT": 550,
        "WRONG_NAME": 550,
        "TOO_BIG": 552,
        "BARE_CR_OR_LF": 554,
        "NO_VALID_RECIPIENTS": 554,
        "PARAMETER_REFUSED": 555,
    }


@pytest.mark.parametrize(
    ("code", "text"), [(199, ""), (600, ""), (250, "a\rb"), (250, "é"), (250, "\x7f")]
)
def test_what_cannot_be_sent_is_our_bug(code: int, text: str) -> None:
    with pytest.raises(LocalProtocolError):
        Reply(code, text)


def test_what_is_left_is_counted() -> None:
    reader = ReplyReader()
    reader.receive_data(b"220 x\r\n25")
    assert reader.next_reply() == Reply(220, "x")
    assert reader.buffered == 2


def test_an_ok_may_end_a_longer_reply() -> None:
    longer = Reply(250, "node\nok")
    assert read(ReplyReader(), longer.encode() + OK.encode()) == [longer, OK]
    assert read(ReplyReader(), b"250-node\r\n", b"250 o", b"k\r\n") == [longer]
