# SPDX-License-Identifier: MIT
"""`mesh status`: is the node well, are its links up, and if not, why.

state      exit   when
ok           0    every link is up
degraded    75    a link is down, or a record is damaged; or the node starts
down        69    no link is up, or the node does not run
"""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final

import click

from mesh.cli.asking import ask
from mesh.cli.options import config_option, load_config
from mesh.cli.plain import plain, plain_json
from mesh.core.control import SCHEMA, Ask, Request
from mesh.errors import TryLaterError, UnavailableError

EXIT_CODES: Final = {"ok": 0, "degraded": 75, "down": 69}
COLUMNS: Final = 80
ROWS: Final = 20
"""For the links: with the rest, and the next prompt, one screen of 24.  Those that are
down come first."""


@click.command("status")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def command(as_json: bool) -> int:
    """Say whether the node is well; exit code 0 ok, 75 degraded, 69 down.

    Whether links are up, and why not, is live.  Counts are rough, and change only every
    ten minutes: a status polled each second would be the load that the links hide.
    """
    config = load_config()
    try:
        answer = ask(config, Request(Ask.STATUS))
    except (UnavailableError, TryLaterError) as error:
        if as_json:
            told = _untold(config.node.name, error.exit_code)
            click.echo(plain_json(told))
        raise
    status = answer["status"]
    if as_json:
        click.echo(plain_json(status))
    else:
        click.echo("\n".join(map(plain, _screen(status))))
    for note in answer["notes"]:
        click.echo(f"mesh: {plain(note)}", err=True)
    return EXIT_CODES[status["state"]]


def _untold(name: str, code: int) -> dict[str, Any]:
    """Give the same object where nobody knows more."""
    state = {code: state for state, code in EXIT_CODES.items()}[code]
    queue = dict.fromkeys(("waiting", "deferred", "corrupt"))
    return {
        "schema": SCHEMA,
        "name": name,
        "state": state,
        "links": [],
        "queue": queue,
    }


def _screen(status: Mapping[str, Any]) -> list[str]:
    links = sorted(status["links"], key=lambda link: (link["up"], link["peer"]))
    up = sum(link["up"] for link in links)
    lines = [f"{status['name']}: {status['state']}, {up} of {len(links)} links up"]
    width = max((len(link["peer"]) for link in links), default=0)
    directory = status.get("directory")
    shown = _fitting(
        [plain(_line(link, width)) for link in links], ROWS - 1 if directory else ROWS
    )
    lines += shown
    if not links:
        lines.append("  no peers yet: mesh peers add FILE")
    if len(links) > len(shown):
        lines.append(f"  and {len(links) - len(shown)} more: mesh status --json")
    if directory:
        lines.append(
            f"directory: version {directory['version']}, {directory['nodes']} nodes, "
            f"{directory['days_left']} days left"
        )
    queue = status["queue"]
    lines.append(
        f"queue: about {queue['waiting']} waiting, about {queue['deferred']} deferred"
    )
    if queue["corrupt"]:
        lines.append(
            f"damaged: {queue['corrupt']} records do not open and are set aside: "
            "look to the disk"
        )
    return lines


def _fitting(lines: list[str], most: int) -> list[str]:
    """Give the first of them that fit, as a terminal folds them; one row is kept."""
    rows = list(accumulate(-(-len(line) // COLUMNS) for line in lines))
    if rows and rows[-1] <= most:
        return lines
    return lines[: bisect_right(rows, most - 1)]


def _line(link: Mapping[str, Any], width: int) -> str:
    pace = f"{link['clock']}, {link['cells_per_second']:g} cells/s"
    told = [pace if link["up"] else link["reason"]]
    if link["insecure"]:
        told.append(f"INSECURE: {', '.join(link['insecure'])}")
    return f"  {link['peer']:<{width}}  {'up  ' if link['up'] else 'down'}  " + (
        "; ".join(told)
    )
