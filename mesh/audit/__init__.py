# SPDX-License-Identifier: MIT
"""`mesh audit`: what a snooper learns from our links, with the controls that show he tries.

Needs the extra `audit`.  Nothing here runs inside a node, and no node imports it.
"""
