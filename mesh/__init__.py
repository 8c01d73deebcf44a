# SPDX-License-Identifier: MIT
"""mesh: standing, covered links between anonymous remailers.

A node runs beside a remailer, takes its mail on a local socket, and hands it to other
nodes over links whose cells leave by a clock, with mail and without.  Accepted (250)
means: in the spool, on the disk.

    mesh.errors    every exception, by who is at fault
    mesh.core      pure: octets and `now` in, events and octets out
    mesh.config    node.toml (with mesh.values, mesh.mistakes)
    mesh.node      Trio, disk, sockets; parses nothing, computes no cipher
    mesh.cli       one module a verb            mesh.help   the handbook's pages

Each module's docstring is the specification of what it does.  To read: core/cell (what
a wire sees), core/clock (when), core/cipherstate and cellstream, core/handshake and
gate, core/state and dialogue, core/link; then node/pacing, node/spool, node/qmgr,
node/exchange, node/node.  README.md has every room.
"""

__version__ = "0.1.0"
