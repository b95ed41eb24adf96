"""Routed experts over their own rows: the routing is read on the host."""

from __future__ import annotations

from dataclasses import replace

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import Emit, f32_bytes, launch
from lostwax.backends.portable.lowerings.experts import expert_views
from lostwax.backends.portable.lowerings.linear import same_dtype, transposed, weight_pass
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.weights import WeightForm
from lostwax.ir.dialects.moe import ExpertsOp
from lostwax.ir.region import Region

ON_HOST = P.not_captured() & P.host_memory()
KERNELS = "lostwax.backends.cpu.kernels.experts:"

GATE_UP = WeightForm(name="gate_up", concat=("gate", "up"), axis=1)
GATE_UP_TRANSPOSED = WeightForm(
    name="gate_up_transposed", perm=(0, 2, 1), concat=("gate", "up"), axis=1
)
TRANSPOSED = WeightForm(name="transposed", perm=(0, 2, 1))

PLAIN = (
    P.plain("gate") & P.plain("up") & P.plain("down")
    & same_dtype("gate", "x") & same_dtype("up", "x") & same_dtype("down", "x")
)  # fmt: skip


def _used(match: Match) -> int:
    """Experts that a step reaches at most."""
    tokens, top_k = match.shape("ids")
    return min(match.shape("gate")[0], tokens * top_k)


def _emit_fused(name: str, is_transposed: bool) -> Emit:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        gate_up, down = match.view("gate"), match.view("down")
        if is_transposed:
            gate_up, down = transposed(gate_up), transposed(down)
        activations = (match.view("x"), match.view("ids"), match.view("weights"))
        views = (*activations, gate_up, down, match.view("op.out"))
        return launch(name, KERNELS + "experts_fused", views, capturable=False)

    return emit


def _emit_apart(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    function = KERNELS + "experts_apart"
    return launch("cpu_experts_apart", function, expert_views(match), capturable=False)


def _launches(match: Match, an_expert: int) -> int:
    sort = 0 if match.shape("x")[0] == 1 else 12
    return 3 + sort + an_expert * _used(match)


def _rows_an_expert(match: Match) -> int:
    tokens, top_k = match.shape("ids")
    return max(1, tokens * top_k // match.shape("gate")[0])


def _fused(name: str, is_transposed: bool) -> Lowering:
    def work(match: Match, knobs: Knobs) -> Work:
        plain = replace(match.work(), launches=_launches(match, 6))
        return weight_pass(plain, _rows_an_expert(match), is_transposed)

    forms = {"gate": GATE_UP_TRANSPOSED, "down": TRANSPOSED} if is_transposed else {"gate": GATE_UP}
    return Lowering(
        name=name,
        pattern=Region.single(ExpertsOp),
        emit=_emit_fused(name, is_transposed),
        when=ON_HOST & PLAIN,
        weights=forms,
        work=work,
        allocates=_bytes,
    )


def _bytes(match: Match, knobs: Knobs) -> int:
    tokens, top_k = match.shape("ids")
    _, inter, dim = match.shape("gate")
    return f32_bytes(tokens * top_k, 4 * inter + 4 * dim) + 6 * f32_bytes(inter, dim)


def _apart_work(match: Match, knobs: Knobs) -> Work:
    """Used experts are converted to f32 unless they are."""
    _, inter, dim = match.shape("gate")
    is_converted = match.dtype("gate") != "f32"
    work = match.work()
    moved = work.num_bytes + is_converted * 2 * _used(match) * 3 * f32_bytes(inter, dim)
    plain = Work(moved, work.flops, _launches(match, 8 + 9 * is_converted))
    return weight_pass(plain, _rows_an_expert(match), is_transposed=False)


CPU_EXPERTS = (
    _fused("cpu_experts_fused", is_transposed=False),
    _fused("cpu_experts_fused_transposed", is_transposed=True),
    Lowering(
        name="cpu_experts_apart",
        pattern=Region.single(ExpertsOp),
        emit=_emit_apart,
        when=ON_HOST,
        work=_apart_work,
        allocates=_bytes,
    ),
)
