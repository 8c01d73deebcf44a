# SPDX-License-Identifier: MIT
"""`mesh run`: the node, in the foreground, until a signal ends it."""

import signal
import sys
from contextlib import suppress
from typing import Final

import click

from mesh.cli.options import config_option, load_config

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
    import gc

    gc.disable()  # nothing of what a start makes is rubbish: a tenth of its time
    import trio

    from mesh.node.node import Node
    from mesh.node.pacing import Pacer

    _allow_files()
    node = Node(load_config(), pacer=Pacer())
    # What was imported lives as long as the process: not to be looked at again.
    gc.collect()
    gc.freeze()
    gc.enable()
    sys.setswitchinterval(SWITCH_SECONDS)

    async def run() -> None:
        early = _catch_signals()
        with trio.open_signal_receiver(*SIGNALS) as signals:
            for number in early:
                signal.raise_signal(number)
            await node.run(signals, _ready)

    try:
        trio.run(run)
    finally:
        # Python's own end would give them back to the system before the process ends.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _catch_signals() -> list[int]:
    """Let no signal end the process by itself; gives those that come.

    A node that ends, because it was asked to or because its disk failed, has its own code
    and its own line: a signal that comes then, or a second one, is to take neither.
    """
    came: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda number, _: came.append(number))
    return came


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
