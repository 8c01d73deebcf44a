# SPDX-License-Identifier: MIT
"""That a sink's copies tell what was lost, doubled or changed on the way."""

import pytest

from benchmarks.mail import Load, Run, Taken, begun, common
from benchmarks.share import Counted, Moment, is_sure, messages_of, sent, share
from mesh.core.cell import BODY_LEN, CELL_LEN


def message(number: int, body: str = "XXX") -> str:
    return (
        "From: <from@alpha.test>\nTo: <mix@bravo.test>\n"
        f"Date: Sun, 22 Nov 2026 22:13:{number % 60:02} +0000 (UTC)\n"
        f"Message-Id: <1749.0003.{number:04x}@alpha.test>\n\n{body}\n"
    )


def copy(number: int, *received: str, body: str = "XXX") -> bytes:
    """As smtp-sink writes it."""
    head = "X-Client-Addr: local\nX-Rcpt-Args: <mix@bravo.test>\n"
    hops = "".join(f"Received: {each}\n\tby sink\n" for each in ("sink", *received))
    return f"{head}{hops}{message(number, body)}\n".encode()


KIND = common(begun(copy(0)))


def taken(*copies: bytes) -> Taken:
    found = Taken()
    for each in copies:
        found.add(each)
    return found


def test_what_servers_put_before_a_message_is_not_of_it() -> None:
    assert (
        begun(copy(1, "alpha", "bravo"))
        == begun(copy(1))
        == message(1).strip().encode()
    )
    assert begun(b"Received: x\n\nno message of ours\n") == b""


def test_all_of_them_once_and_whole() -> None:
    found = taken(*(copy(number, "alpha") for number in range(5)))
    assert found.mistake(5, KIND) == ""


@pytest.mark.parametrize(
    ("copies", "said"),
    [
        ([copy(0), copy(1)], "2 of 3 messages came"),
        ([copy(0), copy(1), copy(1)], "1 of 3 messages came more than once"),
        ([copy(0), copy(1), copy(2), copy(2)], "1 of 3 messages came more than once"),
        ([copy(0), copy(1), copy(2), copy(3)], "4 of 3 messages came"),
        ([copy(0), copy(1), copy(2, body="XX")], "1 of 3 messages are altered"),
        ([copy(0), copy(1), b"something else\n"], "2 of 3 messages came"),
    ],
)
def test_what_is_wrong_is_said(copies: list[bytes], said: str) -> None:
    assert taken(*copies).mistake(3, KIND) == said


def test_each_recipient_has_a_message_once() -> None:
    line = b"X-Rcpt-Args: <mix@bravo.test>\n"
    both = copy(0).replace(line, line + line.replace(b"mix", b"1mix"))
    assert taken(both).mistake(2, KIND) == ""
    assert taken(copy(0)).mistake(2, KIND) == "1 of 2 messages came"
    assert taken(both, copy(0)).mistake(2, KIND).endswith("came more than once")


def test_a_body_may_not_say_who_it_is_instead_of_the_head() -> None:
    body = "Message-Id: <x>"
    assert common(begun(copy(0, body=body))) != common(begun(copy(0, body="")))


def test_cpu_of_a_message_with_its_ends_and_without() -> None:
    cpu = {"alpha": 1.0, "bravo": 2.0, "source": 3.0, "sink": 4.0}
    run = Run("mesh", Load(1000), 2.0, 1.0, cpu)
    assert run.cpu_us() == pytest.approx(10_000)
    assert run.cpu_us(ends=False) == pytest.approx(3000)
    assert (run.rate, run.accept_rate) == (500, 1000)


def test_a_share_is_of_cells_bodies() -> None:
    first, last = Moment(0, 0, 0), Moment(1, 100 * CELL_LEN, 10)
    assert share(first, last, 10 * BODY_LEN) == pytest.approx(1)
    assert share(first, last, 5 * BODY_LEN) == pytest.approx(0.5)


def test_a_middle_is_told_only_where_it_is_sure() -> None:
    first = Moment(0, 0, 100)
    assert not is_sure(first, Moment(1, 1, 100 + 3199))
    assert is_sure(first, Moment(1, 1, 100 + 3200))


def test_a_link_is_filled_for_so_long() -> None:
    assert messages_of(64, 10, BODY_LEN) == 640
    assert messages_of(4, 0.01, BODY_LEN) == 1


def test_what_ss_says_of_a_connection() -> None:
    said = (
        "0 0 127.0.0.1:4000 127.0.0.1:4001\n\t cubic bytes_sent:81920 "
        "bytes_acked:81921 bytes_received:4096\n"
        "0 9  127.0.0.1:7  127.0.0.1:8 \n\t cubic rto:201 bytes_sent:4096\n"
        "0 0 127.0.0.1:9 127.0.0.1:10\n\t cubic rto:201\n"
    )
    assert sent(said) == {
        "127.0.0.1:4000 127.0.0.1:4001": 81920,
        "127.0.0.1:7 127.0.0.1:8": 4096,
    }


def test_a_connection_that_ends_has_sent_what_nobody_saw() -> None:
    counted = Counted(10)
    counted.look({"a b": CELL_LEN}, 1.0)
    counted.look({"a b": 2 * CELL_LEN, "c d": CELL_LEN}, 2.0)
    assert counted.octets == 3 * CELL_LEN
    counted.look({"c d": 5 * CELL_LEN}, 2.5)  # half a second: five cells
    counted.look({"c d": 6 * CELL_LEN}, 9.0)
    assert counted.octets == (2 + 5 + 6) * CELL_LEN
