# SPDX-License-Identifier: MIT
"""`mesh run`: the node, in the foreground, until a signal ends it.

a signal comes            SIGHUP                    SIGTERM, SIGINT
while the node is made    looked at when it runs    it does not run, 0
while it runs             looks at peers.d          ends in order, 0
while it ends             nothing                   nothing
"""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Final, TypeAlias

import click

from mesh.cli.options import config_option, load_config

if TYPE_CHECKING:
    from mesh.node.node import Node

Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None

SWITCH_SECONDS: Final = 0.0005
"""For the interpreter's lock: the writer thread asks for it some times a commit, and with
the usual 5 ms each of these would be most of a commit's time while the loop is busy."""
SIGNALS: Final = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
FILES: Final = 16_384
"""Open files to ask for: 1,000 sessions and 128 strangers reach the usual soft limit of
1,024, and then a Maildir cannot be written; the rest is for thousands of links."""


@click.command("run")
@config_option
def command() -> None:
    """Run the node in the foreground.

    SIGHUP looks at peers.d at once, SIGTERM ends in order: within 10 s, exit 0.
    """
    early, before = _catch_signals()
    try:
        node = _make()
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise
    try:
        _run(node, early)
    finally:
        # Python's own end would give them back to the system before the process ends.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _make() -> "Node":
    """Make the node, which may take its time."""
    import gc

    gc.disable()  # nothing of what a start makes is rubbish: a tenth of its time
    try:
        from mesh.core.bulk import openssl
        from mesh.node.batch import give_way
        from mesh.node.node import Node
        from mesh.node.pacing import Pacer

        openssl()
        _allow_files()
        config = load_config()
        give_way(config.link.clock)  # before there are threads, which inherit it
        node = Node(config, pacer=Pacer())
        # What was imported lives as long as the process: not to be looked at again.
        gc.collect()
        gc.freeze()
    finally:
        gc.enable()
    return node


def _run(node: "Node", early: list[int]) -> None:
    """Run the node until a signal ends it; one may have come while it was made."""
    import trio

    if any(number != signal.SIGHUP for number in early):
        node.close()
        return
    sys.setswitchinterval(SWITCH_SECONDS)

    async def run() -> None:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            for number in early:
                signal.raise_signal(number)
            await node.run(signals, _ready)

    trio.run(run)


def _catch_signals() -> tuple[list[int], dict[int, Handler]]:
    """Let no signal end the process by itself; gives those that come, and who had them.

    A node that ends, because it was asked to or because its disk failed, has its own code
    and its own line: a signal that comes then, or a second one, is to take neither.
    """
    came: list[int] = []
    before: dict[int, Handler] = {}
    for number in SIGNALS:
        before[number] = signal.signal(number, lambda number, _: came.append(number))
    return came, before


def _allow_files() -> None:
    """Raise the soft limit of open files, as far as the hard one lets us."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _ready() -> None:
    """Say on standard error that remailers may connect, to whoever still listens."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write("mesh: ready\n")
            sys.stderr.flush()
