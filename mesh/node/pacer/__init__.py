# SPDX-License-Identifier: MIT
"""The pacer: a process of its own that sends and reads, and knows neither mail nor disk.

    ring       the memory that a link's two ends share: bodies to send, bodies that came
    lane       one link at one of its instants: send, read, open, seal
    loop       all lanes in the order of their instants; the main process's words
    word       those words, and the file descriptors that come with them
    board      when the next instant is, and which links had theirs
    histogram  how late cells were, counted
    standstill whether this machine may be a clone, for the main process's own keys
    lateness   what the operator is told of that
    hardening  what this process can no longer do
    client     the main process's hand: it starts the pacer and feeds its rings

Everything but `client` runs without an event loop and imports none.
"""
