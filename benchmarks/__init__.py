# SPDX-License-Identifier: MIT
"""What is measured, never asserted: one readable module a question."""
