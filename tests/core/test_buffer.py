# SPDX-License-Identifier: MIT
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.buffer import DOTS_MAX, ReceiveBuffer
from mesh.core.command import LINE_MAX
from mesh.core.content import to_stuffed
from tests import strategies


def lines_of(pieces: list[bytes]) -> list[bytes]:
    buffer, found = ReceiveBuffer(), []
    for piece in pieces:
        buffer.append(piece)
        while (line := buffer.line()) is not None:
            found.append(line)
        assert len(buffer) <= LINE_MAX
    return found


def text_of(pieces: list[bytes], limit: int) -> tuple[bytes | None, bool, bytes]:
    """The text, whether it was too big, what is left behind it."""
    buffer = ReceiveBuffer()
    buffer.begin_text()
    text = None
    for piece in pieces:
        buffer.append(piece)
        if text is None:
            text = buffer.text(limit)
            assert text is not None or len(buffer) <= limit + 4
    return text, buffer.too_big, buffer.take(len(buffer))


line_streams = st.lists(
    st.sampled_from(
        [
            b"NOOP\r\n",
            b"\n",
            b"\r",
            b"x" * (LINE_MAX - 1),
            b"x" * LINE_MAX,
            b"y" * (LINE_MAX + 1),
            b"z" * 5000,
        ]
    ),
    max_size=6,
).map(b"".join)


@given(st.data(), line_streams)
def test_lines_do_not_depend_on_the_split(data: st.DataObject, octets: bytes) -> None:
    whole = [
        line[: LINE_MAX + 1]
        for line in octets.split(b"\n")[:-1]
        for line in [line + b"\n"]
    ]
    found = lines_of(data.draw(strategies.splits(octets)))
    # A head of a last line that is too long comes before its end does.
    assert found[: len(whole)] == whole
    assert [len(line) > LINE_MAX for line in found[len(whole) :]] in ([], [True])


def test_a_line_too_long_is_thrown_away_as_it_comes() -> None:
    buffer = ReceiveBuffer()
    buffer.append(b"x" * (LINE_MAX + 1))
    head = buffer.line()
    assert head is not None
    assert len(head) == LINE_MAX + 1
    for _ in range(3):
        buffer.append(b"y" * 5000)
        assert buffer.line() is None
        assert len(buffer) == 0
    buffer.append(b"y")
    assert buffer.line() is None
    buffer.append(b"z\nNOOP\r\n")
    assert buffer.line() == b"NOOP\r\n"


@given(st.data(), strategies.contents, strategies.hostile)
def test_a_text_does_not_depend_on_the_split(
    data: st.DataObject, content: bytes, behind: bytes
) -> None:
    octets = to_stuffed(content) + behind
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    pieces = data.draw(strategies.splits(octets))
    assert text_of(pieces, 100_000) == (content, False, behind)
    assert text_of([bytes([octet]) for octet in octets[-3000:]], 10**6) == text_of(
        [octets[-3000:]], 10**6
    )


@given(st.data(), strategies.contents, st.integers(-3, 3))
def test_a_limit_is_exact_in_any_split(
    data: st.DataObject, content: bytes, more: int
) -> None:
    stuffed = to_stuffed(content)
    length = len(stuffed) - 3
    pieces = data.draw(strategies.splits(stuffed + b"NOOP\r\n"))
    text, too_big, behind = text_of(pieces, max(0, length + more))
    assert text is not None
    assert too_big is (length > max(0, length + more))
    assert text == b"" or not too_big
    assert behind == b"NOOP\r\n"


@pytest.mark.parametrize(
    "octets", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r\n.\r", b"x.\r\n"]
)
def test_only_the_whole_mark_ends_a_text(octets: bytes) -> None:
    assert text_of([b"a" + octets + b"QUIT"], 100)[0] is None


def test_memory_stays_small_once_a_text_is_too_big() -> None:
    buffer = ReceiveBuffer()
    buffer.begin_text()
    for _ in range(100):
        buffer.append(b"x" * 100)
        assert buffer.text(150) is None
        assert len(buffer) <= 154
    assert buffer.too_big
    buffer.append(b"\r\n.\r\n")
    assert buffer.text(150) == b""
    assert buffer.too_big
    buffer.begin_text()
    assert not buffer.too_big


def test_a_line_is_too_long_only_beyond_the_limit() -> None:
    buffer = ReceiveBuffer()
    buffer.append(b"x" * LINE_MAX)
    assert buffer.line() is None
    buffer.append(b"x")
    assert buffer.line() == b"x" * (LINE_MAX + 1)


def test_a_text_that_is_here_already_and_a_line_behind_it() -> None:
    buffer = ReceiveBuffer()
    buffer.append(b"a\r\n.\r\n\nNOOP\r\n")
    buffer.begin_text()
    assert buffer.text(100) == b"a\r\n"
    assert buffer.line() == b"\n"
    assert buffer.line() == b"NOOP\r\n"


def test_octets_are_taken_from_the_front() -> None:
    buffer = ReceiveBuffer()
    buffer.append(memoryview(b"abcdef"))
    assert buffer.take(2) == b"ab"
    assert buffer.take(10**20) == b"cdef"
    assert buffer.take(1) == b""
    buffer.append(b"x")
    buffer.clear()
    assert len(buffer) == 0


@pytest.mark.parametrize("dots", [0, 1, DOTS_MAX - 1, DOTS_MAX, DOTS_MAX + 1, 500])
@pytest.mark.parametrize("dotted", [b"", b"\r\n.y", b"\n.", b"\r.", b".\r\n.x"])
@pytest.mark.parametrize("step", [1, 3, 10_000])
def test_a_text_of_many_dots(dots: int, dotted: bytes, step: int) -> None:
    text = b"a.b" * dots + b"y" + dotted + b"." * dots
    content = (b"\r\n" + text).replace(b"\r\n.", b"\r\n")[2:]
    octets = text + b"\r\n.\r\nNOOP\r\n"
    buffer = ReceiveBuffer()
    buffer.begin_text()
    found = None
    for at in range(0, len(octets), step):
        buffer.append(octets[at : at + step])
        found = buffer.text(10**6) if found is None else found
    assert found == content + b"\r\n"
    assert buffer.line() == b"NOOP\r\n"
