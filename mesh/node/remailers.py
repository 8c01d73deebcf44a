# SPDX-License-Identifier: MIT
"""The remailers of this node, each with its way of being given mail.

    [[remailer]] number N    takes what is routed to local:N (routing.py)
    maildir:PATH             MaildirDelivery; a letter's name is made of the record's id
                             and the node's key: no time, no host, and what is delivered
                             again after a crash finds its own file
    lmtp:PATH, HOST:PORT     LmtpDelivery
    a command                PipeDelivery

Each runs until the node ends; `end` lets it finish what it is at, and `busy` says that
it has not yet.
"""

import trio

from mesh.config import Config
from mesh.core.crypto import Entropy, Key, keyed_hash
from mesh.node.delivery import MaildirDelivery
from mesh.node.lmtp import LmtpDelivery
from mesh.node.pipe import PipeDelivery
from mesh.node.qmgr import QueueManager
from mesh.node.routing import LOCAL
from mesh.values import LmtpSocket, Maildir, Pipe, Target

Delivery = MaildirDelivery | LmtpDelivery | PipeDelivery


class Remailers:
    """One delivery a remailer."""

    def __init__(
        self, config: Config, qmgr: QueueManager, names: Key, entropy: Entropy
    ) -> None:
        """`names` is the key of letters' names."""
        self._name = config.node.name
        self._qmgr = qmgr
        self._names = names
        self._entropy = entropy
        self._targets = [remailer.deliver for remailer in config.remailer]
        self._deliveries: list[Delivery] = []

    def start(self, nursery: trio.Nursery) -> None:
        """Give them what waits for them, from now on."""
        for number, target in enumerate(self._targets):
            delivery = self._delivery(f"{LOCAL}{number}", target)
            self._deliveries.append(delivery)
            nursery.start_soon(delivery.run)

    def end(self) -> None:
        """Give them nothing more."""
        for delivery in self._deliveries:
            delivery.end()

    @property
    def busy(self) -> bool:
        """One of them has not got what is on its way."""
        return any(delivery.busy for delivery in self._deliveries)

    def _delivery(self, destination: str, target: Target) -> Delivery:
        if isinstance(target, Pipe):
            return PipeDelivery(
                argv=target.argv, destination=destination, qmgr=self._qmgr
            )
        if isinstance(target, Maildir):
            return MaildirDelivery(
                maildir=target.path,
                destination=destination,
                qmgr=self._qmgr,
                name_of=self._letter_name,
            )
        return LmtpDelivery(
            address=target.path
            if isinstance(target, LmtpSocket)
            else (target.host, target.port),
            destination=destination,
            name=self._name,
            qmgr=self._qmgr,
            entropy=self._entropy,
        )

    def _letter_name(self, ident: bytes) -> str:
        return keyed_hash(self._names, ident, 16).hex()
