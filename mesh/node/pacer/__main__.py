# SPDX-License-Identifier: MIT
"""The process: `python -m mesh.node.pacer PARENT`, its control socket as stdin.

It opens nothing, writes nothing, says nothing.  It ends when its parent does, and by no
signal before that: systemd and a terminal send theirs to all processes at once, and the
parent ends its links in order first.
"""

import gc
import socket
import sys

from mesh.node.pacer.hardening import follow_parent, give_up, hurry, keep_on
from mesh.node.pacer.loop import Loop, Machine


def main() -> None:
    """Serve until the parent is gone."""
    keep_on()
    follow_parent(int(sys.argv[1]))
    control = socket.socket(fileno=0)
    loop = Loop(control, Machine().moved)
    hurry()
    give_up()
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection is a stall; nothing here makes cycles
    loop.run()


if __name__ == "__main__":
    main()
