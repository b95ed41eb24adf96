"""Sizes at which the kernels' sources cut their work. Knows no kernel."""

from __future__ import annotations

TILE = 16
"""Columns of a packed weight that lie together, as `kernels/products.cpp` reads them."""
ROW_BLOCK, K_BLOCK, GROUP = 96, 128, 64
"""Rows, places of a sum and columns of a chunk of a product, as `kernels/multiply.h` cuts them."""
ROOM_BYTES = 8 * (ROW_BLOCK * K_BLOCK + K_BLOCK * GROUP + ROW_BLOCK * GROUP)
"""Its `Room`: x and a weight as products read them, two products before they are rounded."""
SCALED = 128
"""Rows and columns of an e4m3 weight under one scale."""
HEADS = 4
"""Of a chunk of attention, as `kernels/attention.cpp` cuts them."""
PANEL = 64
"""Positions that are made keys and values at a time, as `kernels/expanded_attention.cpp` cuts them,
and bits of a mark."""
SPAN = 256
"""Positions of a chunk of index logits, as `kernels/indexer.cpp` cuts them."""
PART = 4096
"""Ids of a part of a row of logits: a multiple of the 32 of a mask's word, and few enough that the
nearest cache holds them. Kernels are told."""
PART_BYTES = 24
"""`Part` of `kernels/row_parts.h`."""
BINS, BIN_BYTES, ID_BYTES = 128, 16, 16
"""Of a part, and their `Bin` and `Id`, in `kernels/nucleus.cpp`."""
MOST_PAIRS = 512
"""That `kernels/rope.cpp` turns."""
