# SPDX-License-Identifier: MIT
"""The pacer: its rings, lanes and words without a process, and the process itself."""
