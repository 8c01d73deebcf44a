# SPDX-License-Identifier: MIT
from mesh.core.reply import (
    BARE_CR_OR_LF,
    NO_ROOM,
    NO_SUCH_RECIPIENT,
    OK,
    TOO_BIG,
    TRY_LATER,
)
from mesh.core.transaction import BLOCK_LEN, RECIPIENTS_MAX, Transaction


def test_a_recipient_named_twice_is_one_but_answered_twice() -> None:
    mail = Transaction("from@a", b"i" * 16)
    for path in ("x@b", "y@b", "x@b"):
        mail.add_recipient(path)
    assert mail.recipients == ("x@b", "y@b")
    assert mail.final_replies((OK, NO_ROOM), each=True) == [OK, NO_ROOM, OK]
    assert mail.final_replies((OK,), each=True) == [OK, OK, OK]
    assert mail.final_replies((OK,), each=False) == [OK]
    assert Transaction().final_replies((OK,), each=True) == [OK]


def test_the_room_for_recipients_counts_every_rcpt() -> None:
    mail = Transaction()
    for _ in range(RECIPIENTS_MAX):
        assert not mail.full
        mail.add_recipient("x@b")
    assert mail.full


def test_the_first_refusal_stands() -> None:
    mail = Transaction()
    mail.refuse_recipient(NO_SUCH_RECIPIENT)
    mail.refuse_recipient(NO_ROOM)
    assert mail.refused is NO_SUCH_RECIPIENT


def test_content_is_kept_until_it_fails() -> None:
    mail = Transaction()
    mail.add_content(b"one ")
    mail.add_content(b"two")
    assert mail.octets == 7
    assert mail.take_content() == b"one two"
    assert mail.octets == 0
    mail.add_content(b"three")
    mail.fail(TOO_BIG)
    mail.fail(TRY_LATER)
    mail.add_content(b"four")
    assert mail.octets == 0
    assert mail.verdict(b"", 10) is TOO_BIG


def test_much_content_is_as_one_and_fails_as_one() -> None:
    pieces = [bytes([at]) * (BLOCK_LEN // 3 + at) for at in range(1, 11)]
    mail = Transaction()
    for whole in (True, False):
        for piece in pieces:
            mail.add_content(memoryview(piece))
        assert mail.octets == sum(map(len, pieces))
        if whole:
            assert mail.take_content() == b"".join(pieces)
            assert mail.octets == 0
    mail.fail(TOO_BIG)
    assert mail.octets == 0
    assert mail.take_content() == b""


def test_the_verdict() -> None:
    mail = Transaction()
    assert mail.verdict(b"1234\r\n", 6) is None
    assert mail.verdict(b"12345\r\n", 6) is TOO_BIG
    assert mail.verdict(b"1234\n", 6) is BARE_CR_OR_LF
