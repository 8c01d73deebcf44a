# SPDX-License-Identifier: MIT
"""`mesh run`: the node, in the foreground, until a signal ends it."""

import sys

import click

from mesh.cli.options import config_option, load_config


@click.command("run")
@config_option
def command() -> None:
    """Run the node in the foreground.

    SIGHUP looks at peers.d at once, SIGTERM ends in order: within 10 s, exit 0.
    """
    import gc

    import trio

    from mesh.node.node import Node

    node = Node(load_config())
    # What was imported lives as long as the process: not to be looked at again.
    gc.collect()
    gc.freeze()
    trio.run(node.run, _ready)


def _ready() -> None:
    """Say on standard error that remailers may connect, for whoever started us."""
    sys.stderr.write("mesh: ready\n")
    sys.stderr.flush()
