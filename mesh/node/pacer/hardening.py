# SPDX-License-Identifier: MIT
"""What the pacer gives up once it is ready: it holds every link's keys and needs little.

    SIGHUP INT TERM       are for the parent, which ends links in order: ignored here
    PR_SET_PDEATHSIG      ends with its parent, however that one ends
    PR_SET_DUMPABLE 0     no core dump, no ptrace by others of the same user
    PR_SET_NO_NEW_PRIVS   nothing it could start would have more rights
    PR_SET_TIMERSLACK 1   the kernel wakes it at the nanosecond that it asked for
    SCHED_FIFO, else nice both need CAP_SYS_NICE or a limit (systemd: LimitRTPRIO=);
                          never the parent's SCHED_BATCH
    seccomp               system calls that open, connect, start or trace anything
                          fail with EPERM (seccomp(2), a deny list: the interpreter
                          and the C library change what else they call)

Each is taken where it can be had; `status` says when the wake-ups are late.
"""

import ctypes
import errno
import os
import platform
import signal
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

FOR_THE_PARENT: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_SECCOMP: Final = 22
PR_SET_TIMERSLACK: Final = 29
PR_SET_NO_NEW_PRIVS: Final = 38
SECCOMP_MODE_FILTER: Final = 2

PRIORITY: Final = 1
"""The lowest of SCHED_FIFO: above all ordinary work, below the kernel's own."""
NICE: Final = -10

_INSTRUCTION: Final = struct.Struct("=HBBI")
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_X32: Final = 0x40000000
"""Bit of x86's second set of numbers for the same calls."""
_PROGRAM: Final = struct.Struct("@HP")
_RETURN_ALLOW: Final = 0x7FFF0000
_RETURN_ERRNO: Final = 0x00050000

# asm/unistd.h: open openat openat2 creat socket connect bind listen accept accept4
# execve execveat clone fork vfork clone3 ptrace process_vm_readv process_vm_writev kexec_load
# mount umount2 unlink unlinkat rename renameat renameat2 bpf perf_event_open
# io_uring_setup open_by_handle_at open_tree move_mount fsopen pidfd_getfd
# process_madvise; aarch64 has the -at forms alone
_AUDIT_AND_DENIED: Final = {
    "x86_64": (
        0xC000003E,
        "2 257 437 85 41 42 49 50 43 288 59 322 56 57 58 435 101 310 311 246 165 166 "
        "87 263 82 264 316 321 298 425 304 428 429 430 438 440",
    ),
    "aarch64": (
        0xC00000B7,
        "56 437 198 203 200 201 202 242 221 281 220 435 117 270 271 104 40 39 35 38 276 "
        "280 241 425 265 428 429 430 438 440",
    ),
}

_libc: Final = ctypes.CDLL(None, use_errno=True)


def keep_on() -> None:
    """Leave the signals that end a node, or make it look, to the parent."""
    for each in FOR_THE_PARENT:
        signal.signal(each, signal.SIG_IGN)


def follow_parent(parent: int) -> None:
    """Die when the parent does; SystemExit when it has died already."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(0)


def hurry() -> None:
    """Wake at the very instant, before others."""
    _libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError:
        with suppress(OSError):  # not as the parent (batch.py), whom mail wakes
            if os.sched_getscheduler(0) == os.SCHED_BATCH:
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, NICE)


def give_up() -> bool:
    """Give up what is not needed from now on; whether the filter is in force."""
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    known = _AUDIT_AND_DENIED.get(platform.machine())
    if known is None:
        return False
    audit, denied = known
    code = program(audit, [int(number) for number in denied.split()])
    held = ctypes.create_string_buffer(code)
    what = ctypes.create_string_buffer(
        _PROGRAM.pack(len(code) // _INSTRUCTION.size, ctypes.addressof(held))
    )
    return not _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, what, 0, 0)


def program(audit: int, denied: Sequence[int]) -> bytes:
    """The filter in classic BPF: EPERM for the denied calls and for another machine's.

    seccomp_data: nr u32 at 0, arch u32 at 4.
    """
    count = len(denied)
    code = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 0, count + 3, audit),  # another machine's calls: to the refusal
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, count + 1, 0, _X32),
    ]
    code += [(_EQUAL, count - at, 0, number) for at, number in enumerate(denied)]
    code += [(_RETURN, 0, 0, _RETURN_ALLOW)]
    code += [(_RETURN, 0, 0, _RETURN_ERRNO | errno.EPERM)]
    return b"".join(_INSTRUCTION.pack(*each) for each in code)
