"""Runs one golden probe on a device and compares it. Needs no graph, no checkpoint, no compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.compare_outputs import (
    NONE,
    Errors,
    Mismatch,
    errors,
    require_same_form,
    require_untouched,
    rows_agree,
)
from lostwax.backends.runtime.draw import array_of, as_rows
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.fenced_buffers import FencedBuffers, Overrun
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.check_program import code_of
from lostwax.ir.contract.foreign_file import DAMAGE, reason
from lostwax.ir.contract.probe import Evidence, Expected, GivenWeight, Part, Probe
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import Array, Scaled, Value, widen
from lostwax.ir.reference.weight_forms import stored_weight


class WrongKernel(RuntimeError):
    """A lowering does not give on this device what its reference gives; the message names it."""


def part_value(part: Part) -> Value:
    """A logical weight."""
    values = array_of(part.values)
    if part.scales is None:
        return values
    return Scaled(values, array_of(part.scales), part.rows, part.cols)


def _stored(weight: GivenWeight) -> Array:
    return stored_weight(weight.stored, [[part_value(p)] for p in weight.parts])


def probe_inputs(probe: Probe) -> dict[str, Array]:
    """What every buffer of the probe holds at first."""
    found = {given.name: array_of(given.data) for given in probe.given}
    return found | {weight.stored.name: _stored(weight) for weight in probe.weights}


def run_probe(probe: Probe, driver: Driver) -> Evidence:
    """Run the launches and compare every output. Raises WrongKernel, ArtifactError."""
    ops = " + ".join(probe.ops)
    try:
        with np.errstate(all="ignore"):  # what overflows is compared all the same
            inputs = probe_inputs(probe)
            buffers = FencedBuffers(driver, inputs, probe.launches)
            for launch in probe.launches:
                driver.bind(launch, buffers.resolve)()
            driver.synchronize()
            buffers.check_fences()
            return _compare(probe, buffers, inputs)
    except (Mismatch, Overrun) as error:
        raise WrongKernel(
            f"{ops} is wrong on this device: lowering {probe.lowering}, probed at"
            f" the sizes of {probe.program}: {error}. Recompile with another lowering of it"
            f" (--lowering {probe.ops[0]}=NAME; `lostwax explain ARTIFACT {probe.ops[0]}` lists"
            " them), or repair the driver or the kernel"
        ) from error
    except ArtifactError:
        raise
    except (*DAMAGE, RuntimeError) as error:  # RuntimeError: torch's, and those of drivers
        raise WrongKernel(
            f"{ops} cannot be probed on this device: lowering {probe.lowering} at the sizes of"
            f" {probe.program}: {reason(error)}. Recompile the artifact; if it is not damaged,"
            " repair the driver or the kernel"
        ) from error


def _compare(probe: Probe, buffers: FencedBuffers, inputs: Mapping[str, Array]) -> Evidence:
    worst, agreement = NONE, None
    rows: dict[str, Array] = {}
    for expected in probe.expected:
        if expected.kind == "integers":
            rows[expected.name] = agree = _integer_rows(expected, buffers)
            share = float(agree.mean()) if agree.size else 1.0
            if share < expected.agreement:
                raise Mismatch(
                    f"{expected.name}: {share:.1%} of rows agree, wants {expected.agreement:.0%}"
                )
            agreement = share if agreement is None else min(agreement, share)
    for expected in probe.expected:
        if expected.kind == "values":
            worst = worst.worst(_value_errors(expected, buffers, rows))
        elif expected.kind == "cache":
            worst = worst.worst(_cache_errors(expected, buffers, inputs))
    if worst.max_error > probe.max_error or worst.rms_error > probe.rms_error:
        raise Mismatch(
            f"error {worst.max_error:.2e} max, {worst.rms_error:.2e} RMS; allowed"
            f" {probe.max_error:.0e} max, {probe.rms_error:.0e} RMS"
        )
    return Evidence(
        state="executed",
        ran=tuple(sorted({code_of(launch) for launch in probe.launches})),
        max_error=worst.max_error,
        rms_error=worst.rms_error,
        agreement=agreement,
    )


def _integer_rows(expected: Expected, buffers: FencedBuffers) -> Array:
    got, want = buffers.read(expected.view), array_of(expected.want)
    require_same_form(expected.name, got, want)
    return rows_agree(got, want, as_sets=False)


def _value_errors(expected: Expected, buffers: FencedBuffers, rows: Mapping[str, Array]) -> Errors:
    got: Value = buffers.read(expected.view)
    if expected.scale is not None:
        got = Scaled(got, buffers.read(expected.scale), expected.rows, expected.cols)
    found = as_rows(widen(got))[:, :: expected.stride]
    want = widen(array_of(expected.want))
    if expected.rows_of:
        agree = np.logical_and.reduce([rows[name] for name in expected.rows_of])
        found, want = found[agree], want[agree]
    return errors(expected.name, found, want)


def _cache_errors(
    expected: Expected, buffers: FencedBuffers, inputs: Mapping[str, Array]
) -> Errors:
    """Rows outside the slots must be as before; the written ones are compared as numbers."""
    cache, before = expected.cache, inputs[expected.view.name]
    assert cache is not None
    pages = (before.shape[0], *expected.view.shape[1:])
    got = buffers.read(msgspec.structs.replace(expected.view, shape=pages))
    slots: Array = np.array(cache.slots, np.int64)
    form, width = LAYOUTS[cache.layout], sum(cache.row)
    if form.element is None:
        empty = CacheBytes.zeros(cache.layout, before.shape[0], cache.page_tokens, cache.row)
        tokens, old = empty.holding(got).tokens(), empty.holding(before).tokens()
        decode: Callable[[Array], Array] = empty.decode
    else:
        tokens, old, decode = got.reshape(-1, width), before.reshape(-1, width), widen
    written = require_untouched(expected.name, tokens, old, slots, cache.page_tokens)
    found = decode(tokens[written])[:, :: expected.stride]
    return errors(expected.name, found, widen(array_of(expected.want)))
