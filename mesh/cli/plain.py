# SPDX-License-Identifier: MIT
r"""What others wrote, as a terminal may see it: nothing in it is obeyed.

A descriptor, a peer's reply, the name of a file in peers.d, an answer of the node: each
may hold what moves the cursor, colours, renames the window, types for the user, or turns
the order of letters around.  All that is not printable is shown by its code: \x1b.

Octets of a dialogue keep CR, LF and TAB.  Only a terminal is protected so: a program
gets them as they are.
"""

import re
from typing import Any, Final

_ODD: Final = re.compile(rb"[^\t\n\r\x20-\x7e]")


def plain(text: str) -> str:
    """Give one line as it can be shown."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def plain_octets(octets: bytes) -> bytes:
    """Give a piece of a dialogue as it can be shown."""
    return _ODD.sub(lambda odd: b"\\x%02x" % ord(odd[0]), octets)


def plain_json(told: Any) -> str:
    """Write an object for a program, or for a person: ASCII, and no control but LF."""
    import json  # not for mesh-sendmail, which only has lines to say

    return json.dumps(told, indent=2).replace("\x7f", "\\u007f")
