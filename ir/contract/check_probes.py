"""Whether golden probes and recorded choices can be read as what they say. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite, prod

from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.check_program import check_launch, views_of
from lostwax.ir.contract.check_views import (
    Inconsistent,
    dtype_bytes,
    end_of,
    refuse_view,
    require,
    require_pages,
)
from lostwax.ir.contract.check_weights import check_stored
from lostwax.ir.contract.choice import Choices
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.probe import Data, Drawn, DrawnCache, Kept, Probe, Probes
from lostwax.ir.contract.program import View

MAX_PROBE_ELEMENTS = 1 << 27
"""Of all arrays of a probe: eight times what a compile puts into one."""
MAX_DRAWN = 1e38
"""So that f32 holds the width of the range, too."""


def check_choices(choices: Choices, programs: Iterable[str]) -> None:
    """Raise Inconsistent where a program of the manifest has no choices."""
    missing = [name for name in programs if name not in choices.programs]
    require(not missing, f"it has no choices of program {missing[:1]}")


def check_probes(probes: Probes, symbols: Mapping[str, set[str]]) -> None:
    """Raise Inconsistent, naming the probe, where one cannot be run as it stands."""
    ids = [probe.id for probe in probes.probes]
    require(len(set(ids)) == len(ids), "two probes have one id")
    for probe in probes.probes:
        try:
            _check_probe(probe, symbols)
        except Inconsistent as error:
            raise Inconsistent(f"the probe of {probe.lowering!r}: {error}") from error


def _check_probe(probe: Probe, symbols: Mapping[str, set[str]]) -> None:
    if not probe.refusal:
        require(bool(probe.launches) and bool(probe.expected), "it runs or expects nothing")
    # A NaN would compare with nothing, an infinity with everything.
    require(
        isfinite(probe.max_error) and isfinite(probe.rms_error), "its tolerance is no finite number"
    )
    given = {each.name: each.data for each in probe.given}
    arrays = list(given.values())
    for weight in probe.weights:
        check_stored(weight.stored, 1)  # a probe is of one rank's weights
        wanted, given_parts = len(weight.stored.parts), len(weight.parts)
        require(
            wanted == given_parts,
            f"weight {weight.stored.name!r} has {given_parts} parts, wants {wanted}",
        )
        for part in weight.parts:
            arrays += [part.values, *([] if part.scales is None else [part.scales])]
    arrays += [expected.want for expected in probe.expected]
    total = sum(map(_elements, arrays))
    require(total <= MAX_PROBE_ELEMENTS, f"it holds {total} numbers, {MAX_PROBE_ELEMENTS} at most")
    sizes = {name: _data_bytes(data) for name, data in given.items()}
    sizes |= {
        w.stored.name: prod(w.stored.shape) * DTYPE_BYTES[w.stored.dtype] for w in probe.weights
    }
    for launch in probe.launches:
        check_launch(launch, symbols)
        for view in views_of(launch):
            _check_view(view, sizes)
    _check_expected(probe, sizes)


def _check_expected(probe: Probe, sizes: Mapping[str, int]) -> None:
    names = {e.name for e in probe.expected if e.kind == "integers"}
    for expected in probe.expected:
        what = f"what it expects of {expected.name!r}"
        unknown = [name for name in expected.rows_of if name not in names]
        require(not unknown, f"{what} counts rows of {unknown[:1]}, which it does not expect")
        require(0 <= expected.agreement <= 1, f"{what} wants {expected.agreement} of the rows")
        for view in (expected.view, *([] if expected.scale is None else [expected.scale])):
            _check_view(view, sizes)
        if expected.kind == "cache":
            cache = expected.cache
            if cache is None or cache.layout not in LAYOUTS:
                raise Inconsistent(f"{what} does not say how to read the cache")
            require(expected.view.name in sizes, f"{what} is a cache that was never given")


def _check_view(view: View, sizes: Mapping[str, int]) -> None:
    """A view of what is given lies in it; what is not given is as large as views ask for."""
    size = sizes.get(view.name)
    if view.shape[:1] == (-1,):
        if size is None or not view.strides:
            refuse_view(view, "has open pages of nothing")
        page_bytes = view.strides[0] * dtype_bytes(view.dtype, "a cache")
        require_pages(view, page_bytes)
        if size % page_bytes:
            refuse_view(view, f"cuts a page of {page_bytes} bytes")
        return
    end = end_of(view)
    if end > (8 * MAX_PROBE_ELEMENTS if size is None else size):
        refuse_view(view, f"ends at byte {end} of {size}")


def _elements(data: Data) -> int:
    if isinstance(data, DrawnCache):
        return data.pages * data.page_tokens * sum(data.row)
    return prod(data.shape)


def _data_bytes(data: Data) -> int:
    """Bytes of an array, once it is known to be one."""
    if isinstance(data, DrawnCache):
        layout = LAYOUTS.get(data.layout)
        if layout is None or not data.row or not layout.fits(data.row) or not layout.scale_block:
            raise Inconsistent(f"it draws a cache of layout {data.layout!r}, which cannot be drawn")
        return data.pages * data.page_tokens * layout.row_bytes(data.row)
    size = prod(data.shape) * dtype_bytes(data.dtype, "an array")
    if isinstance(data, Kept):
        require(len(data.data) == size, f"an array of {size} bytes is kept in {len(data.data)}")
    if isinstance(data, Drawn):
        in_range = max(abs(data.low), abs(data.high)) <= MAX_DRAWN
        require(in_range, f"it draws numbers beyond {MAX_DRAWN}")
    return size
