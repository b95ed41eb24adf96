"""Sizes at which the kernels' sources cut their work. Knows no kernel."""

from __future__ import annotations

TILE = 16
"""Columns of a packed weight that lie together, as `kernels/products.cpp` reads them."""
ROW_BLOCK, K_BLOCK, GROUP = 48, 512, 64
"""Rows, places of a sum and columns of a chunk of a product, as `kernels/multiply.h` cuts them."""
ROOM_BYTES = 4 * (ROW_BLOCK * K_BLOCK + K_BLOCK * GROUP + 2 * ROW_BLOCK * GROUP)
"""Its `Room`: x and a weight as f32, two products before they are rounded."""
SCALED = 128
"""Rows and columns of an e4m3 weight under one scale."""
HEADS = 4
"""Of a chunk of attention, as `kernels/attention.cpp` cuts them."""
SPAN = 256
"""Positions of a chunk of index logits, as `kernels/indexer.cpp` cuts them."""
