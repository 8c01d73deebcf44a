# SPDX-License-Identifier: MIT
"""What a program's exit status says about the message that it was given (sysexits.h).

    status              severity    as a reply
    0                   positive    250  it has taken the responsibility
    64-70, 73, 76-78    permanent   5yz  never: the sender is told
    anything else       transient   451  not now: 71 72 74 75, a signal, 1, 126, 127

A status that sysexits.h does not name (a script that fell over says 1, a shell that did
not find its program 127) is a fault of the machine and not of the message: it waits
until somebody repaired that.  The reply's text is all that anybody is told.
"""

from collections.abc import Mapping
from typing import Final

from mesh.core.reply import Reply

TAKEN: Final = Reply(250, "ok")
NOT_NOW: Final = Reply(451, "4.3.0 the program could not take it")
_PERMANENT: Final[Mapping[int, Reply]] = {
    64: Reply(554, "5.3.5 the program was called wrongly"),
    65: Reply(554, "5.6.0 the program refused the message"),
    66: Reply(550, "5.1.1 the program found no input"),
    67: Reply(550, "5.1.1 the program knows no such recipient"),
    68: Reply(550, "5.1.2 the program knows no such host"),
    69: Reply(554, "5.3.0 the program's service is not there"),
    70: Reply(554, "5.3.0 the program has a fault"),
    73: Reply(550, "5.2.0 the program could not create its file"),
    76: Reply(554, "5.5.0 the program broke a protocol"),
    77: Reply(550, "5.7.1 the program did not permit it"),
    78: Reply(554, "5.3.5 the program is set up wrongly"),
}


def reply_of(status: int) -> Reply:
    """Translate an exit status; a negative one is the signal that ended it."""
    if status == 0:
        return TAKEN
    return _PERMANENT.get(status, NOT_NOW)
