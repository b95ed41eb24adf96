"""The queries of attention and of its indexer from one product, turned, the second's rounded to fp8
where its keys are: two launches, or three of bf16. Knows no device.
"""

from __future__ import annotations

from functools import partial

from lostwax.backends.gpu_kernels.lowerings.fp8_joined import Joined, joined_weights
from lostwax.backends.gpu_kernels.lowerings.fp8_linear import MAP_BORDER, fp8_units
from lostwax.backends.gpu_kernels.lowerings.fp8_products import KNOBS, Product
from lostwax.backends.gpu_kernels.lowerings.fp8_rows import as_bytes, head_strides
from lostwax.backends.gpu_kernels.lowerings.hadamard import MAX_WIDTH, rotation
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Argument,
    Carver,
    encoding,
    f32,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.gpu_kernels.lowerings.rope import table_kernel
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.predicates import (
    Predicate,
    axis_at_most,
    axis_multiple,
    dtype,
    encoded_for_target,
    fact,
    of_rows,
    rank,
    row_blocks,
)
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.contract.step_kernel import Prepared
from lostwax.ir.contract.weights import WeightForm
from lostwax.ir.region import Node, Region

_KERNEL = "lostwax.backends.gpu_kernels.attention_rows:query_rows"
_NAMES = ("smxx_fp8_queries", "smxx_fp8_queries_quantised")
QUERIES_FORM = WeightForm(name="queries", concat=("w_q_b", "w_index"))
_MAX_ROWS = 256
"""Beyond, the planes (64 KB a row of V3.2) are more workspace than separate products take."""
_BLOCK_ELEMENTS = 2048  # of one program: 16 a thread at 4 warps of 32
_MAX_HEAD = 1024


def query_nodes(x: str, quantised: bool) -> dict[str, Node]:
    """Both queries of `x`. Wiring alone would not tell them apart: attention's turns pairs that lie
    side by side, the indexer's halves."""
    nodes = {
        "q_b": Node("quant.linear", {"x": x, "weight": "w_q_b"}),
        "queries": Node("core.reshape", {"x": "q_b"}),
        "q_turned": Node(
            "core.rope", {"x": "queries", "positions": "positions"}, flags={"interleaved": True}
        ),
        "index_flat": Node("quant.linear", {"x": x, "weight": "w_index"}),
        "index": Node("core.reshape", {"x": "index_flat"}),
        "index_turned": Node(
            "core.rope", {"x": "index", "positions": "positions"}, flags={"interleaved": False}
        ),
    }
    if not quantised:
        return nodes
    nodes["index_rotated"] = Node("dsa.hadamard", {"x": "index_turned"})
    nodes["index_quantised"] = Node("quant.quantise", {"x": "index_rotated"})
    return nodes


def query_outputs(quantised: bool) -> tuple[str, ...]:
    """What leaves of them."""
    return "q_turned", _index_out(quantised)


def _block_heads(heads: int, width: int) -> int:
    """Heads of one program."""
    return min(next_power_of_two(heads), max(1, _BLOCK_ELEMENTS // next_power_of_two(width)))


def turned_launch(
    match: Match, planes: View, product: Product, carver: Carver, quantised: bool, op: str
) -> Launch:
    """The launch behind the product."""
    _, heads, width = match.shape("queries")
    _, index_heads, index_width = match.shape("index")
    q, index = match.view("q_turned"), match.view(_index_out(quantised))
    scales = match.view(f"{_index_out(quantised)}:scale") if quantised else index
    scale, levels = rotation(index_width)
    block, index_block = _block_heads(heads, width), _block_heads(index_heads, index_width)
    arguments: dict[str, Argument] = {
        "joined": planes,
        "table": match.step("table"),
        "q": q,
        "index_table": match.step("index_table"),
        "index_q": as_bytes(index) if quantised else index,
        "index_scales": scales,
        "real_rows": real_rows(match),
        "num_rows": i32(product.rows),
        **head_strides(q=q, index_q=index, index_scales=scales),
        "scale": f32(scale),
    }
    constants = {
        "HEADS": heads,
        "WIDTH": width,
        "BLOCK_HEADS": block,
        "BLOCK_WIDTH": next_power_of_two(width),
        "INDEX_HEADS": index_heads,
        "INDEX_WIDTH": index_width,
        "INDEX_BLOCK_HEADS": index_block,
        "SCALED": int(quantised),
        "LEVELS": levels,
        "BLOCK": min(FP8_BLOCK, index_width),
        "POWER_OF_TWO": int(quantised and match.attr("index_quantised", "scale_fmt") == "ue8m0"),
        **encoding(match.target),
        "SPLITS": product.splits,
        "ROUND_FIRST": 0,
    }
    for prefix, node in (("", "q_turned"), ("INDEX_", "index_turned")):
        for name in ("offset", "dim", "interleaved"):
            constants[prefix + name.upper()] = int(match.attr(node, name))
    return triton_launch(
        match,
        _KERNEL,
        arguments,
        constants,
        grid=(product.rows, -(-heads // block) + -(-index_heads // index_block), 1),
        op=op,
        rows_of=tuple(name for name in arguments if name.endswith("_stride")),
    )


def _index_out(quantised: bool) -> str:
    return "index_quantised" if quantised else "index_turned"


def query_tables(match: Match, knobs: Knobs) -> tuple[Prepared, ...]:
    """The rotary tables of both queries."""
    return (
        table_kernel(match, "q_turned", "table"),
        table_kernel(match, "index_turned", "index_table"),
    )


def _index_width(match: Match) -> str | None:
    width = match.shape("index")[-1]
    fits = width & (width - 1) == 0 and width <= MAX_WIDTH
    return None if fits else f"index queries are {width} wide, wants a power of two <= {MAX_WIDTH}"


def _head_width(match: Match) -> str | None:
    width = match.shape("queries")[-1]
    return None if width <= _MAX_HEAD else f"heads are {width} wide, wants <= {_MAX_HEAD}"


def queries_when(x: str, quantised: bool) -> Predicate:
    """What the product of `x` and the launch behind it ask."""
    return joined_when(x, quantised) & axis_at_most(x, 0, _MAX_ROWS)


def joined_when(x: str, quantised: bool) -> Predicate:
    """What any kernel of both queries asks."""
    found = fp8_units(x) & joined_weights(*QUERIES_FORM.concat) & of_rows(x)
    found &= axis_multiple(x, 1, MAP_BORDER)
    found &= fact("dtypes", "f64") & rank("queries", 3) & rank("index", 3)
    found &= Predicate(_index_width) & Predicate(_head_width)
    inner = ("q_b", "q_turned", "index_flat", "index_turned")
    for name in (*inner, "index_rotated") if quantised else inner:
        found &= dtype(name, "bf16")
    if quantised:
        found &= encoded_for_target("index_quantised") & row_blocks("index_quantised")
    return found


def _lowering(quantised: bool) -> Lowering:
    name = _NAMES[quantised]
    behind = partial(turned_launch, quantised=quantised, op=name)
    joined = Joined(name, QUERIES_FORM.concat, behind, is_wide=quantised)
    return Lowering(
        name=name,
        pattern=Region(query_nodes("x", quantised), query_outputs(quantised)),
        emit=joined.emit,
        when=queries_when("x", quantised),
        knobs=KNOBS,
        weights={"w_q_b": QUERIES_FORM},
        workspace=joined.workspace,
        prepare=query_tables,
        work=joined.work,
    )


JOINED_QUERIES = (_lowering(quantised=False), _lowering(quantised=True))
