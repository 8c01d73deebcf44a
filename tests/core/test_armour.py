# SPDX-License-Identifier: MIT
"""Signed octets as text: lines, blocks, groups of letters."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.armour import (
    blocks_untrusted,
    date,
    find_line,
    fingerprint,
    in_groups,
    lines_untrusted,
    wrap,
)
from mesh.errors import DescriptorError

texts = st.text(st.sampled_from("ab \t\r\n"), max_size=30)


@given(texts)
def test_lines_are_those_of_split(text: str) -> None:
    assert list(lines_untrusted(text)) == [
        (number, line.strip(" \t\r")) for number, line in enumerate(text.split("\n"), 1)
    ]


@given(texts, st.sampled_from(["a", "ab", "bab"]))
def test_a_line_is_found_where_it_is(text: str, wanted: str) -> None:
    at = find_line(text, wanted)
    lines = [line for _, line in lines_untrusted(text)]
    if wanted not in lines:
        assert at == -1
    else:
        assert at == 0 or text[at - 1] == "\n"
        assert text[:at].count("\n") == lines.index(wanted)
        assert next(lines_untrusted(text, at)) == (1, wanted)
        rest = text.find("\n", at)
        later = find_line(text, wanted, rest) if rest >= 0 else -1
        assert (later >= 0) == (lines.count(wanted) > 1)


def test_a_search_may_begin_at_a_line() -> None:
    assert [find_line("ab\nab", "ab", start) for start in (0, 2, 3)] == [0, 3, 3]


@given(st.binary(max_size=200))
def test_wrapped_octets(octets: bytes) -> None:
    lines = wrap(octets)
    assert base64.b64decode("".join(lines)) == octets
    assert all(len(line) == 64 for line in lines[:-1])


def test_blocks() -> None:
    text = "x\nBEGIN \r\na\n END\ny\nBEGIN\nEND"
    assert list(blocks_untrusted(text, "f", "BEGIN", "END")) == [
        (2, ["BEGIN", "a", "END"]),
        (6, ["BEGIN", "END"]),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("BEGIN\na", "f:1: cut off"),
        ("END", "f:1: BEGIN and END do not pair"),
        ("BEGIN\nBEGIN\nEND", "f:2: BEGIN and END do not pair"),
        ("BEGIN\nEND\nEND", "f:3: BEGIN and END do not pair"),
    ],
)
def test_blocks_that_do_not_pair(text: str, why: str) -> None:
    with pytest.raises(DescriptorError, match=why):
        list(blocks_untrusted(text, "f", "BEGIN", "END"))


def test_words_for_eyes_and_ears() -> None:
    assert in_groups(bytes(32)) == " ".join(["AAAA"] * 8)
    assert len(fingerprint(bytes(32))) == 39
    assert fingerprint(bytes(32)) != in_groups(bytes(32))
    assert date(0) == "1970-01-01 00:00:00Z"
