# SPDX-License-Identifier: MIT
"""Checks of single values: what is good passes, what is of another type passes on."""

from pathlib import Path

import pytest

from mesh.core.clock import Clock
from mesh.values import (
    Maildir,
    check_clock,
    check_pool,
    check_user,
    optional_endpoint,
    optional_mailbox,
    parse_deliver,
    resolve,
)


def test_what_is_good_passes() -> None:
    assert check_clock("greedy") is Clock.GREEDY
    assert check_clock(Clock.RENEWAL) is Clock.RENEWAL
    assert check_pool("none") == "none"
    assert check_user("") == ""
    assert optional_endpoint("") == ""
    assert optional_endpoint("A.b:1") == "a.b:1"
    assert optional_mailbox("") == ""
    assert optional_mailbox("A@b") == "a@b"
    assert parse_deliver("maildir:x", Path("/y")) == Maildir(Path("/y/x"))
    assert resolve("x", Path("/y")) == Path("/y/x")


def test_other_types_are_the_model_s_matter() -> None:
    assert check_clock(5) == 5
    assert check_pool([]) == []
    assert resolve(5, Path()) == 5


def test_a_path_of_control_characters() -> None:
    with pytest.raises(ValueError, match="is no path"):
        resolve("a\x00b", Path())
