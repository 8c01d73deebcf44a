# SPDX-License-Identifier: MIT
"""`mesh rotate`: a new link key for this node, and nothing for its peers to do.

The identity stays: whoever needs another is another node, and who signs the directory
puts it in this one's place (`mesh directory new`).
"""

import time

import click

from mesh.cli.options import config_option, load_config


@click.command("rotate")
@config_option
@click.option("--again", is_flag=True, help="Also within 30 days of the last time.")
def command(again: bool) -> None:
    """Change the link key; the node may run, and its peers need do nothing.

    The key before opens for 14 days more, and is then destroyed.  Exit code 75 until
    then, and within 30 days of the last change without --again.
    """
    from mesh.core.crypto import SystemEntropy
    from mesh.core.descriptor import date
    from mesh.node.keys import check_owner
    from mesh.node.rotation import rotate

    state = load_config().state_dir
    check_owner(state)
    rotation = rotate(state, SystemEntropy(), time.time(), again=again)
    click.echo(f"link key: changed; the one before opens until {date(rotation.until)}")
    click.echo(
        "a running node tells its peers; give those without a link `mesh export`"
    )
