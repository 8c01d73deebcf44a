# SPDX-License-Identifier: MIT
"""Every exit status has one meaning, and only the named ones are for ever."""

import os

from mesh.core.sysexits import NOT_NOW, TAKEN, reply_of

PERMANENT = {64, 65, 66, 67, 68, 69, 70, 73, 76, 77, 78}


def test_every_status_has_its_severity() -> None:
    assert reply_of(0) is TAKEN
    for status in (*range(-64, 0), *range(1, 256)):
        reply = reply_of(status)
        assert (reply.code >= 500) == (status in PERMANENT), status
        assert reply.permanent or reply is NOT_NOW


def test_the_numbers_are_the_systems() -> None:
    for temporary in (os.EX_OSERR, os.EX_OSFILE, os.EX_IOERR, os.EX_TEMPFAIL):
        assert reply_of(temporary) is NOT_NOW
    for permanent in (os.EX_USAGE, os.EX_SOFTWARE, os.EX_CANTCREAT, os.EX_CONFIG):
        assert reply_of(permanent).permanent
