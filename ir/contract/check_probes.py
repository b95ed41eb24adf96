"""Whether golden probes and recorded choices can be read as what they say. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite, prod

from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.check_launch import check_launch
from lostwax.ir.contract.check_views import (
    Inconsistent,
    dtype_bytes,
    end_of,
    refuse_view,
    require,
    require_pages,
    require_within,
)
from lostwax.ir.contract.check_weights import check_stored
from lostwax.ir.contract.choice import Choices
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.probe import (
    Data,
    Drawn,
    DrawnBits,
    DrawnCache,
    DrawnScores,
    DrawnSelection,
    Expected,
    Given,
    GivenWeight,
    Kept,
    Probe,
    Probes,
)
from lostwax.ir.contract.program import View, views_of
from lostwax.ir.contract.scale_layout import scale_shape

MAX_PROBE_ELEMENTS = 1 << 27
"""Of all arrays of a probe but its weights: some times what a compile puts into one."""
MAX_DRAWN_BITS = 1 << 24
"""Numbers of drawn bits of a probe: those of 4,000 masks of DeepSeek-V3.2's 129,280 ids."""
DIGEST_BYTES = 16
"""Of a row of integers."""
MAX_DRAWN = 1e38
"""So that f32 holds the width of the range, too."""


def check_choices(choices: Choices, programs: Iterable[str]) -> None:
    """Raise Inconsistent where a program of the manifest has no choices."""
    missing = [name for name in programs if name not in choices.programs]
    require(not missing, f"it has no choices of program {missing[:1]}")


def check_probes(probes: Probes, symbols: Mapping[str, set[str]], manifest: Manifest) -> None:
    """Raise Inconsistent, naming the probe, where one cannot be run as it stands.

    A probe's weights are of one layer, so that they take less than the model's. `symbols` are the
    kernels of each of the manifest's binaries.
    """
    ids = [probe.id for probe in probes.probes]
    require(len(set(ids)) == len(ids), "two probes have one id")
    for probe in probes.probes:
        try:
            _check_probe(probe, symbols, manifest)
        except Inconsistent as error:
            raise Inconsistent(f"the probe of {probe.lowering!r}: {error}") from error


def _check_probe(probe: Probe, symbols: Mapping[str, set[str]], manifest: Manifest) -> None:
    if not probe.refusal:
        require(bool(probe.launches) and bool(probe.expected), "it runs or expects nothing")
    # A NaN would compare with nothing, an infinity with everything.
    require(
        isfinite(probe.max_error) and isfinite(probe.rms_error), "its tolerance is no finite number"
    )
    given = {each.name: each.data for each in probe.given}
    for each in probe.given:
        _check_undefined(each)
    for weight in probe.weights:
        check_stored(weight.stored, 1)  # a probe is of one rank's weights
        _check_parts(weight)
    arrays = [*given.values(), *(expected.want for expected in probe.expected)]
    total = sum(map(_elements, arrays))
    require(total <= MAX_PROBE_ELEMENTS, f"it holds {total} numbers, {MAX_PROBE_ELEMENTS} at most")
    bits = drawn_bits(probe.given)
    require(bits <= MAX_DRAWN_BITS, f"it draws bits of {bits} numbers, {MAX_DRAWN_BITS} at most")
    sizes = {name: data_bytes(data) for name, data in given.items()}
    weights = _weight_sizes(probe)
    drawn = sum(weights.values())
    most = manifest.weight_bytes
    require(drawn <= most, f"its weights take {drawn} bytes of the model's {most}")
    sizes |= weights
    for launch in probe.launches:
        check_launch(launch, symbols, manifest.target)
        for view in views_of(launch):
            if view.space == "zeroed":
                require_within(view, manifest.zeroed_bytes)
            else:
                _check_view(view, sizes)
    _check_expected(probe, sizes)


def _check_undefined(given: Given) -> None:
    """What is left undefined are rows and tokens that the data has."""
    data, what = given.data, f"what it gives as {given.name!r}"
    if given.real is not None:
        rows = () if isinstance(data, DrawnCache) else data.shape[:1]
        require(bool(rows) and given.real <= rows[0], f"{what} has fewer rows than are real")
    if given.held:
        cache = (data.pages, data.page_tokens) if isinstance(data, DrawnCache) else data.shape[:2]
        fits = len(cache) == 2 and cache[0] == len(given.held) and max(given.held) <= cache[1]
        require(fits, f"{what} has other pages than it says the tokens of")


def _weight_sizes(probe: Probe) -> dict[str, int]:
    """Bytes of each stored weight."""
    sizes: dict[str, int] = {}
    for weight in probe.weights:
        what = f"weight {weight.stored.name!r}"
        of_one = dtype_bytes(weight.stored.dtype, what)
        sizes[weight.stored.name] = prod(weight.stored.shape) * of_one
    return sizes


