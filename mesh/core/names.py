# SPDX-License-Identifier: MIT
"""What may be a node's name, an endpoint to dial, an address served.

    what       form                                             example
    name       1 to 63 of a-z 0-9 . _ -, no mark at either end  alpha
    endpoint   HOST:PORT, port 1 to 65535                       alpha.example.net:48821
    host       a DNS name of at most 253 octets, IPv4, [IPv6]   [2001:db8::1]
    address    local-part@domain, or @domain for all of it      mix@alpha.example.net

Each has one canonical form (lower case, IPv6 compressed), so that two spellings of
one address are one entry of a table and one octet string under a signature.  The
local part is lower-cased too, for lookups only: RFC 5321 2.4 leaves its case to the
last host, and a remailer whose two addresses differ in case alone does not exist.

Functions raise ValueError whose text says what is wrong and what to write instead.
"""

import ipaddress
import re
from typing import Final

# Octets: a name is a file name in peers.d and an argument of HELO; a DNS label's length.
NAME_MAX_LEN: Final = 63
# Octets: RFC 1035 2.3.4, without the root's dot.
HOST_MAX_LEN: Final = 253
# Octets: RFC 5321 4.5.3.1.1 and 4.5.3.1.3, a path without its angle brackets.
LOCAL_PART_MAX_LEN: Final = 64
ADDRESS_MAX_LEN: Final = 254

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_LOCAL_PART = re.compile(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


def check_name(text: str) -> str:
    """Return a name of a node or a network as it is; raises ValueError."""
    if len(text) > NAME_MAX_LEN or not _NAME.fullmatch(text):
        raise ValueError(
            f"{_shown(text)} is no name: use 1 to {NAME_MAX_LEN} of a-z 0-9 . _ -, "
            "a letter or digit first and last"
        )
    return text


def normalize_host(text: str) -> str:
    """Return the canonical form of a DNS name, an IPv4 or a bracketed IPv6 address."""
    host = _lower(text)
    if host.startswith("[") and host.endswith("]"):
        return f"[{_ip(host[1:-1], 6, text)}]"
    labels = host.split(".")
    if labels[-1].isdecimal():
        return _ip(host, 4, text)
    if len(host) > HOST_MAX_LEN or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(
            f"{_shown(text)} is no host: write a DNS name, an IPv4 address or [IPv6]"
        )
    return host


def _ip(text: str, version: int, shown: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version or "%" in text:
        raise ValueError(f"{_shown(shown)} is no IP address: check its digits")
    return str(address)


def parse_endpoint(text: str) -> tuple[str, int]:
    """Split HOST:PORT; an IPv6 host comes back without brackets, for a socket."""
    host, port = _split(normalize_endpoint(text))
    return host.strip("[]"), int(port)


def normalize_endpoint(text: str) -> str:
    """Return the canonical HOST:PORT; raises ValueError."""
    host, port = _split(text)
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(
            f"{_shown(text)} has no port: write HOST:PORT with a port of 1 to 65535"
        )
    return f"{normalize_host(host)}:{port}"


def _split(endpoint: str) -> tuple[str, str]:
    host, _, port = endpoint.rpartition(":")
    return host, port


def normalize_address(text: str) -> str:
    """Return the canonical address, or "@domain"; raises ValueError."""
    local, at, domain = _lower(text).rpartition("@")
    if len(text) > ADDRESS_MAX_LEN or not at or not _is_local_part(local):
        raise ValueError(
            f"{_shown(text)} is no address: write user@example.net, "
            "or @example.net for a whole domain"
        )
    return f"{local}@{_normalize_domain(domain)}"


def _is_local_part(local: str) -> bool:
    return not local or (
        len(local) <= LOCAL_PART_MAX_LEN and _LOCAL_PART.fullmatch(local) is not None
    )


def _normalize_domain(domain: str) -> str:
    """A host, or an address literal of RFC 5321 4.1.3 in square brackets."""
    if domain.startswith("[ipv6:"):
        return normalize_host(f"[{domain[6:]}").replace("[", "[ipv6:")
    if domain.startswith("[") and domain.endswith("]"):
        return f"[{_ip(domain[1:-1], 4, domain)}]"
    host = normalize_host(domain)
    if host.rpartition(".")[2].isdecimal():
        raise ValueError(
            f"{_shown(domain)} is no domain: write [{host}] for an address"
        )
    return host


def domain_of(address: str) -> str:
    """Return what stands behind the last @ of a canonical address; may be empty."""
    return address.rpartition("@")[2]


def mail_domain(host: str) -> str:
    """Return a canonical host as the domain of an address: IPs as literals."""
    if host.startswith("["):
        return host.replace("[", "[ipv6:")
    return f"[{host}]" if host.rpartition(".")[2].isdecimal() else host


def is_at_host(address: str, endpoint: str) -> bool:
    """Whether a canonical address lies at the host of a canonical endpoint."""
    return domain_of(address) == mail_domain(_split(endpoint)[0])


def _lower(text: str) -> str:
    """ASCII only: lower() makes a plain k of the Kelvin sign."""
    return text.lower() if text.isascii() else text


def _shown(text: str) -> str:
    """A quoted form for an error: one line, short whatever was given."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")
