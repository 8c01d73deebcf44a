# SPDX-License-Identifier: MIT
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.envelope import (
    NULL_PATH,
    PATH_MAX,
    Path,
    domain_of,
    normalize,
    parse_path_untrusted,
    split_path_untrusted,
    without_route,
)
from mesh.errors import CommandError
from tests import strategies


@given(strategies.forward_paths)
def test_a_forward_path_reads_back(path: Path) -> None:
    assert parse_path_untrusted(f"<{path.text}>") == path


@given(strategies.reverse_paths)
def test_a_reverse_path_reads_back(path: Path) -> None:
    assert parse_path_untrusted(f"<{path.text}>", reverse=True) == path


@given(st.text(st.characters(max_codepoint=0xFF), max_size=40), st.booleans())
def test_garbage_raises_its_own_error_only(text: str, reverse: bool) -> None:
    for candidate in (text, f"<{text}>", f"<{text}@x>"):
        codes, taken = {501}, ""
        try:
            taken = parse_path_untrusted(candidate, reverse=reverse).text
        except CommandError as error:
            codes.add(error.code)
        assert codes <= {501, 553}
        assert taken.isascii()
        assert not taken or taken.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<",
        "<>",
        "<mix>",
        "<@x>",
        "<a@>",
        "<a@b",
        "a@b",
        "<a@b>>",
        "<a@b> ",
        "<a b@c>",
        "<a@b..c>",
        "<a@-b>",
        "<a@b->",
        "<a@b.>",
        "<a@[1.2.3]>",
        "<a@[tag:a@b]>",
        '<"a@b>',
        '<"a\\">@b>',
        "<@a@b>",
        "<@a:>",
        "<a@b\r>",
        "<a@b\x00>",
        f"<{'a' * (PATH_MAX - 3)}@b>",
    ],
)
def test_not_a_forward_path(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_path_untrusted(text)
    assert caught.value.code == 501


@pytest.mark.parametrize("text", ["<\xe9@b>", "<a@\xe9>", "<\xff>"])
def test_beyond_ascii(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_path_untrusted(text)
    assert caught.value.code == 553


def test_the_longest_path_passes() -> None:
    address = f"{'a' * (PATH_MAX - 4)}@b"
    assert parse_path_untrusted(f"<{address}>").address == address


def test_reverse_paths_are_any_programs_word() -> None:
    assert parse_path_untrusted("<>", reverse=True) is NULL_PATH
    assert parse_path_untrusted("<mix>", reverse=True) == Path("mix")


def test_a_route_is_kept_apart() -> None:
    path = parse_path_untrusted("<@me,@b.example:x@peer>")
    assert path == Path("x@peer", "@me,@b.example")
    assert path.text == "@me,@b.example:x@peer"


def test_what_follows_a_path_is_left() -> None:
    assert split_path_untrusted("<> A=1", reverse=True) == (NULL_PATH, " A=1")
    assert split_path_untrusted("<a@b>x", reverse=False) == (Path("a@b"), "x")


@pytest.mark.parametrize(
    ("address", "normal"),
    [
        ("Mix@Alpha.Example", "mix@alpha.example"),
        ('"Mix"@x', "mix@x"),
        ('"M\\ix"@x', "mix@x"),
        ('"a b"@X', '"a b"@x'),
        ('""@x', '""@x'),
        ('"a@b"@X', '"a@b"@x'),
        ("Postmaster", "postmaster"),
        ('"post"', "post"),
        ("a@[IPv6:2001:DB8::1]", "a@[ipv6:2001:db8::1]"),
    ],
)
def test_normal_forms(address: str, normal: str) -> None:
    assert normalize(address) == normal


@given(strategies.addresses)
def test_a_normal_form_is_its_own(address: str) -> None:
    once = normalize(address)
    assert normalize(once) == once
    assert normalize(address.upper()) == once


def test_domains() -> None:
    assert domain_of('"a@b"@C.example') == "c.example"
    assert domain_of("postmaster") == ""


def test_with_a_source_route_and_without() -> None:
    assert without_route("@me.test,@us.test:x@peer.test") == "x@peer.test"
    assert without_route("x@peer.test") == "x@peer.test"


@given(strategies.forward_paths)
def test_a_source_route_comes_off(path: Path) -> None:
    assert without_route(path.text) == path.address