def _check_parts(weight: GivenWeight) -> None:
    """The parts are drawn as the plan of the weight takes them."""
    stored = weight.stored
    wanted, given = len(stored.parts), len(weight.parts)
    require(wanted == given, f"weight {stored.name!r} has {given} parts, wants {wanted}")
    for plan, part in zip(stored.parts, weight.parts, strict=True):
        what = f"part {plan.name!r} of weight {stored.name!r}"
        form = (part.values.dtype, part.values.shape)
        require(form == (plan.dtype, plan.shape), f"{what} is drawn in another form than planned")
        scales = None if part.scales is None else (part.scales.dtype, part.scales.shape)
        planned = None
        if plan.scale is not None:
            planned = (plan.scale.dtype, scale_shape(plan.scale, plan.shape))
        require(scales == planned, f"{what} has other scales than planned")


def _check_expected(probe: Probe, sizes: Mapping[str, int]) -> None:
    names = {e.name for e in probe.expected if e.kind == "integers"}
    for expected in probe.expected:
        what = f"what it expects of {expected.name!r}"
        unknown = [name for name in expected.rows_of if name not in names]
        require(not unknown, f"{what} counts rows of {unknown[:1]}, which it does not expect")
        require(0 <= expected.agreement <= 1, f"{what} wants {expected.agreement} of the rows")
        for view in (expected.view, *([] if expected.scale is None else [expected.scale])):
            _check_view(view, sizes)
        _check_samples(expected, what)
        if expected.kind == "cache":
            cache = expected.cache
            if cache is None or cache.layout not in LAYOUTS:
                raise Inconsistent(f"{what} does not say how to read the cache")
            require(expected.view.name in sizes, f"{what} is a cache that was never given")


def _check_samples(expected: Expected, what: str) -> None:
    """The sampled rows and columns are some of the output, and `want` has a number for each."""
    cache, shape = expected.cache, expected.view.shape
    rows, width = (shape or (1,))[0], prod(shape[1:])
    if expected.kind == "cache" and cache is not None:
        rows, width = len(set(cache.slots)), sum(cache.row)
    require(all(row < rows for row in expected.at), f"{what} samples rows behind its {rows}")
    require(expected.real <= max(rows, 0), f"{what} counts more real rows than its {rows}")
    require(
        all(column < width for column in expected.columns),
        f"{what} samples columns behind its {width}",
    )
    columns = len(expected.columns) or width
    if expected.kind == "integers":
        columns = DIGEST_BYTES
    data_bytes(expected.want)
    require(
        expected.want.shape == (len(expected.at), columns),
        f"{what} is {list(expected.want.shape)}, it samples {[len(expected.at), columns]}",
    )


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


def drawn_bits(given: Iterable[Given]) -> int:
    """How many numbers of drawn bits there are."""
    return sum(prod(each.data.shape) for each in given if isinstance(each.data, DrawnBits))


def _elements(data: Data) -> int:
    if isinstance(data, DrawnCache):
        return data.pages * data.page_tokens * sum(data.row)
    return prod(data.shape)


def data_bytes(data: Data) -> int:
    """Bytes of an array, once it is known to be one."""
    match data:
        case DrawnCache():
            layout = LAYOUTS.get(data.layout)
            if (
                layout is None
                or not data.row
                or not layout.fits(data.row)
                or layout.element is not None
            ):
                raise Inconsistent(
                    f"it draws a cache of layout {data.layout!r}, which cannot be drawn"
                )
            return data.pages * data.page_tokens * layout.row_bytes(data.row)
        case DrawnScores() | DrawnSelection():
            fits = len(data.shape) == 2 and len(data.visible) == data.shape[0]
            require(fits, f"it draws rows of {list(data.shape)}, and says of {len(data.visible)}")
            return prod(data.shape) * DTYPE_BYTES["f32"]
        case DrawnBits():
            require(len(data.shape) == 2, f"it draws bits of {list(data.shape)}, which are no rows")
            return prod(data.shape) * DTYPE_BYTES["i32"]
        case Drawn():
            in_range = max(abs(data.low), abs(data.high)) <= MAX_DRAWN
            require(in_range, f"it draws numbers beyond {MAX_DRAWN}")
            return prod(data.shape) * dtype_bytes(data.dtype, "an array")
        case Kept():
            return _kept_bytes(data)


def _kept_bytes(data: Kept) -> int:
    of_one = dtype_bytes(data.dtype, "an array")
    held = data.shape if data.held is None else data.held
    fits = len(held) == len(data.shape) and all(
        0 < some <= all_ for some, all_ in zip(held, data.shape, strict=True)
    )
    require(data.held is None or fits, f"an array of {list(data.shape)} holds {list(held)} of it")
    size = prod(held) * of_one
    require(len(data.data) == size, f"an array of {size} bytes is kept in {len(data.data)}")
    return prod(data.shape) * of_one
