"""Routed experts over their own rows: the routing is read on the host."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import Emit, f32_bytes, launch
from lostwax.backends.portable.lowerings.experts import IN_BLOCKS, expert_views, hidden_consts
from lostwax.backends.portable.lowerings.linear import same_dtype, transposed, weight_pass
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.weights import ROW_MAJOR, WeightForm
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
    P.plain("x") & P.plain("gate") & P.plain("up") & P.plain("down")
    & same_dtype("gate", "x") & same_dtype("up", "x") & same_dtype("down", "x")
)  # fmt: skip


def _used(match: Match) -> int:
    """Experts that a step reaches at most."""
    tokens, top_k = match.shape("ids")
    return min(match.shape("gate")[0], tokens * top_k)


def _emit_fused(name: str, gate_up_transposed: bool, down_transposed: bool) -> Emit:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        gate_up, down = match.view("gate"), match.view("down")
        gate_up = transposed(gate_up) if gate_up_transposed else gate_up
        down = transposed(down) if down_transposed else down
        activations = (match.view("x"), match.view("ids"), match.view("weights"))
        views = (*activations, gate_up, down, match.view("op.out"))
        return launch(name, KERNELS + "experts_fused", views, capturable=False)

    return emit


def _emit_apart(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views, consts = expert_views(match), hidden_consts(match)
    name = "cpu_experts_apart"
    return launch(name, KERNELS + "experts_apart", views, consts, capturable=False)


def _launches(match: Match, an_expert: int) -> int:
    sort = 0 if match.shape("x")[0] == 1 else 12
    return 3 + sort + an_expert * _used(match)


def _rows_an_expert(match: Match) -> int:
    tokens, top_k = match.shape("ids")
    return max(1, tokens * top_k // match.shape("gate")[0])


def _fused(suffix: str, gate_up_transposed: bool, down_transposed: bool) -> Lowering:
    """Four of these, because a weight plan changes the form of one weight at a time."""
    name = f"cpu_experts_fused{suffix}"

    def work(match: Match, knobs: Knobs) -> Work:
        plain, rows = match.work(), _rows_an_expert(match)
        gate_up = weight_pass(_share(plain, 2 / 3), rows, gate_up_transposed)
        down = weight_pass(_share(plain, 1 / 3), rows, down_transposed)
        moved, flops = gate_up.num_bytes + down.num_bytes, gate_up.flops + down.flops
        return Work(moved, flops, _launches(match, 6))

    return Lowering(
        name=name,
        pattern=Region.single(ExpertsOp),
        emit=_emit_fused(name, gate_up_transposed, down_transposed),
        when=ON_HOST & PLAIN,
        weights={
            "gate": GATE_UP_TRANSPOSED if gate_up_transposed else GATE_UP,
            "down": TRANSPOSED if down_transposed else ROW_MAJOR,
        },
        work=work,
        allocates=_bytes,
    )


def _share(work: Work, part: float) -> Work:
    return Work(work.num_bytes * part, work.flops * part)


def _bytes(match: Match, knobs: Knobs) -> int:
    """Rows sorted by expert and their results; one expert, which at most every row has chosen."""
    tokens, top_k = match.shape("ids")
    _, inter, dim = match.shape("gate")
    pairs, rows = f32_bytes(tokens * top_k, 2 * dim + 4), f32_bytes(tokens, 3 * inter + 3 * dim)
    return pairs + rows + 4 * f32_bytes(inter, dim)


def _apart_work(match: Match, knobs: Knobs) -> Work:
    """Used experts are converted to f32 unless they are."""
    _, inter, dim = match.shape("gate")
    is_converted = match.dtype("gate") != "f32"
    work = match.work()
    moved = work.num_bytes + is_converted * 2 * _used(match) * 3 * f32_bytes(inter, dim)
    plain = Work(moved, work.flops, _launches(match, 8 + 9 * is_converted))
    return weight_pass(plain, _rows_an_expert(match), is_transposed=False)


CPU_EXPERTS = (
    _fused("", gate_up_transposed=False, down_transposed=False),
    _fused("_transposed_up", gate_up_transposed=True, down_transposed=False),
    _fused("_transposed_down", gate_up_transposed=False, down_transposed=True),
    _fused("_transposed", gate_up_transposed=True, down_transposed=True),
    Lowering(
        name="cpu_experts_apart",
        pattern=Region.single(ExpertsOp),
        emit=_emit_apart,
        when=ON_HOST & IN_BLOCKS,
        work=_apart_work,
        allocates=_bytes,
    ),
)
