# SPDX-License-Identifier: MIT
"""The node.toml that `mesh init` writes: every key, its default, and what it costs.

Values go in as TOML basic strings.  A JSON string is one, but for DEL, which the
checks of the flags refuse with all other control characters.
"""

import json
from collections.abc import Sequence
from string import Template
from typing import Final

from mesh.core.names import parse_endpoint

_TEMPLATE: Final = Template("""\
# The configuration of a mesh node.  Paths are relative to this file.
# After a change: restart the node; when [node], [[remailer]] or [link] changed,
# `mesh export` again and give the new descriptor to your peers.
#
# Back up, apart from this machine and where nobody reads it: state/identity.key (who
# this node is: without it all peers must list you anew) and this file.  Do not back up
# state/spool: a copy of it is a copy of mail that should be forgotten.

[node]
name = $name
network = $network
listen = $listen
address = $address  # what peers dial; "": this node dials only
state = "state"
peers = "peers.d"
postmaster = ""  # where postmaster@ goes; empty: the first remailer
directory = ""  # a file: the shared directory, taken from there when a new one is signed

[local]
socket = "local.sock"  # remailers hand mail over here: SMTP or LMTP
smtp = []  # e.g. ["127.0.0.1:2525"]: open to whoever is on this machine
drop = "drop"  # mesh-sendmail leaves mail here, sealed, while the node is down
message_bytes = 20971520

# One table a remailer: whose mail is it, and where is it delivered?
$remailers
[link]
clock = "renewal"  # "greedy": fast and NOT covered, only for a trusted network
# Cover costs the same with mail and without.  For each link, each way:
#   cells_per_second   0.125    1       8       64      512
#   GB a day           0.044    0.35    2.8     23      181       and 4 % for TCP
#   a 30 kB message    1 min    8 s     1 s     0.1 s   at once
cells_per_second = 1  # a power of two, 0.125 to 4096; a link takes the lower of two

[delivery]
exit = true  # false: middleman, nothing leaves by port 25
smarthost = ""  # "host:port"; empty: the domain's own mail servers, port 25
routes = {}  # fixed ones: { "example.org" = "127.0.0.1:2525" }
refuse = ""  # a file: who wants no mail from here; an address or @domain a line

[pool]  # what leaves by port 25 is mixed: `mesh help operating`
kind = "timed"  # on each tick a share leaves; or "binomial", "poisson", "none"
tick_seconds = 10  # work for port 25 begins on ticks only
share = 0.5  # each message's chance on a tick, whoever else is there
delay_seconds = 60  # "poisson" alone: the mean of a message's delay
min_entropy = 0  # bits; with less, the largest source set aside, a tick is held
max_delay_seconds = 3600  # nobody is held or drawn for longer, but in an alarm
heartbeats = false  # true: an alarm when mail is kept from us: `mesh help operating`
after_hold = "release"  # after 6 h without one; "keep": mail waits on
""")

_EXAMPLE: Final = """\
#[[remailer]]
#address = "mix@example.net"  # or a list; "@example.net" for a whole domain
#deliver = "maildir:Maildir"  # or "pipe:/usr/bin/mixmaster -R", "lmtp:/path"
#user = ""  # who may submit as it; empty: whoever can open the socket
"""

_REMAILER: Final = Template("""\
[[remailer]]
address = $address
deliver = $deliver
user = ""
""")


def render(
    name: str, network: str, address: str, remailers: Sequence[tuple[str, str]]
) -> str:
    """Write the file; `remailers` are (address, deliver) pairs, checked already."""
    port = parse_endpoint(address)[1] if address else 0
    listen = [f"0.0.0.0:{port}", f"[::]:{port}"] if port else []
    tables = [
        _REMAILER.substitute(address=_text(who), deliver=_text(deliver))
        for who, deliver in remailers
    ]
    return _TEMPLATE.substitute(
        name=_text(name),
        network=_text(network),
        listen=_text(listen),
        address=_text(address),
        remailers="\n".join(tables or [_EXAMPLE]),
    )


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
