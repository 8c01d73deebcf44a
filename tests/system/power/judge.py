# SPDX-License-Identifier: MIT
"""Opens what a power cut left of a home, with the node's own code, and says what is there.

    part        opened by                      must hold whatever was lost
    spool       Spool.open, recovered, read    opens; nothing corrupt, all as handed in
    drop        OneTimeKeys, DropBox           opens; mail that lies there opens
    counters    OwnCounter's and PeerCounters' reading   opens; never back
    letters     Maildir/new                    as handed in
    peers       Peers.poll                     every file whole
    papers      Archive.load                   the last directory or the next one

A part whose files are as before is not opened again.  Every fourth spool is opened a
second time: recovery must not undo what it recovered.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from mesh.core.crypto import Key, SystemEntropy, derive_key
from mesh.core.directory import Us
from mesh.core.drop import mail_key_untrusted, open_mail_untrusted, origin_id
from mesh.core.record import ID_LEN
from mesh.errors import RemoteProtocolError
from mesh.node.archive import Archive
from mesh.node.counters import PeerCounters, read_statement
from mesh.node.drop import FILE_LEN_MAX
from mesh.node.dropbox import DropBox, Found
from mesh.node.index import slot_of
from mesh.node.keys import load_spool_key
from mesh.node.onetime import OneTimeKeys
from mesh.node.peers import Peers
from mesh.node.spool import Spool
from tests.descriptors import NOW
from tests.system.power.child import DROP_SLOTS
from tests.system.power.medium import Key as StateKey
from tests.system.power.medium import Left, Remains
from tests.system.power.story import digest_of

T = TypeVar("T")
Message = tuple[str, str]
"""Its name and one recipient."""
AGAIN: Final = 4
REMEMBERED: Final = 256
"""Parts whose files were the same a moment ago."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A record that a start found."""

    id: bytes
    messages: tuple[Message, ...]
    is_local: bool


@dataclass(slots=True)
class SpoolFound:
    """What a spool holds."""

    records: tuple[Spooled, ...] = ()
    known: frozenset[bytes] = frozenset()
    """Ids, with those of their origins in front."""


def _ids_of(spool: Spool) -> Iterator[bytes]:
    """Give what is remembered of peers' messages: whose, and its id."""
    octets = bytes(spool._ids._ids)
    for at in range(0, len(octets), 2 * ID_LEN):
        known = octets[at : at + 2 * ID_LEN]
        if any(known):
            yield known


@dataclass(slots=True)
class State:
    """What a home holds after one power cut."""

    spool: SpoolFound = field(default_factory=SpoolFound)
    left: tuple[tuple[bytes, tuple[Message, ...]], ...] = ()
    """Mail in the drop folder: its id, and whose it is."""
    letters: frozenset[Message] = frozenset()
    counter: int = 0
    counters: dict[bytes, int] = field(default_factory=dict)
    peers: frozenset[str] = frozenset()
    version: int = 0
    """Of the shared directory in force; 0: none."""

    @property
    def messages(self) -> set[Message]:
        """All that is not lost."""
        return {
            *self.letters,
            *(each for record in self.spool.records for each in record.messages),
            *(each for _, messages in self.left for each in messages),
        }


class Wrong(Exception):  # noqa: N818  # what the judge says
    """Something that a power cut must not do."""


