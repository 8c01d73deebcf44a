# SPDX-License-Identifier: MIT
"""The shared directory's files in the state directory.

    directory.mesh               the directory in force, armoured
    directory.copy               the same, written after it
    directory.root               fingerprint of the first root, the operator's anchor
    directory.removed            what nodes served that the signers took off (removed.py)
    directory.signed             VERSION HASH of the last roster that this node signed
    directory.lock               held (flock) while one of these is changed
    descriptors/IDENTITY.mesh    what a node said of itself later than the directory in
                                 force, or than peers.d
    evidence/VERSION-HASH.mesh   directories that contradict each other, at most 8

What counts is directory.copy, and directory.mesh if it may follow that by the rules for
any directory; or the one of them that holds and goes back to the anchor.  So whatever is
put in the place of one, cut off, older, expired, of another network, the last good one
stays in force, and a line says why.

    adopting            killed after it, in force is
    1 removed           the old one; what it serves is withheld only once nobody does
    2 directory.mesh    the new one
    3 directory.copy    the new one

    beginning, or beginning again with other signers
    1 directory.copy    the old one (it may have been damaged), or none
    2 directory.mesh    the old one: the new one does not go back to its anchor
    3 directory.root    the new one
    4 directory.copy    the new one

Each file is whole or not at all (whole.py).  All calls block: none is the Trio thread's.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final

from mesh.core.crypto import PUBLIC_LEN, hash256
from mesh.core.descriptor import BOX_MAX_LEN, Descriptor
from mesh.core.descriptor import armour as armour_descriptor
from mesh.core.descriptor import parse_untrusted as parse_descriptors_untrusted
from mesh.core.document import TEXT_MAX_LEN, Document, armour, parse_untrusted
from mesh.core.trusted import Trusted, resume_untrusted
from mesh.errors import DescriptorError, DirectoryError, IoError
from mesh.node.removed import read_withheld, withhold
from mesh.node.whole import locked, look, read_regular_untrusted, replace

EVIDENCE_MAX: Final = 8
"""Files: signers who contradict themselves are shown by two."""
SHELF_MAX: Final = 32_768
"""Files of descriptors: more nodes than a directory and peers.d together can list."""
_NOTE_MAX_LEN: Final = 1024
"""Octets of a file of one line."""
_DESCRIPTOR_MAX_LEN: Final = 4 * BOX_MAX_LEN
"""Octets of an armoured descriptor: base64 and the same in readable lines."""
SUFFIX: Final = ".mesh"


class Archive:
    """The files; who may change them together holds `lock`."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.main = state / "directory.mesh"
        self._copy = state / "directory.copy"
        self._root = state / "directory.root"
        self._removed = state / "directory.removed"
        self._signed = state / "directory.signed"
        self._shelf = state / "descriptors"
        self._evidence = state / "evidence"

    def lock(self) -> AbstractContextManager[None]:
        """One process at a time; CannotCreateError."""
        return locked(self._state / "directory.lock")

    def stamp(self) -> object:
        """Change whenever a command has changed what is in force, or the evidence."""
        return look(self.main), look(self._root), look(self._evidence)

    # what is in force

    @property
    def size(self) -> int:
        """Octets of the directory in force, 0 without one."""
        try:
            return self.main.stat().st_size
        except OSError:
            return 0

    def load(self, network: str, now: float) -> tuple[Trusted, list[str]]:
        """Give the directory in force, and a line for each file that does not count."""
        anchor = self.anchor()
        mistakes = []
        trusted = Trusted(network)
        seen: str | None = None
        for path in (self._copy, self.main):
            try:
                text = read_text_untrusted(path)
                if text != seen:
                    document = parse_untrusted(text, str(path))
                    trusted, seen = _next(trusted, document, anchor, now), text
            except FileNotFoundError:
                if anchor:
                    mistakes.append(f"{path}: not there")
            except DirectoryError as error:
                mistakes.append(placed(str(path), error))
            except OSError as error:
                mistakes.append(f"{path}: {error.strerror}")
        return trusted, mistakes

    def anchor(self) -> str:
        """The fingerprint of the first root, "" when nobody has adopted any."""
        with suppress(OSError, DirectoryError):
            octets = read_regular_untrusted(self._root, _NOTE_MAX_LEN)
            return octets.decode("ascii", "replace").strip()
        return ""

    def begin(
        self,
        before: Document | None,
        document: Document,
        released: Iterable[str] = (),
        now: float = 0.0,
    ) -> None:
        """Put a first directory, or one of other signers, in force; IoError."""
        anchor = f"{document.roots[0].root.fingerprint}\n"
        try:
            self._withhold(released, now)
            if before is not None:
                replace(self._copy, armour(before).encode())
            text = armour(document).encode()
            replace(self.main, text)
            replace(self._root, anchor.encode())
            replace(self._copy, text)
        except OSError as error:
            raise IoError(f"{self.main}: {error.strerror}") from error

    def adopt(
        self, document: Document, released: Iterable[str] = (), now: float = 0.0
    ) -> None:
        """Put the next in force; `released` are addresses to withhold.  IoError."""
        try:
            self._withhold(released, now)
            text = armour(document).encode()
            replace(self.main, text)
            replace(self._copy, text)
        except OSError as error:
            raise IoError(f"{self.main}: {error.strerror}") from error

    def _withhold(self, released: Iterable[str], now: float) -> None:
        if released := list(released):
            withhold(self._removed, released, now)

    def withheld(self) -> dict[str, int]:
        """Addresses of nodes that the signers took off, and until when."""
        with suppress(OSError, DirectoryError):
            return read_withheld(self._removed)
        return {}

    # what nodes said later

    def descriptors_untrusted(self) -> Iterator[Descriptor]:
        """All that lie on the shelf and hold."""
        for path in self._shelved():
            with suppress(OSError, DirectoryError):
                octets = read_regular_untrusted(path, _DESCRIPTOR_MAX_LEN)
                text = octets.decode("ascii", "replace")
                yield from parse_descriptors_untrusted(text, str(path))

    def shelve(self, descriptor: Descriptor) -> None:
        """Keep one, in the place of what its node said before; IoError."""
        path = self._shelf / f"{descriptor.identity.hex()}{SUFFIX}"
        try:
            self._shelf.mkdir(mode=0o700, exist_ok=True)
            replace(path, armour_descriptor(descriptor).encode())
        except OSError as error:
            raise IoError(f"{path}: {error.strerror}") from error

    def unshelve(self, identities: Iterable[bytes]) -> None:
        """Remove those of these nodes: they are in directory.mesh, or nobody's."""
        gone = {identity.hex() for identity in identities}
        for path in self._shelved():
            if path.stem in gone:
                with suppress(OSError):
                    path.unlink()

    def shelved(self) -> set[bytes]:
        """Whose lie there."""
        found = set()
        for path in self._shelved():
            with suppress(ValueError):
                identity = bytes.fromhex(path.stem)
                if len(identity) == PUBLIC_LEN:
                    found.add(identity)
        return found

    def _shelved(self) -> list[Path]:
        try:
            found = sorted(self._shelf.glob(f"[!.]*{SUFFIX}"))
        except OSError:
            return []
        return found[:SHELF_MAX]

    # who contradicted himself

    def keep_evidence(self, *documents: Document) -> None:
        """Keep directories that contradict each other, while there is room; IoError."""
        try:
            self._evidence.mkdir(mode=0o700, exist_ok=True)
            for document in documents:
                path = self._evidence / _evidence_name(document)
                kept = self.evidence()
                if path not in kept and len(kept) < EVIDENCE_MAX:
                    replace(path, armour(document).encode())
        except OSError as error:
            raise IoError(f"{self._evidence}: {error.strerror}") from error

    def evidence(self) -> list[Path]:
        """What is kept; the operator may remove it."""
        try:
            return sorted(self._evidence.glob(f"[0-9]*{SUFFIX}"))
        except OSError:
            return []

    # what this node signed

    def signed(self) -> tuple[int, bytes]:
        """Version and hash of the last roster that this node signed; (0, b"")."""
        with suppress(OSError, DirectoryError, ValueError):
            line = read_regular_untrusted(self._signed, _NOTE_MAX_LEN).decode()
            version, digest = line.split()
            return int(version), bytes.fromhex(digest)
        return 0, b""

    def note_signed(self, version: int, digest: bytes) -> None:
        """Write down what is about to be signed; IoError."""
        try:
            replace(self._signed, f"{version} {digest.hex()}\n".encode())
        except OSError as error:
            raise IoError(f"{self._signed}: {error.strerror}") from error


def read_text_untrusted(path: Path) -> str:
    """Read a file that should be a directory; raises DirectoryError or OSError."""
    return read_regular_untrusted(path, TEXT_MAX_LEN, "directory").decode(
        "ascii", "replace"
    )


def _evidence_name(document: Document) -> str:
    """One for each pair of roster and root, whoever signed them how."""
    roster = document.roster
    both = hash256(b"mesh/1 evidence\x00", document.root.statement, roster.hash)
    return f"{roster.version}-{both[:16].hex()}{SUFFIX}"


def _next(held: Trusted, document: Document, anchor: str, now: float) -> Trusted:
    """Take up what goes back to the anchor; beside another, by the rules for the next."""
    first = document.roots[0].root.fingerprint
    if first != anchor:
        raise DescriptorError(
            f"its first root is {first}, which nobody has adopted here"
        )
    if held.document is not None:
        return held.update_untrusted(document, now)
    return resume_untrusted(document, held.network)


def placed(where: str, error: DirectoryError) -> str:
    """Give the error's line, with the place in front."""
    text = str(error)
    return text if text.startswith(where) else f"{where}: {text}"
