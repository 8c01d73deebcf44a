# SPDX-License-Identifier: MIT
"""Questions and answers, well-formed and not; what is told and how roughly."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.control import (
    ANSWER_MAX_LEN,
    REQUEST_MAX_LEN,
    Ask,
    LinkFacts,
    QueueFacts,
    Refusal,
    Request,
    What,
    encode_answer,
    encode_refusal,
    encode_request,
    parse_answer_untrusted,
    parse_request_untrusted,
    rough,
    state_of,
    status,
)
from mesh.errors import RemoteProtocolError

REQUESTS = [
    Request(Ask.STATUS),
    Request(Ask.QUEUE),
    Request(Ask.RETRY),
    Request(Ask.DROP, what=What.DEFERRED),
    Request(Ask.DROP, what=What.UNROUTED),
    Request(Ask.PING, peer="bravo"),
    Request(Ask.CONNECT, peer="bravo"),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_question_is_one_line_and_comes_back(request_: Request) -> None:
    line = encode_request(request_)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert parse_request_untrusted(line) == request_


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\n",
        b"[]\n",
        b"1\n",
        b"{}\n",
        b'{"ask":"dance"}\n',
        b'{"ask":["status"]}\n',
        b'{"ask":"status","peer":"bravo"}\n',
        b'{"ask":"ping"}\n',
        b'{"ask":"ping","peer":""}\n',
        b'{"ask":"ping","peer":7}\n',
        b'{"ask":"ping","peer":"bravo","what":"deferred"}\n',
        b'{"ask":"drop"}\n',
        b'{"ask":"drop","what":"everything"}\n',
        b'{"ask":"drop","what":"deferred","peer":"bravo"}\n',
        b"[" * 1000,
        b'{"ask":"status"}' + b" " * REQUEST_MAX_LEN,
    ],
)
def test_what_is_no_question(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_request_untrusted(line)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_garbage_raises_one_thing(line: bytes) -> None:
    for parse in (parse_request_untrusted, parse_answer_untrusted):
        try:
            parse(line)
        except RemoteProtocolError:
            continue


def test_answers_come_back() -> None:
    assert parse_answer_untrusted(encode_answer({"seconds": 1.5})) == {"seconds": 1.5}
    refusal = parse_answer_untrusted(encode_refusal(69, "down"))
    assert refusal == Refusal(69, "down")


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b'{"ok":1}',
        b'{"ok":false}',
        b'{"ok":false,"code":69}',
        b'{"ok":false,"code":"69","why":""}',
        b'{"ok":false,"code":true,"why":""}',
        b'{"ok":false,"code":0,"why":""}',
        b'{"ok":false,"code":128,"why":""}',
        b'{"ok":true}' + b" " * ANSWER_MAX_LEN,
    ],
)
def test_what_is_no_answer(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_answer_untrusted(line)


@pytest.mark.parametrize(
    ("count", "told"),
    [(-1, 0), (0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (8, 8), (9, 16), (1000, 1024)],
)
def test_rough(count: int, told: int) -> None:
    assert rough(count) == told


def link(peer: str, *, up: bool) -> LinkFacts:
    return LinkFacts(peer, up, "" if up else "no answer", "renewal", 1.0, ())


@pytest.mark.parametrize(
    ("ups", "corrupt", "state"),
    [
        ([], 0, "ok"),
        ([True, True], 0, "ok"),
        ([True, False], 0, "degraded"),
        ([False, False], 0, "down"),
        ([True], 1, "degraded"),
        ([], 1, "degraded"),
        ([False], 1, "down"),
    ],
)
def test_state(ups: list[bool], corrupt: int, state: str) -> None:
    assert state_of([link("bravo", up=up) for up in ups], corrupt) == state


@pytest.mark.parametrize(
    ("ups", "state"),
    [
        ({"bravo": False, "charlie": True}, "ok"),
        ({"bravo": False, "charlie": False}, "down"),
        ({"bravo": False}, "down"),
        ({"bravo": False, "charlie": True, "delta": False}, "degraded"),
    ],
)
def test_no_link_is_missing_to_a_peer_that_left(
    ups: dict[str, bool], state: str
) -> None:
    links = [link(peer, up=up) for peer, up in ups.items()]
    told = status("alpha", links, QueueFacts(), {"bravo"})
    assert told["state"] == state
    assert [each["peer"] for each in told["links"]] == list(ups)


def test_what_there_is_of_a_directory_and_the_notices() -> None:
    told = status("a", [], QueueFacts(), (), {"version": 7}, ("look here",))
    assert told["directory"] == {"version": 7}
    assert told["notices"] == ["look here"]


def test_status_is_the_contracts() -> None:
    queue = QueueFacts(waiting=9, deferred=3, corrupt=5, peers=6)
    told = status("alpha", [link("bravo", up=False)], queue)
    assert json.loads(json.dumps(told)) == {
        "schema": 1,
        "name": "alpha",
        "state": "down",
        "links": [
            {
                "peer": "bravo",
                "up": False,
                "reason": "no answer",
                "clock": "renewal",
                "cells_per_second": 1.0,
                "insecure": [],
            }
        ],
        "queue": {"waiting": 16, "deferred": 4, "corrupt": 5},
    }
    rounded = queue.rounded()
    assert rounded["corrupt"] == 5
    assert rounded["peers"] == 8
