# SPDX-License-Identifier: MIT
import re

import pytest
from hypothesis import given

from mesh.core.content import (
    DOTS_MAX,
    PIECE_LEN,
    from_lf,
    is_lawful,
    stuffed_limit,
    to_lf,
    to_stuffed,
    unstuff,
)
from mesh.errors import LocalProtocolError
from tests import strategies


@given(strategies.hostile)
def test_the_law_is_the_grammar(octets: bytes) -> None:
    lawful = re.fullmatch(rb"(?:[^\r\n]|\r\n)*", octets) is not None
    assert is_lawful(octets) is lawful
    assert is_lawful(bytearray(octets)) is lawful


@pytest.mark.parametrize(
    "octets", [b"\r", b"\n", b"\n\r", b"\r\r\n", b"\r\n\n", b"a\nb\rc"]
)
def test_bare_ends_are_unlawful(octets: bytes) -> None:
    assert not is_lawful(octets)
    with pytest.raises(LocalProtocolError):
        to_stuffed(octets)


@pytest.mark.parametrize("at", [PIECE_LEN - 2, PIECE_LEN - 1, PIECE_LEN])
def test_the_law_holds_where_two_pieces_meet(at: int) -> None:
    for end in (b"", b"x" * 9, b"x" * PIECE_LEN):
        assert is_lawful(b"x" * at + b"\r\n" + end)
        for ends in (b"\r", b"\n", b"\r\r\n", b"\n\r"):
            assert not is_lawful(b"x" * at + ends + end)


@pytest.mark.parametrize("dots", [0, 1, DOTS_MAX - 1, DOTS_MAX, DOTS_MAX + 1])
@pytest.mark.parametrize("between", [b"", b"\r\n", b"x"])
def test_a_dot_that_begins_a_line_behind_so_many(dots: int, between: bytes) -> None:
    before = b"x." * dots + between + b"\r\n"
    assert to_stuffed(before + b".y\r\n") == before + b"..y\r\n.\r\n"
    assert unstuff(before + b"..y\r\n") == before + b".y\r\n"
    assert to_stuffed(before + b"y\r\n") == before + b"y\r\n.\r\n"


@given(strategies.contents)
def test_stuffing_is_undone(content: bytes) -> None:
    stuffed = to_stuffed(content)
    assert stuffed.endswith(b".\r\n")
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    assert unstuff(stuffed[:-3]) == content


@given(strategies.contents)
def test_a_stuffed_text_ends_once_and_only_at_its_end(content: bytes) -> None:
    stuffed = b"\r\n" + to_stuffed(content)
    assert stuffed.find(b"\r\n.\r\n") == len(stuffed) - 5


@given(strategies.contents)
def test_stuffing_keeps_to_its_limit(content: bytes) -> None:
    for text in (content, b"\r\n." * 100, b".\r\n" * 100, b"."):
        doubled = len(to_stuffed(text)) - len(b".\r\n")
        if not text.endswith(b"\r\n"):
            doubled -= 2 if text else 0
        assert doubled <= stuffed_limit(len(text))


@given(strategies.contents)
def test_lf_form_is_undone(content: bytes) -> None:
    assert from_lf(to_lf(content)) == content


def test_the_limit_of_stuffing_is_tight() -> None:
    worst = b"." + b"\r\n." * 333
    assert len(to_stuffed(worst)) - len(b"\r\n.\r\n") == stuffed_limit(len(worst))


def test_known_answers() -> None:
    assert to_stuffed(b"") == b".\r\n"
    assert to_stuffed(b".") == b"..\r\n.\r\n"
    assert to_stuffed(b"a\r\n.b\r\n") == b"a\r\n..b\r\n.\r\n"
    assert unstuff(b"a\r\n") == b"a\r\n"
    assert unstuff(b"..\r\n.x\r\n...\r\n") == b".\r\nx\r\n..\r\n"
    assert to_lf(b"a\r\n\r\nb") == b"a\n\nb"
    assert from_lf(b"a\n\nb") == b"a\r\n\r\nb"
