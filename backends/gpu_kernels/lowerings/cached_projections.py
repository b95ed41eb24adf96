"""What attention and its indexer project of a block's input, with all that is made of it until it
is cached, or ready for the queries' projection: two launches, or three of bf16. Knows no device.
"""

from __future__ import annotations

from functools import partial
from itertools import product

from lostwax.backends.gpu_kernels.lowerings.cached_rows import (
    Formats,
    cached_launch,
    cached_tables,
    carve_heads,
    formats_when,
    zeroed_bytes,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_joined import JOINED, Joined
from lostwax.backends.gpu_kernels.lowerings.fp8_products import KNOBS
from lostwax.backends.lowering import Lowering
from lostwax.ir.region import Region


def _lowering(formats: Formats) -> Lowering:
    name = f"smxx_fp8_cached_projections{formats.suffix}"
    joined = Joined(
        name,
        JOINED.concat,
        partial(cached_launch, formats=formats, op=name),
        partial(carve_heads, formats=formats),
        is_wide=True,
    )
    return Lowering(
        name=name,
        pattern=Region(formats.nodes("x", "x_heads"), formats.outputs),
        emit=joined.emit,
        when=formats_when(formats, "x", "x_heads"),
        knobs=KNOBS,
        weights={"w_q": JOINED},
        workspace=joined.workspace,
        zeroed=lambda match, knobs: zeroed_bytes(match, formats),
        prepare=cached_tables,
        work=joined.work,
    )


CACHED_PROJECTIONS = tuple(_lowering(Formats(*flags)) for flags in product((False, True), repeat=4))
"""One for each set of formats, as activations, latents and index keys are rounded each by itself,
with the heads' product and without: where all positions are selected nobody needs it."""
