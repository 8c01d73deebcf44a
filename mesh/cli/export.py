# SPDX-License-Identifier: MIT
"""`mesh export`: this node's descriptor, armoured, on standard output."""

import time

import click

from mesh.cli.options import config_option, load_config


@click.command("export")
@config_option
def command() -> None:
    """Print this node's signed descriptor: give it to the operators of your peers.

    It says what node.toml says now; its serial grows when that changed.
    """
    from mesh.node.statement import current

    click.echo(current(load_config(), time.time()), nl=False)
