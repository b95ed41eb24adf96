"""The block of rows that batch-invariant products take at a time, for lowerings and kernels."""

ROWS = 8
"""Rows of a block: a decode step reads the weight once either way, a prefill once in eight rows."""
