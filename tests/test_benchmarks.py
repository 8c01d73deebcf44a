# SPDX-License-Identifier: MIT
"""A sample of the benchmarks of the link, without their rivals: that they still run."""

from benchmarks import goodput, handshake


def test_messages_cross_one_greedy_link_between_two_processes() -> None:
    seconds, cpu = goodput.run_mesh(3, 200_000)
    assert seconds > 0
    assert cpu > 0


def test_two_nodes_shake_hands_again_and_again() -> None:
    nodes = handshake.Mesh()
    for _ in range(3):
        nodes.shake()
