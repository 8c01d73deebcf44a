# SPDX-License-Identifier: MIT
"""Half nodes that gossip: real registries on a real disk, fake wires between them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from mesh.core.clock import Clock
from mesh.core.crypto import signing_public, x25519_public
from mesh.core.descriptor import Descriptor
from mesh.core.directory import Us
from mesh.core.document import Document
from mesh.core.handshake import PeerKeys, Session
from mesh.node.gossip import Gossiping
from mesh.node.registry import Registry
from tests.descriptors import NOW, identity_of, link_key_of, signed
from tests.harness import Cable, Half, half, sessions, wire_pair


def public_of(name: str) -> bytes:
    return signing_public(identity_of(name))


def keys_of(name: str) -> PeerKeys:
    return PeerKeys(name, public_of(name), (x25519_public(link_key_of(name)),))


@dataclass
class Knower:
    """A half node and what it knows of the mesh."""

    half: Half
    registry: Registry
    gossip: Gossiping

    @property
    def name(self) -> str:
        return self.half.name

    def newest(self, name: str) -> int:
        """The serial that it has of a member, 0 for none."""
        found = self.registry.members.get(public_of(name))
        return found.serial if found else 0


@asynccontextmanager
async def knower(
    folder: Path,
    name: str,
    document: Document | None = None,
    routes: dict[str, str] | None = None,
    by_hand: Sequence[Descriptor] = (),
) -> AsyncIterator[Knower]:
    """Run one; with a directory it is begun as by an operator, unless one is there."""
    state = folder / f"{name} state"
    state.mkdir(exist_ok=True)
    identity = public_of(name)
    registry = Registry.open(state, Us(name, "main", {}, identity), NOW)
    if document:
        adopt(registry, document, begin=True)
    registry.know({each.identity: each for each in by_hand})
    registry.tell_own(registry.members.get(identity) or signed(name))
    gossip = Gossiping(registry, identity, lambda: NOW)
    async with half(
        folder, name, routes or {}, identity=identity, gossip=gossip
    ) as made:
        yield Knower(made, registry, gossip)


def adopt(registry: Registry, document: Document, *, begin: bool = False) -> str:
    """What `mesh directory adopt` does; the verdict."""
    return registry.consider_document(document, "file", NOW, begin=begin).verdict.value


def real_sessions(
    near: str, far: str, counter: int, clock: Clock, klass: int, head: tuple[int, bytes]
) -> tuple[Session, Session]:
    """Both ends, each with the other's real identity; far knows near's head."""
    ours, theirs = sessions(near, far, clock=clock, klass=klass, counter=counter)
    return replace(ours, peer=keys_of(far)), replace(
        theirs,
        peer=keys_of(near),
        directory_version=head[0],
        directory_hash=head[1],
    )


async def connect(
    nursery: trio.Nursery,
    near: Knower,
    far: Knower,
    *,
    counter: int = 1,
    clock: Clock = Clock.GREEDY,
    klass: int = 3,
) -> Cable:
    """Make a link that `near` dialled."""
    cable = Cable(*wire_pair())
    ours, theirs = real_sessions(
        near.name, far.name, counter, clock, klass, near.half.exchange.directory
    )

    async def carry(
        end: Knower, session: Session, wire: object, task_status: trio.TaskStatus[None]
    ) -> None:
        exchange = end.half.exchange
        reason = await exchange.run_link(session, wire, task_status)  # type: ignore[arg-type]
        cable.reasons[end.name] = reason

    await nursery.start(carry, far, theirs, cable.far)
    await nursery.start(carry, near, ours, cable.near)
    return cable
