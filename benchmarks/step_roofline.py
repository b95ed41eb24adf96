"""The least time that a step of V3.2 can take on a device: bytes and operations of each part.

A part takes the larger of its bytes at the measured read bandwidth and its operations at the
measured rate of dense FP8 products (attention: of BF16); parts follow each other. Weights count
once a step, an expert's where a row chose it, at the expected number of distinct experts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.cache_layout import row_bytes

_scaled_mm: Any = torch._scaled_mm  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
LATENT, INDEX = (512, 64), (128,)


@dataclass(frozen=True)
class Machine:
    """Bytes a second that are read, FP8 and BF16 operations a second of large products."""

    read: float
    fp8: float
    bf16: float

    @staticmethod
    def measured() -> Machine:
        """Of the device at hand: a sum over 8 GiB, products of 8,192."""
        data = torch.ones(1 << 31, device="cuda")
        read = data.nbytes / _seconds(data.sum)
        del data
        a = torch.ones(8192, 8192, device="cuda", dtype=torch.bfloat16)
        bf16 = 2 * 8192**3 / _seconds(lambda: a @ a)
        b = a.to(torch.float8_e4m3fn)
        one = torch.ones((), device="cuda")
        multiply = partial(_scaled_mm, b, b.t(), one, one, out_dtype=torch.bfloat16)
        return Machine(read, 2 * 8192**3 / _seconds(multiply), bf16)

    def as_dict(self) -> dict[str, float]:
        """In TB/s and TFLOP/s."""
        return {name: round(value / 1e12, 3) for name, value in asdict(self).items()}

    def us(self, num_bytes: float, flops: float = 0, rate: float = 0) -> float:
        """Microseconds of a part."""
        return 1e6 * max(num_bytes / self.read, flops / (rate or self.fp8))


def _seconds(run: Any) -> float:
    for _ in range(3):
        run()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(10):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e4


def layers_of(manifest: Manifest) -> tuple[int, int]:
    """Dense layers, and those with experts, the MTP layer apart."""
    latent = next(plane for plane in manifest.planes if plane.name == "latent")
    layers = latent.layers - (manifest.limits.max_drafts > 0)
    dense = 1 if layers < 10 else 3
    return dense, layers - dense


def _layouts(manifest: Manifest) -> dict[str, str]:
    return {plane.name: plane.layout for plane in manifest.planes}


EXPERTS, TOP_K, HIDDEN, EXPERT = 32, 8, 7168, 2048
DENSE = 18432
HEADS, INDEX_HEADS = 128, 64
PROJECTIONS = {
    "q_a": (1536, HIDDEN), "kv_a": (576, HIDDEN), "q_b": (HEADS * 192, 1536),
    "o": (HIDDEN, HEADS * 128), "wq_b": (INDEX_HEADS * 128, 1536), "wk": (128, HIDDEN),
}  # fmt: skip
"""One byte an element."""
KV_B = HEADS * 256 * 512
TOPK = 2048


def _parts(machine: Machine, rows: int) -> float:
    """Projections of a layer over `rows`, absorbed products in BF16 and the indexer's weights."""
    us = sum(machine.us(n * k, 2 * rows * n * k) for n, k in PROJECTIONS.values())
    us += machine.us(2 * KV_B, 2 * rows * KV_B, machine.bf16)
    return us + machine.us(2 * INDEX_HEADS * HIDDEN, 2 * rows * INDEX_HEADS * HIDDEN, machine.bf16)


def _feed_forward(machine: Machine, rows: int, dense: int, sparse: int) -> float:
    wide = 3 * HIDDEN * DENSE
    us = dense * machine.us(wide, 2 * rows * wide)
    one = 3 * HIDDEN * EXPERT
    distinct = EXPERTS * (1 - (1 - TOP_K / EXPERTS) ** rows)
    routed = machine.us(distinct * one, 2 * rows * TOP_K * one)
    shared = machine.us(one, 2 * rows * one)
    router = machine.us(2 * EXPERTS * HIDDEN, 2 * rows * EXPERTS * HIDDEN, machine.bf16)
    return us + sparse * (routed + shared + router)


def _head(machine: Machine, manifest: Manifest, rows: int) -> float:
    count = manifest.limits.vocab_size * HIDDEN
    return machine.us(2 * count, 2 * rows * count, machine.bf16)


def decode_floor(
    manifest: Manifest, machine: Machine, rows: int, requests: int, context: int
) -> float:
    """Microseconds of a decode step of so many requests, all at `context`, with `rows` in all."""
    dense, sparse = layers_of(manifest)
    return (
        (dense + sparse) * _decode_layer(manifest, machine, rows, requests, context)
        + _feed_forward(machine, rows, dense, sparse)
        + _head(machine, manifest, rows)
    )


def draft_floor(
    manifest: Manifest, machine: Machine, rows: int, requests: int, context: int
) -> float:
    """Microseconds of the MTP layer's drafts behind a verified step of `rows` rows: all of these
    once, then the last of each of the `requests` for every further draft."""
    join = 2 * HIDDEN * HIDDEN
    us = 0.0
    for count in (rows, *(requests,) * (manifest.limits.max_drafts - 1)):
        us += machine.us(2 * join, 2 * count * join, machine.bf16)
        us += _decode_layer(manifest, machine, count, requests, context)
        us += _feed_forward(machine, count, 0, 1) + _head(machine, manifest, requests)
    return us


def _decode_layer(
    manifest: Manifest, machine: Machine, rows: int, requests: int, context: int
) -> float:
    """All of a layer but its feed-forward part: each row reads what it selects, and the rows of a
    request read its index keys together."""
    stored = _layouts(manifest)
    keys = min(context, TOPK)
    latent = rows * keys * row_bytes(stored["latent"], LATENT)
    attend = machine.us(latent, 2 * rows * HEADS * keys * (576 + 512), machine.bf16)
    index = 0.0
    if context > TOPK:
        read = requests * context * row_bytes(stored["index_key"], INDEX)
        index = machine.us(read, 2 * rows * context * INDEX_HEADS * 128)
    return _parts(machine, rows) + attend + index


def prefill_floor(manifest: Manifest, machine: Machine, rows: int, start: int) -> float:
    """Microseconds of `rows` rows of one request behind `start`: exact attention of heads in BF16
    (192 and 128 wide) over all visible keys, or the selection's where that is less work."""
    dense, sparse = layers_of(manifest)
    pairs = rows * start + rows * (rows + 1) / 2
    chosen = sum(min(start + 1 + i, TOPK) for i in range(rows))
    expanded = 2 * HEADS * (192 + 128) * pairs
    absorbed = 2 * HEADS * (576 + 512) * chosen
    expand = 2 * (start + rows) * KV_B
    attend = machine.us(0, min(expanded + expand, absorbed), machine.bf16)
    index = 0.0
    if start + rows > TOPK:
        index = machine.us(0, 2 * pairs * INDEX_HEADS * 128)
    layer = _parts(machine, rows) + attend + index
    return (
        (dense + sparse) * layer
        + _feed_forward(machine, rows, dense, sparse)
        + _head(machine, manifest, 1)
    )
