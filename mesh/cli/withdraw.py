# SPDX-License-Identifier: MIT
"""`mesh withdraw [--at TIME | --in HOURS] | --cancel`: this node leaves, at a full hour.

    TIME   2027-01-15, 2027-01-15 08:00, 2027-01-15T08:00+01:00; UTC where it says none

The hour goes into the descriptor; a full one, so that it says nothing of mail.
"""

import math
import time
from datetime import UTC, datetime
from typing import Final

import click

from mesh.cli.options import config_option, load_config
from mesh.errors import UsageError

HOURS: Final = 24
"""Until the leaving that has no time given: peers that look once a day hear of it."""
DAYS_MAX: Final = 365
"""As long as a descriptor holds."""


@click.command("withdraw")
@config_option
@click.option("--at", "at", metavar="TIME", help="When, in UTC; the next full hour.")
@click.option(
    "--in",
    "hours",
    type=click.IntRange(0, DAYS_MAX * 24),
    metavar="HOURS",
    help=f"In how many hours; the next full one [default: {HOURS}].",
)
@click.option("--cancel", is_flag=True, help="Stay.")
def command(at: str | None, hours: int | None, cancel: bool) -> None:
    """Announce that this node leaves the mesh, or with --cancel that it stays.

    At that hour its links end, and it takes no new mail; it goes on delivering what it
    has for its remailers.  Mail that others have for it waits, and comes back to them
    after five days.
    """
    if sum((at is not None, hours is not None, cancel)) > 1:
        raise UsageError("--at, --in and --cancel exclude each other: give one")
    from mesh.core.descriptor import date
    from mesh.node.keys import check_owner
    from mesh.node.statement import last_said, sign

    now = time.time()
    leaves = 0 if cancel else _hour(at, HOURS if hours is None else hours, now)
    config = load_config()
    check_owner(config.state_dir)
    last = last_said(config)
    said = sign(config, now, leaves=leaves)
    if said.leaves:
        click.echo(f"{said.name}: leaves at {date(said.leaves)}")
        click.echo("keep it running until then, and until `mesh queue` shows nothing")
    elif last is None or not last.leaves:
        click.echo(f"{said.name}: stays; no leaving was announced")
        return
    else:
        click.echo(f"{said.name}: stays")
    if last and last.has_left(now):
        click.echo(
            "it had left: its links come back where `mesh export` is added again"
        )
    else:
        click.echo("a running node tells its peers; give others `mesh export`")


def _hour(at: str | None, hours: int, now: float) -> int:
    """The full hour that is meant, or the next one."""
    from mesh.core.descriptor import HOUR_SECONDS

    when = now + hours * 3600 if at is None else _parse(at)
    if when < now:
        raise UsageError("--at: that has passed: give a time to come, in UTC")
    if when > now + DAYS_MAX * 86_400:
        raise UsageError(f"--at: more than {DAYS_MAX} days from now: announce it later")
    hour = math.ceil(when / HOUR_SECONDS) * HOUR_SECONDS
    return hour if hour > now else hour + HOUR_SECONDS


def _parse(text: str) -> float:
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            "--at: no time: write one as 2027-01-15T08:00, in UTC"
        ) from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
