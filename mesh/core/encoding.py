# SPDX-License-Identifier: MIT
"""Canonical msgpack: for each value one row of octets, and back only from that.

    value            octets (the msgpack specification's shortest form)
    None, bool       nil, true, false
    int              -2**63 .. 2**64-1, shortest
    bytes, str       bin, str (UTF-8), shortest length
    list, tuple      array; a tuple comes back as a list

Maps, floats and extensions are refused both ways: arrays have one order and
integers one spelling, so a signed statement has one form.  msgpack itself accepts
long spellings; hence the rule `encode(decode(octets)) == octets`.
"""

from typing import Any, Final, TypeAlias, cast

import msgpack

from mesh.errors import EncodingError, LocalProtocolError

Value: TypeAlias = bool | int | bytes | str | list["Value"] | tuple["Value", ...] | None

DEPTH_MAX: Final = 8
"""Arrays within arrays: descriptors need 3, a directory of them 5."""


def encode(value: Value) -> bytes:
    """Write a value in its one form.  LocalProtocolError for a type outside it."""
    _check(value, 0)
    try:
        return cast(bytes, msgpack.packb(value, use_bin_type=True))
    except (ValueError, OverflowError) as error:
        raise LocalProtocolError("this value has no canonical form") from error


def decode_untrusted(data: bytes, *, max_len: int) -> Value:
    """Read what `encode` wrote, at most `max_len` octets; EncodingError otherwise."""
    if len(data) > max_len:
        raise EncodingError("more octets than this statement may have")
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=max_len,
            max_bin_len=max_len,
            max_array_len=max_len,
            max_map_len=0,
            max_ext_len=0,
        )
        again = encode(cast(Value, value))
    except (
        ValueError,
        RecursionError,
        msgpack.exceptions.UnpackException,
        LocalProtocolError,
    ) as error:
        raise EncodingError("not the canonical encoding") from error
    if again != data:
        raise EncodingError("not the canonical encoding")
    return cast(Value, value)


def _check(value: Any, depth: int) -> None:
    if type(value) in (list, tuple):  # msgpack's extensions are tuples of a kind
        if depth == DEPTH_MAX:
            raise LocalProtocolError("arrays nested too deep")
        for item in value:
            _check(item, depth + 1)
    elif value is not None and type(value) not in (bool, int, bytes, str):
        raise LocalProtocolError("a type that canonical encoding does not have")
