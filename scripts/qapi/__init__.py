# SPDX-License-Identifier: MIT
"""The QAPI generator: schema text to C tables and reference documentation."""
