# SPDX-License-Identifier: MIT
"""Where mail for an address goes, and whether it is taken at all.

    the address is                          destination     at RCPT
    on the refuse list                      -               550
    a remailer's of this node               local:N         taken
    a peer's                                its name        taken
    claimed by two; of a peer whose file
    is gone, cannot be read or is in doubt  ?               taken, and waits
    nobody's, exit = true                   exit:DOMAIN     taken, leaves by port 25
                      with a smarthost      exit:           but for the fixed routes
    a removed peer's, for 30 days           none            550
    nobody's, exit = false                  none            550
    any, when this node has left the mesh                   451, from remailers

postmaster@ of this node is a remailer's (config.py) or, where node.toml names somebody
else, becomes that address before it is routed.

The refuse list is refusing.py's.
"""

import time
from collections.abc import Callable
from typing import Final

from mesh.config import Config
from mesh.core.directory import Conflict, Directory, Local, ToPeer
from mesh.core.names import mail_domain
from mesh.core.refusal import canonical
from mesh.core.reply import NO_SUCH_RECIPIENT, Reply
from mesh.node.refusing import RefuseList

UNROUTED: Final = "?"
LOCAL: Final = "local:"
EXIT: Final = "exit:"
REFUSED: Final = Reply(550, "5.7.1 the recipient wants no mail from here")
LEFT: Final = Reply(451, "4.3.2 this node has left the mesh")
"""Not 5yz, by which some remailers lose what they hand over: its operator may yet stay."""


def host_of(config: Config) -> str:
    """Name this node as mail systems do: the host of its address, else its name."""
    host = config.node.address.rpartition(":")[0]
    return mail_domain(host) if host else config.node.name


class Routing:
    """Routes by a directory that may change at any time."""

    def __init__(
        self,
        config: Config,
        directory: Callable[[], Directory],
        *,
        has_left: Callable[[], bool] = lambda: False,
        unix_time: Callable[[], float] = lambda: time.time(),
    ) -> None:
        """Read the refuse list too: ConfigError with a line a mistake."""
        self._directory = directory
        self._has_left = has_left
        self._unix_time = unix_time
        self._exit = config.delivery.exit
        self._smarthost = config.delivery.smarthost
        self._routes = config.delivery.routes
        self._aliases = config.aliases()
        self._refuse_list = RefuseList(config.delivery.refuse)
        self.watch = self._refuse_list.watch
        """Look at the refuse list's file, for ever."""

    def alias(self, address: str) -> str:
        """Give the address that stands for this one, mostly itself."""
        if not self._aliases:
            return address
        return self._aliases.get(canonical(address), address)

    def refuses(self, address: str) -> bool:
        """Say whether this recipient wants no mail from here."""
        return self._refuse_list.refuses(address)

    @property
    def mistakes(self) -> tuple[str, ...]:
        """Say what is wrong with a file that was changed: the last good one counts."""
        mistake = self._refuse_list.mistake
        return (mistake,) if mistake else ()

    def route(self, address: str) -> str | None:
        """Name the destination; None: there is none."""
        if address.startswith("@"):
            return None  # a source route: whoever takes one in, takes it off
        address = self.alias(address)
        directory = self._directory()
        if not directory.lists(address):  # most mail is written as the table has it
            address = canonical(address)  # "mix"@ is mix@, and no way out
        route = directory.route(address)
        if isinstance(route, Local):
            return f"{LOCAL}{route.index}"
        if isinstance(route, ToPeer):
            return route.name
        if isinstance(route, Conflict):
            return UNROUTED
        now = self._unix_time()
        # Withheld is a peer's until lately: in clear only after 30 days.
        if directory.is_withheld(address, now):
            return None
        return (
            UNROUTED if directory.is_awaited(address, now) else self._way_out(address)
        )

    def _way_out(self, address: str) -> str | None:
        _, at, domain = address.rpartition("@")
        if not (self._exit and at):
            return None
        return EXIT if self._smarthost and domain not in self._routes else EXIT + domain

    def accepts(self, path: str) -> Reply | None:
        """Say why a remailer may not hand over mail for a path; None: it may."""
        if self._has_left():
            return LEFT
        if self.refuses(path):
            return REFUSED
        return None if self.route(path) is not None else NO_SUCH_RECIPIENT
