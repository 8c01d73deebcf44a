# SPDX-License-Identifier: MIT
"""`mesh audit`: what a snooper learns from our links, with the controls that show he tries.

    wire        a capture file as its TCP connections
    cells       those as rows: a cell each, or a burst where there are no cells
    trace       what he has of a link: a row a cell
    spaces      machines and wires of a lab; nodes, post: what runs in it, and its mail
    worlds, lab which machines there are and how much mail; captured, with the truth
    simulated   the same without a wire: the clock's own laws, and leaks of known size
    features    windows of cells as numbers
    attackers   who tells idle windows from busy ones by those numbers
    statistics  how well, and how sure that is
    planting    the smallest leak that each attacker would have found
    idle_busy   all of that as figures
    whitebox    what the pacer's lateness could tell at most, however long one listens;
                counts reads that lateness
    matching    a message in by one link, and out by the next; sizes, disclosure
    departures  which message left by port 25
    probes      what a prober says; prober, reader, probing: to whom, and what came of it
    figures     what is said of it, and when it counts as shown; bounds: what is promised
    judge       from what was captured to figures; schedule: which worlds, for how long
    suite       all of it in order; capture: somebody's own capture instead
    report      as a table and as JSON; view, page, drawing, sheet: as a page with pictures

Needs the extra `audit`.  Nothing here runs inside a node, and no node imports it.
"""