class Judge:
    """Opens states of one home in a scratch folder."""

    def __init__(self, name: str, base: Path, scratch: Path) -> None:
        self.name = name
        self._scratch = scratch
        self._keys = base / "state"
        self._cache: dict[tuple[str, StateKey], tuple[Any]] = {}
        self._digests: dict[StateKey, str] = {}
        self._contents: dict[bytes, str] = {}
        """Those that were as handed in: one of many states differs in few."""
        self.handed_in: dict[str, tuple[str, frozenset[str]]] = {}
        """Names, their digests and recipients."""
        self.opened = 0
        """Spools."""
        if name != "papers":
            self._spool_key: Key = load_spool_key(self._keys)
            self._wrapping = derive_key(self._spool_key, b"mesh/1 drop keys")

    def judge(self, left: Left) -> State:
        """Say what is there; Wrong."""
        state = State()
        if self.name == "papers":
            state.version = self._part(left, "papers", ("",), self._papers)
            return state
        state.spool = self._part(left, "spool", ("state/spool",), self._spool)
        state.left = self._part(left, "drop", ("state/drop.keys", "drop"), self._drop)
        state.counter, state.counters = self._part(
            left, "counters", ("state/counter", "state/counters"), self._counters
        )
        state.peers = self._part(left, "peers", ("peers.d",), self._peers)
        state.letters = self._letters(left)
        return state

    def _part(
        self, left: Left, what: str, paths: Sequence[str], job: Callable[[Path], T]
    ) -> T:
        """Open a part, or remember what it was."""
        nodes = [left.at(path) if path else left for path in paths]
        key = tuple(node and node.key() for node in nodes)
        known = self._cache.get((what, key))
        if known is None:
            if len(self._cache) >= REMEMBERED:
                del self._cache[next(iter(self._cache))]
            folder = self._scratch / f"{self.name}-{what}"
            shutil.rmtree(folder, ignore_errors=True)
            for path, node in zip(paths, nodes, strict=True):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                _lay(target, node)
            try:
                known = self._cache[what, key] = (job(folder),)
            except Wrong:
                raise
            except Exception as error:
                raise Wrong(f"{what}: {error!r}") from error
        return cast(T, known[0])

    # parts

    def _spool(self, folder: Path) -> SpoolFound:
        found = self._open_spool(folder / "state" / "spool")
        self.opened += 1
        if self.opened % AGAIN == 0:
            again = self._open_spool(folder / "state" / "spool")
            if again != found:
                raise Wrong("spool: the second opening finds something else")
        return found

    def _open_spool(self, path: Path) -> SpoolFound:
        path.parent.mkdir(parents=True, exist_ok=True)
        spool = Spool.open(path, self._spool_key, SystemEntropy(), lambda: 0.0)
        try:
            refs = [ref for ref, _ in spool.recovered()]
            places = [spool._index.place(slot_of(ref)[0]) for ref in refs]
            boxes = spool._groups.fetch(places, bodies=True)
            records = []
            for ref, sealed in zip(refs, boxes, strict=True):
                record = spool._reading._open(ref, sealed, bodies=True)
                if record is not None:
                    messages = self._known(record.content, record.recipients)
                    is_local = record.destination.startswith("local:")
                    records.append(Spooled(record.id, messages, is_local))
            if spool.corrupt:
                raise Wrong(f"spool: {spool.corrupt} corrupt")
            known = frozenset(_ids_of(spool))
        finally:
            spool.close()
        return SpoolFound(tuple(records), known)

    def _known(
        self, content: bytes, recipients: tuple[str, ...]
    ) -> tuple[Message, ...]:
        """Say which message this is; Wrong when it is none that was handed in."""
        ident = self._contents.get(content) or _ident(content)
        digest, to = self.handed_in.get(ident, ("", frozenset()))
        is_whole = content in self._contents or digest_of(content) == digest
        if not is_whole or not to.issuperset(recipients):
            raise Wrong(f"invented, or not as it was handed in: {ident[:40]!r}")
        self._contents[content] = ident
        return tuple((ident, recipient) for recipient in recipients)

    def _drop(self, folder: Path) -> tuple[tuple[bytes, tuple[Message, ...]], ...]:
        (folder / "state").mkdir(exist_ok=True)
        entropy = SystemEntropy()
        keys = OneTimeKeys.open(folder / "state/drop.keys", self._wrapping, entropy)
        box = DropBox(folder / "drop", FILE_LEN_MAX, None)
        found = []
        try:
            mails, _ = box.look([(slot, keys.one(slot)) for slot in range(DROP_SLOTS)])
            for slot in mails:
                one = keys.one(slot)
                what, octets = box.read(one)
                if what is not Found.MAIL:
                    continue
                try:
                    key = mail_key_untrusted(keys.private(slot), one, octets)
                    mail = open_mail_untrusted(key, one, octets)
                except RemoteProtocolError:
                    continue  # one whose sender has not heard that all is well
                messages = self._known(mail.content, mail.recipients)
                found.append((origin_id(octets), messages))
        finally:
            box.close()
            keys.close()
        return tuple(found)

    def _counters(self, folder: Path) -> tuple[int, dict[bytes, int]]:
        (folder / "state").mkdir(exist_ok=True)
        own = read_statement(folder / "state/counter")
        peers = PeerCounters(folder / "state/counters").last
        return (own if isinstance(own, int) else 0), peers

    def _peers(self, folder: Path) -> frozenset[str]:
        us = Us("nobody", "main", {})
        peers = Peers(folder / "peers.d", us)
        peers.poll()
        if peers.snapshot.mistakes:
            raise Wrong(f"peers: {peers.snapshot.mistakes}")
        return frozenset(peers.snapshot.by_name)

    def _papers(self, folder: Path) -> int:
        trusted, _ = Archive(folder).load("main", NOW + 3600)
        return trusted.document.roster.version if trusted.document else 0

    def _letters(self, left: Left) -> frozenset[Message]:
        new = left.at("Maildir/new")
        if not isinstance(new, Left):
            return frozenset()
        to = f"mix@{self.name}.test"
        found: list[Message] = []
        for node in new.names.values():
            assert isinstance(node, Remains)
            key = node.key()
            ident = self._digests.get(key)
            if ident is None:
                content = node.octets()
                ident = _ident(content)
                digest, _ = self.handed_in.get(ident, ("", frozenset()))
                if digest_of(content) != digest:
                    raise Wrong(f"a letter that is not as handed in: {ident[:40]!r}")
                self._digests[key] = ident
            found.append((ident, to))
        return frozenset(found)


def _ident(content: bytes) -> str:
    """Read a message's own name, which stands in its first line."""
    line = content.partition(b"\n")[0].rstrip(b"\r")
    return line.removeprefix(b"Subject: ").decode("latin-1")


def _lay(path: Path, node: "Left | Remains | None") -> None:
    """Write what a power cut left."""
    if isinstance(node, Remains):
        octets = node.octets()
        with path.open("wb") as file:
            file.write(octets.rstrip(b"\0"))
            file.truncate(len(octets))
    elif node is not None:
        path.mkdir(exist_ok=True)
        for name, each in node.names.items():
            _lay(path / name, each)
