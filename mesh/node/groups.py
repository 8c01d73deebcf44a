# SPDX-License-Identifier: MIT
"""Groups of sealed records in SQLite: one row, one statement, one commit a group.

    groups   id      the group's number, counted up
             salt    11 octets of the records' nonces
             slots   slot u32, generation u64, body's length u32: 16 octets a record
             heads   1,024 octets a record
             bodies  one after the other, each a multiple of 4,096 octets

Nothing else in the program knows that this is SQLite.  What a seized disk shows here:
slot numbers, lengths in steps of 4,096, and boxes whose keys are in the arena.

WAL with synchronous=FULL: a commit that returned is on the disk; one that did not is
wholly there or not at all.  What a killed process had written and not synced is found
whole all the same: the WAL is synced before it is read, or a peer that offers the same
message again would hear that it is stored, and a power cut then take it.  Exclusive locking: nobody else has the file open, so the
WAL's index needs no shared memory.  Deleted rows are not overwritten: their keys are.

psow=0: SQLite takes it that a write harms nothing beside it, and begins a commit in the
sector where the last one ends.  A power cut that tears this sector would take what was
accepted before.  So each commit is filled up to the next sector, with its last page.

SQLite's own checkpoints are off, at a commit as at the close: they swallow the error of
a failed fsync and try again, and the second fsync succeeds over pages that are lost.
`checkpoint` is called by the spool, and its failure ends the process.

What goes into the WAL has its room in the database beforehand: a checkpoint that finds
none could never begin the WAL anew, and a disk that was full once would stay full when
all its mail is gone.

A page that is damaged costs the records that lie on it, not the node: `fetch` says None
of them, and `delete` leaves such a group where it is.

Blocking; one thread at a time.  No room is SpoolFullError, which costs one group; any
other error ends the process: IoError in what a start reads, when no writer (writer.py)
tells a failing disk from a bug, else apsw's own.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

import apsw

from mesh.core.record import HEAD_LEN, SALT_LEN
from mesh.errors import IoError, SpoolCorruptError, SpoolFullError
from mesh.node.copies import check_regular, open_private, sync_folder
from mesh.node.row import Row, row_of

_SETUP: Final = """
pragma page_size = 32768;
pragma locking_mode = exclusive;
pragma journal_mode = wal;
pragma synchronous = full;
pragma wal_autocheckpoint = 0;
pragma journal_size_limit = 83886080;
pragma secure_delete = off;
pragma temp_store = memory;
pragma cache_size = -8192;
"""
_CREATE: Final = """
create table groups (
    id integer primary key, salt blob, slots blob, heads blob, bodies blob
)
"""
_FLAGS: Final = (
    apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
)
_PASSIVE: Final = apsw.SQLITE_CHECKPOINT_PASSIVE
_INSERT: Final = "insert into groups values (?, ?, ?, ?, ?)"
_DELETE: Final = "delete from groups where id in (select value from json_each(?))"
_SCAN: Final = (
    "select id, salt, slots, heads, length(bodies) from groups where id > ? order by id"
)
_TABLE: Final = "select name, lower(type), pk from pragma_table_info('groups')"
_COLUMNS: Final = [
    ("id", "integer", 1),
    *((name, "blob", 0) for name in ("salt", "slots", "heads", "bodies")),
]
"""What is damaged there would pass for a table without any numbers."""
_NEWEST: Final = "select id from groups order by id desc limit ?"
_GREATEST: Final = "select max(+id) from groups"
"""The + has SQLite look at all rows, and not take the last one for it."""
_NAMESAKES: Final = "select id from groups group by +id having count(*) > 1"
_TWICE: Final = (
    "select count(salt) - count(distinct salt) from groups where length(salt) = ?"
)
_LAST: Final = (
    "select id, salt, slots, heads, length(bodies) from groups order by id desc limit ?"
)
_ONE: Final = "select salt, slots, heads, length(bodies) from groups where id = ?"

PAGE_LEN: Final = 32_768
"""Octets, as above; for the room that a row needs."""
ROOM_AHEAD: Final = 4_194_304
"""Octets set aside at once: some seconds' worth of a relay."""
NUMBER_MAX: Final = (1 << 63) - 1
"""SQLite's greatest."""
BEFORE_ALL: Final = -NUMBER_MAX
"""A search for this ends at the first row, whatever numbers are damaged."""
TAIL_ROWS: Final = 16
"""Rows at the end whose order is looked at: more than one leaf has, so that a new row
meets none of its own number; a row has a head and a body, and takes 4 KiB of its leaf."""
ROW_PAGES: Final = 4
"""Pages of a row beside its octets: its own, its parents', the list of free ones."""

