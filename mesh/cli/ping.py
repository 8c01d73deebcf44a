# SPDX-License-Identifier: MIT
"""`mesh ping PEER`: is the link up, and how long is the way through its cells."""

from typing import Final

import click

from mesh.cli.asking import about_peer, ask
from mesh.cli.options import config_option, load_config
from mesh.cli.plain import plain
from mesh.core.control import Ask

PING_SECONDS: Final = 660.0
"""For the node's answer: at 1/8 cells a second it waits 30 + 60 + 512 s itself, and one
that is stopped never answers."""


@click.command("ping")
@config_option
@click.argument("peer")
def command(peer: str) -> None:
    """Ask PEER for a sign of life through the link.

    A NOOP and its answer ride in cells that leave anyway: with one cell a second that
    takes seconds, and nobody on the wire sees it.  Exit code 69 when the link is down,
    67 when PEER is not listed.
    """
    answer = ask(load_config(), about_peer(Ask.PING, peer), PING_SECONDS)
    told = (
        f"{peer}: up, answered in {answer['seconds']:.2f} s "
        f"({answer['clock']}, {answer['cells_per_second']:g} cells/s)"
    )
    click.echo(plain(told))
