# SPDX-License-Identifier: MIT
"""The way out: records from the memory of those just committed, or from their rows.

A record that is not in memory any more is read in one hop to the writer thread, many
at once.  One that does not open is set aside: it counts as corrupt from then on.
Trio thread only.
"""

from collections.abc import Sequence
from functools import partial

from mesh.core.record import Record, open_head_untrusted, open_record_untrusted
from mesh.errors import LocalProtocolError, RemoteProtocolError
from mesh.node.arena import Arena
from mesh.node.groups import Groups, Sealed
from mesh.node.index import Hot, Index, Ref, slot_of
from mesh.node.writer import Writer


class Reading:
    """Finds, reads and opens records."""

    def __init__(
        self,
        arena: Arena,
        groups: Groups,
        index: Index,
        hot: Hot,
        writer: Writer,
        corrupt: set[Ref],
    ) -> None:
        self._arena = arena
        self._groups = groups
        self._index = index
        self._hot = hot
        self._writer = writer
        self._corrupt = corrupt

    def held(self, ref: Ref) -> int:
        """Give a record's slot; LocalProtocolError when it was forgotten."""
        slot, generation = slot_of(ref)
        if not self._arena.is_held(slot, generation):
            raise LocalProtocolError("this record was forgotten")
        return slot

    async def read(self, refs: Sequence[Ref], *, bodies: bool) -> list[Record | None]:
        """Give records, with `bodies` whole; None for one that does not open."""
        found: list[Record | None] = [self._hot.get(ref) for ref in refs]
        missing = [at for at, record in enumerate(found) if record is None]
        if not missing:
            return found
        places = [self._index.place(self.held(refs[at])) for at in missing]
        boxes = await self._writer.call(
            partial(self._groups.fetch, places, bodies=bodies)
        )
        for at, sealed in zip(missing, boxes, strict=True):
            found[at] = self._open(refs[at], sealed, bodies=bodies)
        return found

    def _open(self, ref: Ref, sealed: Sealed | None, *, bodies: bool) -> Record | None:
        slot = self.held(ref)
        if sealed is not None:
            key, salt = self._arena.key(slot), sealed.salt
            try:
                if bodies:
                    return open_record_untrusted(key, salt, sealed.head, sealed.body)
                return open_head_untrusted(key, salt, sealed.head)[0]
            except RemoteProtocolError:
                pass
        self._corrupt.add(ref)
        return None
