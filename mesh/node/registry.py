# SPDX-License-Identifier: MIT
"""What this node knows of the mesh beyond peers.d: the shared directory in force.

A directory, or a descriptor, is offered by a command, a file that is watched, or a peer.
Whether it is taken is core/trusted.py's question alone; this is who asks it, writes the
answer down (archive.py), and shows it to everybody else.

    offered by    directory                           descriptor
    command       adopted; begun, if typed so         -
    watched file  adopted; never begun                -
    peer          adopted; never begun                taken, of listed nodes only
    state/ itself what a command of this node has adopted, by the same rules

What nodes said later than the directory in force stands with it: members' in `trusted`,
those of peers that only peers.d lists in `private`.

Every answer is one immutable view, replaced whole, so readers need no lock and wait for
nobody: `head`, `shared`, `members`, `private`, `notices`.  All else blocks, for a disk,
for a verification, for another process: it is a thread's work, never the Trio thread's.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from mesh.core.adoption import Offer, Outcome, Verdict, judge_untrusted, released
from mesh.core.descriptor import Descriptor, from_box_untrusted
from mesh.core.directory import Listed, Us
from mesh.core.document import (
    Document,
    from_octets_untrusted,
    parse_untrusted,
    to_octets,
)
from mesh.core.overview import brief
from mesh.core.sources import Shared
from mesh.core.trusted import Member, Trusted
from mesh.errors import DirectoryError, ForkError, IoError
from mesh.node.archive import Archive, placed, read_text_untrusted
from mesh.node.calm import calm_for
from mesh.node.watched import Watched


@dataclass(frozen=True)
class _View:
    """All that is known at one time."""

    trusted: Trusted
    shared: Shared = field(default_factory=Shared)
    loose: Mapping[bytes, Descriptor] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()


class Registry:
    """One node's; a command opens its own on the same files."""

    def __init__(self, state: Path, us: Us, watched: Path | None = None) -> None:
        self._archive = Archive(state)
        self.us = us
        self._watched = Watched(watched) if watched else None
        self._troubles: list[str] = []
        self._stamp: object = None
        self._own: Descriptor | None = None
        self._by_hand: Mapping[bytes, Descriptor] = {}
        self._turn = threading.RLock()
        self._octets: tuple[Trusted, bytes] | None = None
        self._view = _View(Trusted(us.network))
        self.on_change: list[Callable[[], None]] = []
        """Called after each change, in the thread that made it."""

    @classmethod
    def open(cls, state: Path, us: Us, now: float, watched: Path | None = None) -> Self:
        """Take up what was in force; a damaged file is a notice, never an error."""
        registry = cls(state, us, watched)
        registry._load(now)
        registry.poll(now)
        return registry

    # what everybody may ask at any time

    @property
    def trusted(self) -> Trusted:
        """The directory in force, or none."""
        return self._view.trusted

    @property
    def head(self) -> tuple[int, bytes]:
        """Order and hash of the directory in force; (0, zeros) without one."""
        return self._view.trusted.head

    @property
    def version(self) -> int:
        """Its version; 0 without one."""
        document = self._view.trusted.document
        return document.roster.version if document else 0

    @property
    def shared(self) -> Shared:
        """What Peers merges with peers.d; another object after each change."""
        return self._view.shared

    @property
    def members(self) -> dict[bytes, Descriptor]:
        """The directory's nodes by identity, ourselves too, each as new as we have."""
        members = self._view.trusted.members
        return {who: member.descriptor for who, member in members.items()}

    @property
    def private(self) -> dict[bytes, Descriptor]:
        """Of peers that only peers.d lists, by identity: nobody else's business."""
        view = self._view
        return {
            who: _later(view.loose.get(who), listed)
            for who, listed in self._by_hand.items()
            if who not in view.trusted.members
        }

    @property
    def own(self) -> Descriptor | None:
        """Our own current descriptor."""
        return self._own

    @property
    def evidence(self) -> tuple[str, ...]:
        """Names of the files that show signers who contradict themselves."""
        return self._view.evidence

    def notices(self, now: float) -> list[str]:
        """A line for each thing that the operator should know; empty when all is well."""
        view = self._view
        lines = list(self._troubles)
        if self._watched and self._watched.trouble:
            lines.append(f"{self._watched.trouble}; {self._stays}")
        lines += view.trusted.notices(now)
        members = view.trusted.members
        if members and self.us.identity not in members:
            lines.append(
                f"directory: version {self.version} does not list this node: "
                "give a signer your `mesh export`"
            )
        if view.evidence:
            lines.append(
                f"directory: the signers signed contradicting ones, kept in "
                f"{self._archive.main.parent}/evidence ({', '.join(view.evidence)}): "
                "show them; adopt two versions more, then remove the files"
            )
        return lines

    def brief(self, now: float) -> dict[str, object] | None:
        """What `mesh status --json` says of the directory in force."""
        document = self._view.trusted.document
        if document is None:
            return None
        return {**brief(document, now), "evidence": list(self._view.evidence)}

    # what a thread does

    def octets(self) -> bytes:
        """The directory in force for handing on, each descriptor as new as we have.

        b"" without one; the same object until something changes.
        """
        trusted = self._view.trusted
        held = self._octets
        if held is None or held[0] is not trusted:
            current = trusted.current
            held = self._octets = trusted, to_octets(current) if current else b""
        return held[1]

    def know(self, by_hand: Mapping[bytes, Descriptor]) -> None:
        """Learn whom peers.d lists, by identity."""
        self._by_hand = by_hand

    def tell_own(self, descriptor: Descriptor) -> bool:
        """Learn our own current descriptor; whether it changed anything."""
        with self._told(), self._turn:
            if self._own == descriptor:
                return False
            self._own = descriptor
            view = self._view
            self._show(replace(view, trusted=view.trusted.renewed([descriptor])))
        return True

    def consider_document(
        self,
        offered: bytes | str | Document,
        where: str,
        now: float,
        *,
        begin: bool = False,
        root: str | None = None,
    ) -> Outcome:
        """Offer a directory: octets from a link, text of a file, or a document.

        `begin` where an operator typed so, `root` the fingerprint that he was told: with
        one, a directory of other signers may take the place of the one in force.
        Raises CannotCreateError or IoError for the disk.
        """
        size = 0 if isinstance(offered, Document) else len(offered)
        with calm_for(size):
            return self._offer(offered, where, now, begin, root)

    def _offer(
        self, offered: bytes | str | Document, where: str, now: float, *typed: Any
    ) -> Outcome:
        try:
            if isinstance(offered, bytes):
                offered = from_octets_untrusted(offered)
            elif isinstance(offered, str):
                offered = parse_untrusted(offered, where)
        except DirectoryError as error:
            return Outcome(Verdict.REFUSED, placed(where, error))
        with self._told(), self._turn, self._archive.lock():
            self._reload(now)
            try:
                outcome = Outcome(self._consider(Offer(offered, *typed), now))
            except DirectoryError as error:
                if isinstance(error, ForkError):
                    self._keep_evidence(offered)
                outcome = Outcome(Verdict.of(error), placed(where, error))
            self._stamp = self._archive.stamp()
        return outcome

    def consider_descriptors(self, boxes: Iterable[bytes], now: float) -> int:
        """Offer what nodes say of themselves; how many are taken, settled once for all.

        Each must be of a listed node, valid now, and later than what we have; what the
        disk refuses comes again.  Raises CannotCreateError.
        """
        read = filter(None, map(_read_untrusted, boxes))
        ours = (one for one in read if one.network == self.us.network)
        offered = [one for one in ours if one.valid_at(now)]
        with self._told(), self._turn, self._archive.lock():
            self._reload(now)
            return self._take(offered)

    def poll(self, now: float) -> bool:
        """Look whether a command or the watched file brings another; True if so."""
        before = self._view
        with self._told(), self._turn:
            if self._archive.stamp() != self._stamp:
                with self._archive.lock():
                    self._reload(now)
        if self._watched:
            self._watched.poll(
                now, lambda text, where: self.consider_document(text, where, now)
            )
        return self._view is not before

    # how

    def _consider(self, offer: Offer, now: float) -> Verdict:
        held = self._view.trusted
        verdict, trusted = judge_untrusted(held, offer, self._known(), now)
        if verdict is not Verdict.SAME or self._troubles:  # the files need mending
            self._put(trusted, now, begins=offer.begins(held))
        return verdict

    def _put(self, trusted: Trusted, now: float, *, begins: bool) -> None:
        """Write down what is now in force, then show it."""
        before, document = self._view.trusted, trusted.current
        assert document is not None  # noqa: S101  # it was just offered
        free = released(before, trusted)
        if begins:
            self._archive.begin(before.current, document, free, now)
        else:
            self._archive.adopt(document, free, now)
        self._troubles.clear()
        needless = self._archive.shelved() & trusted.members.keys()
        self._archive.unshelve(needless)
        loose = self._view.loose.items()
        loose_now = {who: one for who, one in loose if who not in trusted.members}
        self._show(replace(self._view, trusted=trusted, loose=loose_now))

    def _known(self) -> list[Descriptor]:
        """What we have of nodes that may now be listed."""
        known = [*self.members.values(), *self._view.loose.values()]
        return [*known, self._own] if self._own else known

    def _take(self, offered: list[Descriptor]) -> int:
        """Take those that are later and stand; how many."""
        view, taken = self._with(offered)
        kept = [one for one in taken if self._shelve(one)]
        view = view if kept == taken else self._with(kept)[0]
        if view is not self._view:
            self._show(view)
        return len(kept)

    def _shelve(self, one: Descriptor) -> bool:
        with suppress(IoError):
            self._archive.shelve(one)
            return True
        return False

    def _with(self, offered: list[Descriptor]) -> tuple[_View, list[Descriptor]]:
        """What is known with these in it, and which of them it has."""
        view, loose = self._view, dict(self._view.loose)
        for one in offered:
            listed = self._by_hand.get(one.identity)
            if one.identity not in view.trusted.members and listed:
                held = _later(loose.get(one.identity), listed)
                if one.name == listed.name and one.serial > held.serial:
                    loose[one.identity] = one
        trusted = view.trusted.renewed(offered)
        if trusted is not view.trusted or loose != view.loose:
            view = replace(view, trusted=trusted, loose=loose)
        has = {**loose, **{w: m.descriptor for w, m in trusted.members.items()}}
        return view, [one for one in offered if has.get(one.identity) is one]

    def _load(self, now: float) -> None:
        """Read everything."""
        self._stamp = self._archive.stamp()
        trusted, lines = self._archive.load(self.us.network, now)
        shelf = list(self._archive.descriptors_untrusted())
        shelf = [d for d in shelf if d.network == self.us.network]
        loose = {d.identity: d for d in shelf if d.identity not in trusted.members}
        self._show(_View(trusted.renewed(shelf), loose=loose))
        self._troubles = [f"{line}; {self._stays}" for line in lines]

    def _reload(self, now: float) -> None:
        """Take up what a command has changed, by the same rules as from anybody."""
        stamp = self._archive.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            with calm_for(self._archive.size):
                self._read_again(now)

    def _read_again(self, now: float) -> None:
        lines: list[str] = []
        trusted = held = self._view.trusted
        document = held.document
        if document and document.roots[0].root.fingerprint == self._archive.anchor():
            path = self._archive.main
            try:
                document = parse_untrusted(read_text_untrusted(path), str(path))
                trusted = held.update_untrusted(document, now)
            except DirectoryError as error:
                lines.append(placed(str(path), error))
            except OSError as error:
                lines.append(f"{path}: {error.strerror}")
        else:  # begun by a command, perhaps with other signers
            loaded, lines = self._archive.load(self.us.network, now)
            trusted = loaded if loaded.document else held
        if trusted is not held:
            trusted = trusted.renewed(self._known())
        self._show(replace(self._view, trusted=trusted))
        self._troubles = [f"{line}; {self._stays}" for line in lines]

    @property
    def _stays(self) -> str:
        if not self.version:
            return "no directory is in force: `mesh directory adopt` one"
        return f"version {self.version} stays in force"

    def _keep_evidence(self, document: Document) -> None:
        ours = self._view.trusted.current
        self._archive.keep_evidence(*((ours, document) if ours else (document,)))
        self._show(self._view)

    def _show(self, view: _View) -> None:
        """Put this in everybody's sight."""
        members = view.trusted.members.values()
        listed = tuple(map(_listed, members))
        shared = Shared(listed, view.loose, self._archive.withheld())
        evidence = tuple(path.name for path in self._archive.evidence())
        self._view = replace(view, shared=shared, evidence=evidence)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell of whatever is shown meanwhile: also of what a command had changed."""
        before = self._view
        try:
            yield
        finally:
            for call in self.on_change if self._view is not before else ():
                call()


def _listed(member: Member) -> Listed:
    """One without keys, whom nobody calls and who keeps his addresses, when doubted."""
    descriptor = member.descriptor
    if member.doubted:
        descriptor = replace(descriptor, link_keys=(), addresses=())
    return Listed(descriptor, member.addresses, frozenset(member.entry.hosts))


def _read_untrusted(box: bytes) -> Descriptor | None:
    with suppress(DirectoryError):
        return from_box_untrusted(box)
    return None


def _later(one: Descriptor | None, listed: Descriptor) -> Descriptor:
    """What counts of one that was offered and the one that peers.d lists."""
    if one is None or one.name != listed.name:
        return listed
    return max(listed, one, key=lambda descriptor: descriptor.serial)