DAMAGED: Final = "the spool's database is damaged"

DISK_ERRORS: Final = (OSError, apsw.Error)
"""What a failing disk raises here."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """One record as it lies in its group; the body is empty where not asked for."""

    salt: bytes
    head: bytes
    body: bytes


class Groups:
    """The database, open."""

    def __init__(self, path: Path, *, new: bool = True) -> None:
        """Open and recover; SpoolCorruptError if it is none.

        Only a `new` one may have no table yet: of another it was lost.
        """
        self._wal = path.with_name(f"{path.name}-wal")
        check_regular(self._wal)
        _sync(self._wal)
        # Closing any descriptor of the file ends SQLite's locks: so this one is last.
        self._file = open_private(path)
        self._room = 0  # octets set aside that no group has used
        try:
            with _failing():
                self._db = apsw.Connection(path.absolute().as_uri() + "?psow=0", _FLAGS)
        except IoError:
            os.close(self._file)
            raise
        try:
            with _failing():
                self._db.execute(_SETUP).fetchall()
                self._check_table(new=new)
        except (apsw.CorruptError, apsw.NotADBError) as error:
            self.close()
            raise SpoolCorruptError(f"{path}: not a spool, or damaged") from error
        except IoError:
            self.close()
            raise
        self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        sync_folder(path.parent)

    def _check_table(self, *, new: bool) -> None:
        found = self._db.execute(_TABLE).fetchall()
        if new and not found:
            self._db.execute(_CREATE).fetchall()
        elif found != _COLUMNS:
            raise apsw.CorruptError("another table, or none")

    def close(self) -> None:
        """Close the database; nothing is written."""
        self._db.close()
        os.close(self._file)

    def next_id(self) -> int:
        """Give a number greater than that of any row; SpoolCorruptError.

        SQLite takes the last row's for the greatest and asks nobody.  Where the last
        rows are out of order, each row is asked: that is slow.
        """
        last = [cast(int, number) for (number,) in self._all(_NEWEST, TAIL_ROWS)]
        if any(before >= after for after, before in pairwise(last)):
            [(newest,)] = self._all(_GREATEST)
        else:
            newest = max(last, default=0)
        if newest == NUMBER_MAX:
            raise SpoolCorruptError(DAMAGED)
        return max(0, cast(int, newest)) + 1

    def tail(self) -> list[Row]:
        """Read the last rows, TAIL_ROWS at most; SpoolCorruptError."""
        return [row_of(*values) for values in reversed(self._all(_LAST, TAIL_ROWS))]

    def namesakes(self) -> list[int]:
        """Look at all rows for numbers that two of them have; SpoolCorruptError.

        That too when one row lies there twice: it hides another, or many.
        """
        [(twice,)] = self._all(_TWICE, SALT_LEN)
        if twice:
            raise SpoolCorruptError(DAMAGED)
        return [cast(int, number) for (number,) in self._all(_NAMESAKES)]

    def _all(self, statement: str, *values: int) -> list[tuple[Any, ...]]:
        try:
            with _failing():
                return self._db.execute(statement, values).fetchall()
        except apsw.CorruptError as error:
            raise SpoolCorruptError(DAMAGED) from error

    def insert(
        self, number: int, salt: bytes, slots: bytes, heads: bytes, bodies: bytes
    ) -> None:
        """Commit a group; SpoolFullError when the disk has no room for it."""
        values = number, salt, slots, heads, bodies
        self._commit(_INSERT, values, len(heads) + len(bodies))

    def _commit(self, statement: str, values: tuple[Any, ...], octets: int = 0) -> None:
        """Run a statement; where the WAL has no room, once more in a WAL begun anew."""
        self._reserve(octets)
        try:
            self._db.execute(statement, values)
            return
        except apsw.FullError:
            self.checkpoint()  # which also cuts off what was reserved
        self._reserve(octets)
        try:
            self._db.execute(statement, values)
        except apsw.FullError as error:
            raise SpoolFullError("the disk is full") from error

    def _reserve(self, octets: int) -> None:
        """Have room in the database for so much more; SpoolFullError.

        Room is set aside for many groups at once where the disk has it: to ask SQLite
        and the kernel for each would give the interpreter's lock away three times.
        """
        if not octets:
            return
        needed = octets + ROW_PAGES * PAGE_LEN
        if needed > self._room:
            try:
                self._room = self._set_aside(max(needed, ROOM_AHEAD))
            except SpoolFullError:
                self._room = self._set_aside(needed)
        self._room -= needed

    def room(self) -> int:
        """Count the octets that the disk has for more, those of deleted rows too."""
        found = os.fstatvfs(self._file)
        unused = os.fstat(self._file).st_size - self._pragma("page_count") * PAGE_LEN
        free = self._pragma("freelist_count") * PAGE_LEN
        return found.f_bavail * found.f_frsize + free + max(0, unused)

    def wal_octets(self) -> int:
        """Tell the length of the WAL's file: what it holds, or held."""
        return self._wal.stat().st_size if self._wal.exists() else 0

    def _set_aside(self, octets: int) -> int:
        pages, free = self._pragma("page_count"), self._pragma("freelist_count")
        pages += max(0, -(-octets // PAGE_LEN) - free)
        length, held = pages * PAGE_LEN, os.fstat(self._file).st_size
        if length > held:
            try:
                os.posix_fallocate(self._file, held, length - held)
            except OSError as error:
                raise SpoolFullError("the disk is full") from error
        return octets

    def _pragma(self, name: str) -> int:
        return cast(int, self._db.pragma(name))

    def delete(self, numbers: Sequence[int]) -> None:
        """Delete groups that hold nothing any more; SpoolFullError changes nothing.

        One that is too damaged to be deleted stays: it holds nothing.
        """
        try:
            self._commit(_DELETE, (json.dumps(numbers),))
        except apsw.CorruptError:
            for number in numbers if len(numbers) > 1 else ():
                self.delete([number])

    def checkpoint(self, *, last: bool = False) -> None:
        """Fold the WAL into the database; SpoolFullError leaves it as it was.

        The last one of a life leaves the WAL empty: were a part of it damaged while it
        lies there, older pages before that would count and cover newer ones.
        """
        self._room = 0  # SQLite cuts the file to what it uses
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if last else _PASSIVE
        try:
            self._db.wal_checkpoint(mode=mode)
        except apsw.FullError as error:
            raise SpoolFullError("the disk is full") from error

    def scan(
        self,
        after: int = BEFORE_ALL,
        records: int = NUMBER_MAX,
        begin: Row | None = None,
    ) -> list[Row]:
        """Read groups in the order in which they lie: so many records, one row more.

        That is the order of their numbers; a number that is damaged stands out of it,
        and what is found `after` it may be anywhere.  With `begin` all rows up to that
        one are passed over: slow, and it asks for no number.  SpoolCorruptError: the
        database is damaged.
        """
        rows: list[Row] = []
        try:
            with (
                _failing(),
                closing(self._db.execute(_SCAN, (after,))) as cursor,
            ):
                for values in cursor:
                    row = row_of(*cast(tuple[Any, ...], values))
                    if begin is not None and not rows and row != begin:
                        continue
                    rows.append(row)
                    if records <= 0:
                        break
                    records -= max(1, len(row.entries))
        except apsw.CorruptError as error:
            raise SpoolCorruptError(DAMAGED) from error
        return rows

    def fetch(
        self, places: Sequence[tuple[int, int]], *, bodies: bool
    ) -> list[Sealed | None]:
        """Read records by (group, place in it); None where there is no such place.

        Nor where the database is damaged: the others are there all the same.
        """
        rows: dict[int, Row | None] = {}
        found: list[Sealed | None] = []
        for number, index in places:
            try:
                if number not in rows:
                    rows[number] = None
                    rows[number] = self.row(number)
                found.append(self._sealed(rows[number], index, bodies=bodies))
            except apsw.CorruptError:
                found.append(None)
        return found

    def _sealed(self, row: Row | None, index: int, *, bodies: bool) -> Sealed | None:
        if row is None or index >= len(row.entries):
            return None
        head = row.heads[index * HEAD_LEN : (index + 1) * HEAD_LEN]
        body = self._body(row, index) if bodies else b""
        return Sealed(row.salt, head, body)

    def row(self, number: int) -> Row | None:
        """One group, with its heads."""
        with _failing():
            found = self._db.execute(_ONE, (number,)).fetchone()
        if found is None:
            return None
        return row_of(number, *cast(tuple[Any, ...], found))

    def _body(self, row: Row, index: int) -> bytes:
        offset = sum(entry[2] for entry in row.entries[:index])
        length = row.entries[index][2]
        with closing(
            self._db.blob_open("main", "groups", "bodies", row.id, False)
        ) as blob:
            if offset + length > blob.length():
                return b""
            blob.seek(offset)
            return blob.read(length)


def _sync(wal: Path) -> None:
    """Bring it to the disk if it is there; OSError."""
    try:
        fd = os.open(wal, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _failing() -> Iterator[None]:
    """Say that it is the disk; a damaged database is told apart."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError):
        raise
    except apsw.Error as error:
        raise IoError(f"the spool's disk failed: {error}") from error
