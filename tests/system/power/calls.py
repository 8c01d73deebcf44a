# SPDX-License-Identifier: MIT
"""What strace wrote down: system calls of all processes, in one order.

    PID  call(arguments) = result               begun and ended here
    PID  call(arguments <unfinished ...>        begun here ...
    PID  <... call resumed>rest) = result       ... and ended here
    PID  call(arguments) = ?                    its process was killed in it

strings   "\\x68\\x69", by -xx              a descriptor   7<path>, by -y

A call's octets count from its beginning (they may be on the disk before it returns), its
promise from its end.  A process that is killed in a call does not come back from it, but
the kernel may well have done what was asked, in whole or in part: such a call is given
as `killed`, and only a look at the files says what it did.  Calls that failed are left out, but for the octets that a failed
write may have left: there is none in a story that goes well, and one that is found is an
error, as is any way to the disk that is not known here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

WRITES: Final = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
SYNCS: Final = ("fsync", "fdatasync")
NAMES: Final = (
    "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat",
    "mkdir", "mkdirat", "rmdir",
)  # fmt: skip
UNKNOWN: Final = (
    "creat", "truncate", "sync_file_range", "msync", "symlink", "symlinkat",
    "copy_file_range", "sendfile", "io_uring_setup", "splice",
)  # fmt: skip
"""No node uses these; a recording in which one writes to its disk is not understood."""
TRACED: Final = (
    *WRITES, *SYNCS, *NAMES, *UNKNOWN, "openat", "open", "ftruncate", "fallocate",
    "mmap", "sendto", "sendmsg", "recvfrom",
)  # fmt: skip
STRACE: Final = (
    "strace", "-f", "-qq", "--seccomp-bpf", "-y", "-xx", "-s", "67108864",
    "-e", "trace=" + ",".join(TRACED), "-e", "signal=none",
)  # fmt: skip

_LINE: Final = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>)?(.*)\n")
_CALL: Final = re.compile(r"(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)(.*)", re.DOTALL)
_TOKEN: Final = re.compile(
    r'"(?P<text>(?:\\x[0-9a-f]{2})*)"|(?:(?P<fd>-?\d+|AT_FDCWD)<(?P<path>[^>]*)>(?P<gone>\(deleted\))?)'
    r"|(?P<word>[A-Za-z_0-9|~]+)"
)
_UNFINISHED: Final = " <unfinished ...>"


@dataclass(slots=True)
class Call:
    """One call that succeeded, or that a kill ended."""

    name: str
    begin: int
    end: int
    texts: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    """Of the descriptors, a deleted one's empty."""
    words: list[str] = field(default_factory=list)
    """Flags and numbers."""
    result: int = 0
    opened: str = ""
    killed: bool = False
    """Nobody knows whether it did anything; `result` says nothing."""


def may_change(call: Call) -> bool:
    """Say whether a disk may be another one after this call, or its promise."""
    if call.name in ("openat", "open"):
        return any("O_CREAT" in word for word in call.words)
    return call.name in (*WRITES, *SYNCS, *NAMES, "ftruncate", "fallocate")


def read(path: Path) -> Iterator[Call]:
    """Give the calls in the order in which they ended.

    One that has no end at all comes last: as killed.
    """
    begun: dict[str, tuple[int, str]] = {}
    with path.open(errors="replace") as lines:
        for number, line in enumerate(lines):
            found = _LINE.fullmatch(line)
            if found is None:
                continue  # of a process that ended
            pid, resumed, text = found.groups()
            begin = number
            if resumed:
                begin, head = begun.pop(pid)
                text = head + text
            elif text.endswith(_UNFINISHED):
                begun[pid] = number, text.removesuffix(_UNFINISHED)
                continue
            call = _call(text, begin, number)
            if call is not None:
                yield call
    for begin, text in begun.values():
        call = _call(text + ") = ?", begin, begin)
        if call is not None:
            yield call


def _call(text: str, begin: int, end: int) -> Call | None:
    found = _CALL.fullmatch(text)
    if found is None or found[3] == "-1":
        return None
    killed = found[3] == "?"
    if killed and found[4].strip():
        return None  # a signal interrupted it before it did anything
    call = Call(found[1], begin, end, killed=killed)
    if not killed:
        call.result = int(found[3], 0)
    for token in _TOKEN.finditer(found[2]):
        if token["text"] is not None:
            call.texts.append(_octets(token["text"]))
        elif token["fd"] is not None:
            gone = token["gone"]
            call.paths.append("" if gone else _octets(token["path"]).decode())
        else:
            call.words.append(token["word"])
    if call.name in ("openat", "open"):
        opened = re.match(r"<([^>]*)>", found[4])
        call.opened = _octets(opened[1]).decode() if opened else ""
    return call


def _octets(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))
