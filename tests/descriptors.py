# SPDX-License-Identifier: MIT
"""Nodes that do not exist, with real keys and real signatures."""

from typing import Any

from mesh.core.clock import Clock
from mesh.core.crypto import Key, hash256, signing_key, signing_public, x25519_public
from mesh.core.descriptor import Descriptor, create, parse_untrusted

DAY = 86_400
NOW = 1_800_000_000.0
"""Some day in January 2027."""


def identity_of(seed: str) -> Key:
    """The expanded identity key of a node named so."""
    return signing_key(Key.from_bytes(hash256(b"identity " + seed.encode())))


def link_key_of(seed: str) -> Key:
    return Key.from_bytes(hash256(b"link " + seed.encode()))


def draft(node: str, **changes: Any) -> Descriptor:
    """A statement that breaks no rule, unsigned."""
    seed = changes.pop("seed", node)
    facts: dict[str, Any] = {
        "name": node,
        "network": "main",
        "identity": signing_public(identity_of(seed)),
        "link_keys": (x25519_public(link_key_of(seed)),),
        "addresses": (f"{node}.test:4000",),
        "serves": (f"mix@{node}.test",),
        "clock": Clock.RENEWAL,
        "klass": 3,
        "versions": (1,),
        "insecure": (),
        "serial": 7,
        "not_before": int(NOW) - DAY,
        "not_after": int(NOW) + DAY,
    }
    return Descriptor(**(facts | changes))


def text_of(node: str, **changes: Any) -> str:
    """The same signed and armoured."""
    return create(draft(node, **changes), identity_of(changes.get("seed", node)))


def signed(node: str, **changes: Any) -> Descriptor:
    """The same signed and parsed."""
    return parse_untrusted(text_of(node, **changes))[0]
