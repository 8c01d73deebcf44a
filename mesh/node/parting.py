# SPDX-License-Identifier: MIT
"""Recipients and their places: which go together into one record, and what if they part.

All recipients of a record go to one place.  Routes change: peers.d while the node runs,
node.toml between two runs.  Then the recipients of one record may belong to several
places, none of which may read what is for the others, so the record is divided:

    parts    a record for each place, all in one commit; then the old one is forgotten
    rest     what is left to try of a record whose other recipients have been settled

    a crash                                 what the next start finds, and does
    before the commit of parts or a rest    the old record: divides, or sends, it again
    before the old one is forgotten         both: again, into records of the same ids
    later                                   parts or rest alone

The id of a part or a rest is a keyed hash of the old id, the place and the recipients:
what comes twice after a crash finds its own file in a Maildir and is known to a peer.
Nobody without the key sees that two ids come from one (PROTOCOL 4: an id a hop).
Nothing is led to a place that one of its recipients does not belong to.

What was taken for a peer, or claimed by two, never leaves by port 25, whatever became of
the peer's file since, also while the node was down: the place that a record was taken for
is in its head, and while nobody else serves its recipients it waits.

A part is as old as the whole, belongs to the same origin, and stands for the id by which a peer offered the whole as
long as that peer may offer it again (ids.py).  Parts whose copies would be more than
COPIES_MAX octets come in several steps: the last part is what is left, still mixed and
for the place that the whole was for, and is divided in its turn.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from mesh.core.crypto import Key, keyed_hash
from mesh.core.record import ID_LEN, NO_ID, Record, split_recipients
from mesh.node.routing import EXIT, LOCAL, UNROUTED

COPIES_MAX: Final = 67_108_864
"""Octets that one message may become through its many destinations: three of the
greatest size; a longer list of recipients is for several messages."""


class Router(Protocol):
    """Who takes mail for an address: the peers' directory."""

    def __call__(self, address: str) -> str | None:
        """Name the destination; None: there is none."""


class Parting:
    """Sorts recipients by place, and makes records of what a record becomes."""

    def __init__(
        self, router: Router, key: Key, knows: Callable[[bytes, bytes], bool]
    ) -> None:
        """`key` outlives the process; `knows` says whether a peer may offer an id."""
        self._router = router
        self._key = key
        self._knows = knows

    def places(self, recipients: Iterable[str]) -> dict[str, list[str]]:
        """Give each place and the recipients that belong to it, all in their order."""
        places: dict[str, list[str]] = {}
        for recipient in recipients:
            place = self._router(recipient) or UNROUTED
            places.setdefault(place, []).append(recipient)
        return places

    def places_of(self, record: Record) -> dict[str, list[str]]:
        """Give the same for a record; a peer's mail waits rather than leaves in clear."""
        places = self.places(record.recipients)
        if record.destination.startswith((LOCAL, EXIT)):
            return places
        outside = [place for place in places if place.startswith(EXIT)]
        kept = {to for place in outside for to in places.pop(place)}
        if kept:
            kept.update(places.get(UNROUTED, ()))
            places[UNROUTED] = [to for to in record.recipients if to in kept]
        return places

    def parts(self, record: Record) -> list[Record]:
        """Divide a whole record, or as much of it as may be copied at once."""
        groups = [
            (place, part)
            for place, theirs in self.places_of(record).items()
            for part in split_recipients(record.reverse_path, theirs, place)
        ]
        count = max(2, COPIES_MAX // max(1, len(record.content)))
        if len(groups) > count:
            left = [to for _, part in groups[count - 1 :] for to in part]
            mixed = split_recipients(record.reverse_path, left, record.destination)
            groups[count - 1 :] = [(record.destination, part) for part in mixed]
        return [self.rest(record, part, place) for place, part in groups]

    def rest(self, record: Record, recipients: Sequence[str], place: str) -> Record:
        """Give the record that takes the place of another, for some of its recipients."""
        names = "\0".join((place, *recipients)).encode()
        known = self._knows(record.origin, record.origin_id)
        return replace(
            record,
            id=keyed_hash(self._key, record.id + names, ID_LEN),
            origin_id=record.origin_id if known else NO_ID,
            destination=place,
            recipients=tuple(recipients),
        )
