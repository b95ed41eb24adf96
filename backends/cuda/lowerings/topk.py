"""Exact top-k by one cluster of CTAs a row (kernels/topk.cu). Knows no device."""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.gpu_kernels.lowerings.launches import i32, is_aligned, real_rows
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match
from lostwax.backends.predicates import axis_at_most, dtype, fact_at_least, of_rows
from lostwax.ir.contract.kernel import SPILL_BYTES, KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar
from lostwax.ir.contract.program import KernelLaunch, Launch, View
from lostwax.ir.dialects.dsa import TopkOp
from lostwax.ir.region import Region

_THREADS = (512, 1024)
_VECTORS = (1, 2, 4)  # groups of 4 scores a thread; kernels/topk.cu packs counts for at most 4
_CLUSTERS = (1, 2, 4, 8, 16)  # 16 needs the non-portable cluster size, which the driver allows
_HALF_UNITS = range(65537, _CLUSTERS[-1] * _THREADS[0] * 4 * _VECTORS[-1] + 1)  # scores
_SPILL_BYTES = 1024  # of the cluster's addresses, once a pass; the measured times have them
MAX_LENGTH = _CLUSTERS[-1] * _THREADS[-1] * 4 * _VECTORS[-1]


@dataclass(frozen=True, slots=True)
class TopkForm:
    """CTAs a row, threads a CTA and groups of 4 scores a thread."""

    cluster: int
    threads: int
    vectors: int

    @property
    def capacity(self) -> int:
        """Scores that a cluster holds; its CTAs take equal multiples of 4."""
        return self.cluster * self.threads * 4 * self.vectors


def choose_form(rows: int, length: int, compute_units: int, cluster: int = 0) -> TopkForm:
    """The form for `rows` of `length` scores; `cluster` 0 spreads rows over the idle units.

    A cluster shortens the row that each CTA reads, and pays in barriers: it grows while the device
    has units for all rows and every thread of it has a full vector to read. Rows of
    `_HALF_UNITS` take the largest cluster if there is half a unit for each of its CTAs: 16 rows of
    131,072 took 45.2 us so, 56.3 in clusters of 8; but 64 rows of 32,768 took 20.1 us in clusters
    of 2, 30.1 in clusters of 4 at half a unit each (H100, `benchmarks/gpu_kernels.py run`,
    2026-11-24).
    """
    fitting = [c for c in _CLUSTERS if c * _THREADS[-1] * 4 * _VECTORS[-1] >= length]
    if not fitting:
        raise ValueError(f"a row of {length} scores exceeds the kernel's {MAX_LENGTH}")
    useful = [c for c in fitting if rows * c <= compute_units and c * _THREADS[0] * 4 <= length]
    chosen = cluster if cluster in fitting else max(useful, default=fitting[0])
    if cluster == 0 and length in _HALF_UNITS and rows * _CLUSTERS[-1] <= 2 * compute_units:
        chosen = _CLUSTERS[-1]
    forms = (TopkForm(chosen, t, v) for t in _THREADS for v in _VECTORS)
    return next(f for f in forms if f.capacity >= length)


def topk_launch(
    match: Match, logits: View, out: View, first_row: int, cluster: int, op: str
) -> Launch:
    """The launch that selects from logits [rows, scores] to out [rows, k]; the rows are those of
    the step from `first_row` on."""
    rows, length = logits.shape
    form = choose_form(rows, length, match.target.compute_units, cluster)
    row_stride = logits.strides[0]
    aligned = is_aligned(logits) and row_stride % 4 == 0
    compiled = match.build(
        KernelSource(
            language="cuda",
            path="topk.cu",
            symbol="sm90_f32_topk",
            constants={
                "CLUSTER": form.cluster,
                "THREADS": form.threads,
                "VECTORS": form.vectors,
                "ALIGNED": int(aligned),
                SPILL_BYTES: _SPILL_BYTES,
            },
            num_warps=form.threads // 32,
        )
    )
    return KernelLaunch(
        binary=compiled.binary,
        symbol=compiled.symbol,
        grid=(rows * form.cluster, 1, 1),
        block=(form.threads, 1, 1),
        params=(
            Pointer(logits),
            Scalar("i64", row_stride),
            i32(length),
            i32(out.shape[1]),
            i32(first_row),
            Pointer(real_rows(match)),
            Pointer(out),
        ),
        shared_bytes=compiled.shared_bytes,
        cluster=(form.cluster, 1, 1),
        op=op,
    )


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    logits, out = match.view("logits"), match.view("op.out")
    return (topk_launch(match, logits, out, 0, knobs["cluster"], "sm90_topk_cluster"),)


CLUSTERS = fact_at_least("cluster_blocks", _CLUSTERS[-1])
"""The target has clusters as large as the kernel may want."""
CLUSTER_KNOB = Knob("cluster", (0, *_CLUSTERS))

TOPK = Lowering(
    name="sm90_topk_cluster",
    pattern=Region.single(TopkOp),
    emit=_emit,
    when=CLUSTERS
    & dtype("logits", "f32")
    & axis_at_most("logits", 1, MAX_LENGTH)
    & of_rows("logits"),
    knobs=(CLUSTER_KNOB,),
    row_invariant=True,
)
