# SPDX-License-Identifier: MIT
"""The counts of a process that has them: this one."""

import os

import pytest

from mesh.audit.counts import Counted, lateness
from mesh.core.clock import class_of
from mesh.errors import IoError
from mesh.node.pacer.histogram import Histogram


def test_the_counts_of_a_process_of_one_rate() -> None:
    with pytest.raises(IoError, match="is it a node"):
        lateness(os.getpid(), 64.0)
    histogram, fd = Histogram.create()
    try:
        histogram.count(class_of(64.0), 100e-6)
        histogram.count(class_of(1.0), 100e-6)
        row = lateness(os.getpid(), 64.0)
        assert row == histogram.row(class_of(64.0))
        assert sum(row) == 1
        counted = Counted(os.getpid(), 64.0)
        for busy, times in ((True, 3), (False, 2), (True, 1)):
            histogram.count(class_of(64.0), 5e-3)  # between blocks: nobody's
            with counted.block(busy):
                for _ in range(times):
                    histogram.count(class_of(64.0), 100e-6)
        assert {kind: sum(row) for kind, row in counted.late.items()} == {"idle": 2, "busy": 4}  # fmt: skip
        assert counted.late["busy"][row.index(1)] == 4
    finally:
        os.close(fd)


def test_without_a_node_nothing_is_counted() -> None:
    counted = Counted(None, 64.0)
    with counted.block(True):
        pass
    assert {sum(row) for row in counted.late.values()} == {0}
