# SPDX-License-Identifier: MIT
"""Recipients out of a header: what Postfix takes, and linear work for everything."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mesh
from mesh.core.headers import addresses_untrusted, extract_untrusted

BODY = b"\r\nTo: body@c.test\r\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" \r\n ", []),
        ("a@b.test", ["a@b.test"]),
        ("a@b.test, c@d.test", ["a@b.test", "c@d.test"]),
        ("a@b.test,,\r\n\tc@d.test,", ["a@b.test", "c@d.test"]),
        ("A B <a@b.test>", ["a@b.test"]),
        ('"B, A" <a@b.test>, c@d.test', ["a@b.test", "c@d.test"]),
        (r'"say \"x\", <y>" <a@b.test>', ["a@b.test"]),
        ('"odd name"@b.test', ['"odd name"@b.test']),
        ("a@b.test (me (and, you))", ["a@b.test"]),
        ('(") a@b.test (")', ["a@b.test"]),
        (r"(\)) a@b.test (\( ", ["a@b.test"]),
        ("([) a@b.test, c@d.test", ["a@b.test", "c@d.test"]),
        ("a @ b . test", ["a@b.test"]),
        ("friends: a@b.test, C <c@d.test>;", ["a@b.test", "c@d.test"]),
        ("undisclosed-recipients:;", []),
        ("x:; a@b.test", ["a@b.test"]),
        ("a@[IPv6:1::2]", ["a@[IPv6:1::2]"]),
        ("<@r.test:a@b.test>", ["@r.test:a@b.test"]),
        ("<>", []),
        ("A <a@b.test> trailing words", ["a@b.test"]),
        ("A <a@b.test> <c@d.test>", ["a@b.test", "c@d.test"]),
        ("A <a@b.test", ["a@b.test"]),
        ('"never closed, a@b.test', ['"never closed, a@b.test']),
        ('"never closed\\', ['"never closed\\']),
        ("a@[never closed, c@d.test", ["a@[never closed, c@d.test"]),
        ("(never closed a@b.test", []),
        (") a@b.test", ["a@b.test"]),
        ("a@b.test >, c@d.test", ["a@b.test", "c@d.test"]),
        ("a>b@c.test", ["a", "b@c.test"]),
        # forgotten commas
        ("a@b.test c@d.test", ["a@b.test", "c@d.test"]),
        ("a@b.test\r\n c@d.test", ["a@b.test", "c@d.test"]),
        ("joe a@b.test", ["joe", "a@b.test"]),
        ("a(me)b@c.test", ["a", "b@c.test"]),
        ('"a"b@c.test', ['"a"', "b@c.test"]),
        ("a@b.test [1.2.3.4]", ["a@b.test", "[1.2.3.4]"]),
        ("<a@b.test> c@d.test", ["a@b.test", "c@d.test"]),
        ("<a@b.test>, c@d.test, e", ["a@b.test", "c@d.test", "e"]),
        ("a@b.test C <c@d.test>", ["c@d.test"]),
        ("A <a@b.test> <root>", ["a@b.test", "root"]),
        # and what belongs together all the same
        ('"a b" @ c . (x) test', ['"a b"@c.test']),
        ("a@ [1.2.3.4]", ["a@[1.2.3.4]"]),
        ("<a (x) b @ c.test>", ["ab@c.test"]),
        (r"a\ b\@c@d.test", [r"a\ b\@c@d.test"]),
        (r"a \b@c.test", ["a", r"\b@c.test"]),
        ("root", ["root"]),
        ("j\xf6rg@b.test", ["j\xf6rg@b.test"]),
    ],
)
def test_lists_of_addresses(text: str, found: list[str]) -> None:
    assert addresses_untrusted(text) == found


@pytest.mark.parametrize(
    ("header", "recipients", "kept"),
    [
        (b"To: a@b.test\r\n", ["a@b.test"], None),
        (b"tO : a@b.test\r\nSubject: To: x\r\n", ["a@b.test"], None),
        (b"To: a@b.test,\r\n c@d.test\r\nX: y\r\n", ["a@b.test", "c@d.test"], None),
        (b"Cc: a@b.test\r\nBcc: c@d.test\r\n", ["a@b.test", "c@d.test"], b"Cc: a@b.test\r\n"),
        (
            b"A: 1\r\nBCC: a@b.test,\r\n\tc@d.test\r\nTo: e@f.test\r\nbcc: g@h.test\r\nZ: 2\r\n",
            ["a@b.test", "c@d.test", "e@f.test", "g@h.test"],
            b"A: 1\r\nTo: e@f.test\r\nZ: 2\r\n",
        ),
        (
            b"To: a@b.test\r\nResent-To: c@d.test\r\nResent-Bcc: e@f.test\r\n",
            ["c@d.test", "e@f.test"],
            b"To: a@b.test\r\nResent-To: c@d.test\r\n",
        ),
        (b"To: a@b.test\r\nResent-Cc:\r\n", [], None),
        (b"To-Do: a@b.test\r\n", [], None),
        (b'To: "a\r\n b"@c.test\r\n', ['"a b"@c.test'], None),
        (b"To: a@b.test,\r\n \r\nCc: c@d.test\r\n", ["a@b.test", "c@d.test"], None),
        (b"", [], None),
    ],
)  # fmt: skip
def test_headers(header: bytes, recipients: list[str], kept: bytes | None) -> None:
    message = header + BODY
    expected = header if kept is None else kept
    assert extract_untrusted(message) == (recipients, expected + BODY)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\r\n",
        b"To a@b.test\r\nTo: c@d.test\r\n",
        b" To: a@b.test\r\n",
        b"\tfolded\r\nTo: a@b.test\r\n",
        b"From somebody Thu Jan  1\r\nTo: a@b.test\r\n",
        b"j\xf6rg: x\r\nTo: a@b.test\r\n",
    ],
)
def test_what_is_no_header_names_nobody_and_stays(message: bytes) -> None:
    assert extract_untrusted(message) == ([], message)


def test_a_header_without_an_end() -> None:
    assert extract_untrusted(b"To: a@b.test") == (["a@b.test"], b"To: a@b.test")
    assert extract_untrusted(b"X: y\r\nBcc: a@b.test") == (["a@b.test"], b"X: y\r\n")
    assert extract_untrusted(b"Bcc: a@b.test\r\nhello\r\n") == (
        ["a@b.test"],
        b"hello\r\n",
    )


@given(st.binary(max_size=400) | st.text('Tobc:,;<>()"\\[] \r\n@').map(str.encode))
def test_whatever_comes_the_body_stays(octets: bytes) -> None:
    for message in (octets, b"To: " + octets, b"Subject: x\r\n\r\n" + octets):
        recipients, kept = extract_untrusted(message)
        assert all(recipients)
        head, sep, body = message.partition(b"\r\n\r\n")
        assert b"bcc" in head.lower() or kept == message
        if sep and head.startswith(b"Subject"):
            assert kept.endswith(body)


@pytest.mark.parametrize(
    "unit",
    ['"', "(", "<", "[", "\\", '("', "a@b.test,", "<<a>", '"a"', "<a ", "a. ", "a "],
)
def test_a_hundred_kilobytes_of_anything_take_no_time(unit: str) -> None:
    started = time.process_time()
    addresses_untrusted(unit * (100_000 // len(unit)))
    assert time.process_time() - started < 2


def test_many_headers_takes_no_time() -> None:
    started = time.process_time()
    assert len(extract_untrusted(b"Bcc: a@b.test\r\n" * 5_000)[0]) == 5_000
    assert time.process_time() - started < 1


@pytest.mark.parametrize("end", ["", "\\", "\\\\", "\\\\\\"])
def test_a_string_that_nothing_ends(end: str) -> None:
    """Also by a Python whose possessive groups leave half of themselves behind."""
    assert addresses_untrusted(f'a@b, "c{end}') == ["a@b", f'"c{end}']


def test_no_group_is_possessive() -> None:
    """Before Python 3.11.5 such a group may leave half of itself behind (gh-106052).

    The one in headers.py may: the test above has what is left there.
    """
    possessive = re.compile(r"(?<!\\)\)(?:[*+?]|\{[0-9,]+\})\+")
    found = {
        path.name
        for path in Path(mesh.__file__).parent.rglob("*.py")
        if possessive.search(path.read_text())
    }
    assert found == {"headers.py"}
