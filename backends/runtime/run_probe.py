"""Runs one golden probe on a device and compares it. Needs no graph, no checkpoint, no compiler."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.compare_outputs import (
    NONE,
    Errors,
    Mismatch,
    errors,
    require_untouched,
    settled,
)
from lostwax.backends.runtime.draw import array_of, as_rows
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.fenced_buffers import BadWrite, FencedBuffers
from lostwax.backends.runtime.memory import Content, Drawing
from lostwax.backends.runtime.undefined import fill_undefined
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.check_probes import DIGEST_BYTES, data_bytes
from lostwax.ir.contract.check_program import code_of
from lostwax.ir.contract.foreign_file import DAMAGE, reason
from lostwax.ir.contract.probe import Evidence, Expected, Probe
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import Array, Scaled, Value, widen


class WrongKernel(RuntimeError):
    """A lowering does not give on this device what its reference gives; the message names it."""


def row_digests(rows: Array) -> Array:
    """[rows, 16] u8: what stands for each row of integers [rows, ...]."""
    wide = np.ascontiguousarray(rows.reshape(rows.shape[0], -1))
    each = [hashlib.sha256(row.tobytes()).digest()[:DIGEST_BYTES] for row in wide]
    return np.frombuffer(b"".join(each), np.uint8).reshape(rows.shape[0], DIGEST_BYTES)


def contents(probe: Probe, drawing: Drawing) -> dict[str, Content]:
    """What every buffer of the probe holds at first."""
    found = {g.name: drawing.given(g, data_bytes(g.data)) for g in probe.given}
    return found | {w.stored.name: drawing.weight(w) for w in probe.weights}


def measure(probe: Probe, driver: Driver) -> Evidence:
    """Run the launches and compare every output.

    Raises Mismatch, BadWrite and what the driver raises.
    """
    with np.errstate(all="ignore"):  # what overflows is compared all the same
        buffers = FencedBuffers(driver, contents(probe, driver.memory.drawing), probe.launches)
        for launch in probe.launches:
            driver.bind(launch, buffers.resolve)()
        driver.synchronize()
        buffers.check_left()
        return _compare(probe, buffers)


def run_probe(probe: Probe, driver: Driver) -> Evidence:
    """Run the launches and compare every output. Raises WrongKernel, ArtifactError."""
    ops = " + ".join(probe.ops)
    try:
        return measure(probe, driver)
    except (Mismatch, BadWrite) as error:
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


def _compare(probe: Probe, buffers: FencedBuffers) -> Evidence:
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
            worst = worst.worst(_cache_errors(expected, buffers, probe))
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
    got = row_digests(buffers.samples(expected.view, expected.at, ()))
    return (got == array_of(expected.want)).all(axis=1)


def _value_errors(expected: Expected, buffers: FencedBuffers, rows: Mapping[str, Array]) -> Errors:
    for view in (expected.view, *([] if expected.scale is None else [expected.scale])):
        _require_numbers(expected, buffers.strays(view, expected.real))
    found, want = widen(_sampled(expected, buffers)), widen(array_of(expected.want))
    if expected.rows_of:
        agree = np.logical_and.reduce([rows[name] for name in expected.rows_of])
        found, want = found[agree], want[agree]
    return errors(expected.name, settled(found, want, 1.0 - expected.agreement), want)


def _require_numbers(expected: Expected, strays: tuple[bool, bool]) -> None:
    """No NaN in any real row, sampled or not, and no infinity where the reference has none."""
    is_nan, is_infinite = strays
    if is_nan or (is_infinite and expected.finite):
        what = "NaN" if is_nan else "an infinity"
        raise Mismatch(f"{expected.name}: {what} in one of its {expected.real} real rows")


def _sampled(expected: Expected, buffers: FencedBuffers) -> Value:
    """The output's samples, with the scale that each number has."""
    if expected.scale is None:
        return buffers.samples(expected.view, expected.at, expected.columns)
    count = len(expected.at)
    values = buffers.samples(expected.view, expected.at, ())
    scales = buffers.samples(expected.scale, expected.at, ())
    values = values.reshape(count, *expected.view.shape[1:])
    scales = scales.reshape(count, *expected.scale.shape[1:])
    whole = as_rows(widen(Scaled(values, scales, 1, expected.cols)))
    return whole[:, list(expected.columns)] if expected.columns else whole


def _cache_errors(expected: Expected, buffers: FencedBuffers, probe: Probe) -> Errors:
    """Rows outside the slots must be as before; of the written ones samples are compared."""
    cache = expected.cache
    assert cache is not None
    given = next(g for g in probe.given if g.name == expected.view.name)
    before = np.ascontiguousarray(array_of(given.data))
    fill_undefined(given, before.reshape(-1).view(np.uint8))
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
    every = decode(tokens[written])
    _require_numbers(expected, (bool(np.isnan(every).any()), bool(np.isinf(every).any())))
    found = every[list(expected.at)]
    found = found[:, list(expected.columns)] if expected.columns else found
    want = widen(array_of(expected.want))
    return errors(expected.name, settled(found, want, 1.0 - expected.agreement), want)
