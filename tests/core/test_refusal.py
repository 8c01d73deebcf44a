# SPDX-License-Identifier: MIT
"""Who wants no mail gets none, and a mistake in the list has its line."""

import pytest

from mesh.core.refusal import MISTAKES_MAX, Refusals, parse_refusals
from mesh.errors import ConfigError

LIST = """\
# those who asked
Who@Example.ORG      # by telephone
@never.test.

"a b"@x.test
"plain"@x.test
w#o@x.test	# a mark within
it@[IPv6:2001:DB8:0::1]
@[IPv6:2001:db8:0:0::2]
"""


def test_who_is_listed_is_refused() -> None:
    refusals = parse_refusals(LIST, "refuse")
    assert len(refusals) == 7
    for address in (
        "who@example.org",
        "WHO@EXAMPLE.org",
        "anybody@never.test",
        "x@NEVER.test",
        '"a b"@x.test',
        "plain@x.test",
        "w#o@x.test",
        '"who"@example.org',
        '"w\\ho"@example.org',
        "it@[ipv6:2001:db8::1]",
        '"it"@[IPv6:2001:db8:0:0:0::1]',
        '"a b"@[IPv6:2001:DB8::2]',
    ):
        assert refusals.refuses(address), address


def test_nobody_else_is() -> None:
    refusals = parse_refusals(LIST, "refuse")
    for address in (
        "whose@example.org",
        "who@sub.example.org",
        "x@sub.never.test",
        "x@notnever.test",
        "postmaster",
        "b@x.test",
        "w@x.test",
        '"@x.test',
        "it@[ipv6:2001:db8::3]",
        "it@[x400:something]",
        "it@[127.0.0.1]",
    ):
        assert not refusals.refuses(address), address
    assert not Refusals().refuses("who@example.org")
    assert not parse_refusals("\n# nobody\n", "refuse").refuses("x@y")


def test_every_mistake_has_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_refusals("who\na@b\na@\nx y@z\n<a@b>\na@b, c@d\nä@b\na\0@b", "list")
    lines = str(caught.value).splitlines()
    assert [line.split(":")[:2] for line in lines] == [
        ["list", str(number)] for number in (1, 3, 4, 5, 6, 7, 8)
    ]
    assert "user@example.net" in lines[0]
    with pytest.raises(ConfigError) as caught:
        parse_refusals("no list\n" * 1000, "list")
    assert len(str(caught.value).splitlines()) == MISTAKES_MAX
