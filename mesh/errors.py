# SPDX-License-Identifier: MIT
"""Every exception of the package, by who is at fault.

    MeshError                      abstract; exit_code is a sysexits number
        UsageError            64   the command line is wrong
        MessageError          65   a message that no mail system may carry
        NoInputError          66   a file that was named is not there
        UnknownNameError      67   no such peer or recipient
        UnavailableError      69   node not running, link down, state in use
        CannotCreateError     73   a file or a listening socket cannot be made
        IoError               74   the disk failed; what was promised is in doubt
        TryLaterError         75   no room, no reply, no key: the caller keeps it
        NotPermittedError     77   not for this user
        ConfigError           78   node.toml or a key file is wrong
        PacerError            70   the process that sends cells does not start
        DirectoryError        65   something signed does not hold
            DescriptorError        a descriptor
            OlderError             a directory below the one in force
            ExpiredError           a directory past its time, or before it
            ForkError              two directories of one version: evidence
        ProtocolError              abstract
            LocalProtocolError 70  our own bug; stopped by node/guard.py at most
            RemoteProtocolError    the other side is wrong; drop it
                HandshakeError     answered with silence
                CryptoError        does not open, verify, or is no valid point
                EncodingError      not canonical
                CellError          a body that no honest peer seals
                CommandError       has the reply that says what is wrong
        SpoolError            74   abstract
            SpoolFullError    75   no room: try later
            SpoolCorruptError      a record that does not open: set aside

The text of an error names what is wrong, where, and what to do, in one line, and
never an address, a message id, a size, or a key.
"""

from typing import ClassVar


class MeshError(Exception):
    """Base of all; the message is shown to the operator as it stands."""

    exit_code: ClassVar[int] = 70


class UsageError(MeshError):
    """The command line is wrong."""

    exit_code = 64


class MessageError(MeshError):
    """A message that no mail system may carry: too long, or not lines of text."""

    exit_code = 65


class NoInputError(MeshError):
    """A file that the operator named is not there."""

    exit_code = 66


class UnknownNameError(MeshError):
    """No peer, or no recipient, of that name."""

    exit_code = 67


class UnavailableError(MeshError):
    """The node does not run, the link is down, or the state is in use."""

    exit_code = 69


class CannotCreateError(MeshError):
    """A file or a listening socket cannot be made."""

    exit_code = 73


class IoError(MeshError):
    """The disk failed: the process must end and recover at its next start."""

    exit_code = 74


class TryLaterError(MeshError):
    """Not now: whoever called keeps the message and calls again."""

    exit_code = 75


class NotPermittedError(MeshError):
    """Not for this user."""

    exit_code = 77


class ConfigError(MeshError):
    """node.toml or a key file is wrong; one line a mistake."""

    exit_code = 78


class PacerError(MeshError):
    """The process that sends cells does not start, however often it is tried."""

    exit_code = 70


class DirectoryError(MeshError):
    """Something signed does not hold."""

    exit_code = 65


class DescriptorError(DirectoryError):
    """A descriptor is malformed, unsigned, expired, or contradicts another."""


class OlderError(DirectoryError):
    """A directory that was signed, of a version below the one in force."""


class ExpiredError(DirectoryError):
    """A directory whose time has passed, or has not come: the next, or another clock."""


class ForkError(DirectoryError):
    """The signers signed two directories of one version: evidence, to be shown."""


class ProtocolError(MeshError):
    """Abstract: the protocol was broken, by us or by them."""


class LocalProtocolError(ProtocolError):
    """We called something in the wrong order: a bug of ours, as any other exception."""


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol: drop the link or the connection."""


class HandshakeError(RemoteProtocolError):
    """A handshake message is not what it must be; the answer is silence."""


class CryptoError(RemoteProtocolError):
    """A box does not open, a signature does not verify, a point is not valid."""


class EncodingError(RemoteProtocolError):
    """Octets that our encoder would never have written."""


class CellError(RemoteProtocolError):
    """A cell body that no honest peer seals."""


class CommandError(RemoteProtocolError):
    """A command line that cannot be obeyed; carries the reply that says why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class SpoolError(MeshError):
    """Abstract: the spool cannot do what was asked."""

    exit_code = 74


class SpoolFullError(SpoolError):
    """No room for another record."""

    exit_code = 75


class SpoolCorruptError(SpoolError):
    """A record that does not open: set aside, never taken for delivered."""


def place_of(error: BaseException) -> str:
    """Give file and line where it was raised: all of a bug that may be shown."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    file = trace.tb_frame.f_code.co_filename
    return f"{file.rpartition('/')[2]}:{trace.tb_lineno}"
