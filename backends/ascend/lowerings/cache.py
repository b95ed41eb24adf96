"""Lowerings of kv.append by CANN's scatter, and of it with the norm and the rope in front of it."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.ascend.contract.rule import Call, Described
from lostwax.backends.ascend.lowerings.keeps import KERNELS, described, keeps
from lostwax.backends.ascend.lowerings.rope import WITHIN_TABLES, angles_of, within_one
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import Emit, f32_bytes, launch, torch_calls
from lostwax.backends.portable.lowerings.prepared import wide_slots
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.step import StepOp
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.region import Node, Region

NORM_ROPE_APPEND = Region(
    {
        "normed": Node("core.rms_norm", {"x": "latent", "weight": "weight"}),
        "turned": Node(
            "core.rope", {"x": "rope_key", "positions": "positions"}, {"interleaved": True}
        ),
        "append": Node(
            "kv.append", {"cache_in": "cache_in", "rows": ("normed", "turned"), "slots": "slots"}
        ),
    },
    ("append",),
)
"""What a row leaves of itself in the latent cache. Nobody else reads the normed latent, nor the
rotated key."""


def _call(match: Match) -> Call:
    pages, page_tokens, _ = match.shape("cache_in")
    rows, width = match.bucket.tokens, match.parts("cache_in")[0]
    tensors = {
        "input": Described("bf16", (pages * page_tokens, width)),
        "indices": Described("i64", (rows, 1)),
        "updates": Described("bf16", (rows, width)),
    }
    return Call(tensors)


def _one_part(match: Match) -> str | None:
    parts = match.parts("cache_in")
    return None if len(parts) == 1 else f"rows of {len(parts)} parts side by side are no one tensor"


def _emit(name: str, function: str) -> Emit:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        views = (match.view("cache_in"), match.step("wide_slots"), *match.views("rows"))
        return launch(name, f"{KERNELS}cache:{function}", views)

    return emit


def _append(name: str, function: str, when: Predicate) -> Lowering:
    return Lowering(
        name=name,
        pattern=Region.single(AppendOp),
        emit=_emit(name, function),
        when=when & keeps("npu_scatter_nd_update_", _call),
        row_invariant=True,
        prepare=wide_slots,
        work=torch_calls(2),
        allocates=lambda match, knobs: 8 * match.bucket.tokens * sum(match.parts("cache_in")),
    )


def _fused_call(match: Match) -> Call:
    pages, block, _ = match.shape("cache_in")
    rows, (rank, rope) = match.bucket.tokens, match.parts("cache_in")
    angles = Described("bf16", (rows, 1, 1, rope))
    tensors = {
        "kv": Described(match.dtype("latent"), (rows, 1, 1, rank + rope)),
        "gamma": described(match, "weight"),
        "cos": angles,
        "sin": angles,
        "index": Described("i64", (rows,)),
        "k_cache": Described("bf16", (pages, block, 1, rope)),
        "ckv_cache": Described("bf16", (pages, block, 1, rank)),
    }
    return Call(tensors, {"cache_mode": "PA_BNSD"})


def _turns_all(match: Match) -> str | None:
    dim, width = int(match.attr("turned", "dim")), match.shape("rope_key")[-1]
    return None if dim == width else f"{dim} of {width} numbers are rotated, the operator wants all"


def _prepare_fused(match: Match, knobs: Knobs) -> tuple[StepOp, ...]:
    rows = match.bucket.tokens
    slots = StepOp(
        function=f"{KERNELS}cache:kept_slots",
        inputs=("positions", "slots"),
        outputs=(("kept_slots", "i64", (rows,)),),
        allocates=24 * rows,
    )
    return angles_of(match, "turned", "half_angles", "bf16", interleaved=False), slots


def _emit_fused(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (
        *(match.view(n) for n in ("cache_in", "latent", "weight", "rope_key")),
        *(match.step(n) for n in ("half_angles", "kept_slots")),
    )
    consts = {"eps": match.attr("normed", "eps")}
    return launch("ascend_norm_rope_append", f"{KERNELS}cache:norm_rope_append", views, consts)


CACHE = (
    _append("ascend_append", "append", P.layout("cache_in", "bf16") & Predicate(_one_part)),
    _append("ascend_append_apart", "append_apart", P.layout("cache_in", "bf16_apart")),
    Lowering(
        name="ascend_norm_rope_append",
        pattern=NORM_ROPE_APPEND,
        emit=_emit_fused,
        when=P.layout("cache_in", "bf16_apart")
        & P.dtype("rope_key", "bf16")
        & Predicate(_turns_all)
        & within_one("turned")
        & WITHIN_TABLES
        & keeps("npu_kv_rmsnorm_rope_cache", _fused_call),
        row_invariant=True,
        prepare=_prepare_fused,
        work=torch_calls(2),
        allocates=lambda match, knobs: (
            6 * f32_bytes(match.bucket.tokens, sum(match.parts("cache_in")))
        ),
        waiver="bf16_angles",
    ),
)
