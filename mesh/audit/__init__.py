# SPDX-License-Identifier: MIT
"""mesh.audit: the snooper, shipped with the product that has to withstand him.

    trace       what he has of a link: a row a cell
    simulated   the same without a wire: the clock's own laws, and leaks of known size
    features    windows of cells as numbers
    attackers   who tells idle windows from busy ones by those numbers
    statistics  how well, and how sure that is
    planting    the smallest leak that each attacker would have found
    whitebox    what the pacer's lateness could tell at most, however long one listens

Needs the extra `audit` (numpy, scikit-learn, dpkt).  Nothing of a node imports it.
"""
