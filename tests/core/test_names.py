# SPDX-License-Identifier: MIT
"""Names, endpoints and addresses: one canonical form, or a line that helps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.names import (
    check_name,
    domain_of,
    is_at_host,
    mail_domain,
    normalize_address,
    normalize_endpoint,
    normalize_host,
    parse_endpoint,
)


@pytest.mark.parametrize("name", ["a", "alpha", "node-1", "a.b_c-d", "0", "x" * 63])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        ".a",
        "a.",
        "-a",
        "a-",
        "a b",
        "a/b",
        "..",
        "x" * 64,
        "é",
        "a\n",
        "a\x00",
    ],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="is no name: use 1 to 63"):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "canonical", "split"),
    [
        (
            "Alpha.Example.NET:48821",
            "alpha.example.net:48821",
            ("alpha.example.net", 48821),
        ),
        ("localhost:1", "localhost:1", ("localhost", 1)),
        ("127.0.0.1:65535", "127.0.0.1:65535", ("127.0.0.1", 65535)),
        ("[2001:DB8:0::1]:25", "[2001:db8::1]:25", ("2001:db8::1", 25)),
        ("[::]:25", "[::]:25", ("::", 25)),
    ],
)
def test_endpoints(text: str, canonical: str, split: tuple[str, int]) -> None:
    assert normalize_endpoint(text) == canonical
    assert normalize_endpoint(canonical) == canonical
    assert parse_endpoint(text) == split


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no port"),
        ("alpha", "has no port"),
        ("alpha:", "has no port"),
        ("alpha:0", "has no port"),
        ("alpha:08", "has no port"),
        ("alpha:65536", "has no port"),
        ("alpha:٣", "has no port"),
        (":25", "is no host"),
        ("a b:25", "is no host"),
        ("-a:25", "is no host"),
        ("a..b:25", "is no host"),
        ("é.net:25", "is no host"),
        ("\u212aelvin.net:25", "is no host"),
        ("::1:25", "is no host"),
        ("x" * 64 + ":25", "is no host"),
        (".".join(["x" * 62] * 5) + ":25", "is no host"),
        ("1.2.3:25", "is no IP address"),
        ("1.2.3.999:25", "is no IP address"),
        ("1.2.3.٣:25", "is no IP address"),
        ("[::1%eth0]:25", "is no IP address"),
        ("[1.2.3.4]:25", "is no IP address"),
    ],
)
def test_bad_endpoints(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        normalize_endpoint(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Mix@Alpha.Test", "mix@alpha.test"),
        ("a.b+c=d@x.y", "a.b+c=d@x.y"),
        ("@Alpha.Test", "@alpha.test"),
        ("x@_y.z_", "x@_y.z_"),
        ("x@[127.0.0.1]", "x@[127.0.0.1]"),
        ("x@[IPv6:2001:DB8::1]", "x@[ipv6:2001:db8::1]"),
        ("x" * 64 + "@y.z", "x" * 64 + "@y.z"),
    ],
)
def test_addresses(text: str, canonical: str) -> None:
    assert normalize_address(text) == canonical
    assert normalize_address(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no address"),
        ("mix", "is no address"),
        ("a@b@c", "is no address"),
        ("a b@c", "is no address"),
        (".a@c", "is no address"),
        ("é@c", "is no address"),
        ("\u212a@c", "is no address"),
        ("x" * 65 + "@y.z", "is no address"),
        ("x@" + "y" * 253, "is no address"),
        ("@", "is no host"),
        ("x@", "is no host"),
        ("x@1.2.3.4", r"is no domain: write \[1.2.3.4\]"),
        ("x@[::1]", "is no IP address"),
        ("x@[ipv6:1.2.3.4]", "is no IP address"),
        ("x@[ipv6:::1", "is no host"),
        ("x@[1.2.3.4", "is no IP address"),
    ],
)
def test_bad_addresses(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        normalize_address(text)


def test_a_mistake_is_one_short_line() -> None:
    with pytest.raises(ValueError, match="is no address") as caught:
        normalize_address("\n\x1b[31m" + "x" * 1000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("address", "endpoint", "is_there"),
    [
        ("mix@alpha.test", "alpha.test:1", True),
        ("@alpha.test", "alpha.test:1", True),
        ("mix@b.alpha.test", "alpha.test:1", False),
        ("mix@alpha.test", "b.alpha.test:1", False),
        ("mix@[127.0.0.1]", "127.0.0.1:1", True),
        ("mix@127.0.0.1", "127.0.0.1:1", False),
        ("mix@[ipv6:::1]", "[::1]:1", True),
    ],
)
def test_who_lies_where(address: str, endpoint: str, is_there: bool) -> None:
    assert is_at_host(address, endpoint) is is_there


def test_domains() -> None:
    assert domain_of("a@b.c") == "b.c"
    assert domain_of("@b.c") == "b.c"
    assert mail_domain("alpha.test") == "alpha.test"
    assert mail_domain("10.0.0.1") == "[10.0.0.1]"
    assert mail_domain("[::1]") == "[ipv6:::1]"


@given(st.text(max_size=40))
def test_any_text_has_one_form_or_a_value_error(text: str) -> None:
    for normal in (check_name, normalize_host, normalize_endpoint, normalize_address):
        try:
            canonical = normal(text)
        except ValueError:
            continue
        assert normal(canonical) == canonical
        assert canonical.isascii()
