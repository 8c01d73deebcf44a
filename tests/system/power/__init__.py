# SPDX-License-Identifier: MIT
"""Power cuts without a machine to cut: what nodes told the disk, and what it may hold.

story.py    real nodes under load, all of it under strace
child.py    a node of that story: short hours, and a bug planted on demand
calls.py    strace's lines become calls in their order
medium.py   calls become a disk: what is on it for certain, and what may be
judge.py    opens what a power cut left, with the node's own code
cut.py      every instant, every kind of loss; counts what was promised and is not there
"""
