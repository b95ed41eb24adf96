"""Every torch op is the IR op of its name: same operands, same properties, honest schema."""

from importlib import import_module
from typing import Any

import pytest
import torch
from tiny import MTP

from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.frontend.ops import OPS
from lostwax.ir.dialects import DIALECTS, context

IR_ONLY = {
    "core.reshape", "core.slice", "core.call",  # views and calls
    "dsa.all", "dsa.hadamard", "quant.quantise", "dist.all_gather", "dist.all_reduce",  # by passes
}  # fmt: skip
BY_PASSES = {"moe.experts": {"hidden_fmt"}}
"""Properties that `assign-formats` adds; the captured model has none of them."""


def names():
    modules = [(d, import_module(f"lostwax.ir.dialects.{d}")) for d in DIALECTS]
    ops = {op.name for d, module in modules for op in getattr(module, d.upper()).operations}
    return sorted(ops - IR_ONLY)


def torch_op(name: str):
    base = name.replace(".", "_", 1)
    packet = getattr(OPS, base + "_" if name == "kv.append" else base)
    return packet.default


@pytest.mark.parametrize("name", names())
def test_a_torch_op_has_the_fields_of_its_ir_op(name: str):
    op: Any = context().get_op(name)
    definition = op.get_irdl_definition()
    properties = [p for p in definition.properties if p not in BY_PASSES.get(name, ())]
    fields = [n for n, _ in definition.operands] + properties
    arguments = [a.name for a in torch_op(name)._schema.arguments if a.name != "dtype"]
    assert arguments == fields


def example(name: str):
    t, b, p, n, page, heads, dim = 6, 3, 5, 7, 64, 4, 16

    def f(*shape: int):
        return torch.zeros(shape, dtype=torch.bfloat16, device="meta")

    def f32(*shape: int):
        return torch.zeros(shape, device="meta")

    def i(*shape: int):
        return torch.zeros(shape, dtype=torch.int32, device="meta")

    paging = (i(t), i(b + 1), i(b, p))
    act = torch.bfloat16
    return {
        "core.add": (f(t, 8), f(t, 8), torch.float32),
        "core.cast": (f32(t, 8), act),
        "core.zeros_like": (f(t, 8),),
        "core.rms_norm": (f32(t, 8), f(8), 1e-6, act),
        "core.layer_norm": (f(t, 8), f32(8), f32(8), 1e-6, act),
        "core.silu_mul": (f(t, 8), f(t, 8), act),
        "core.rope": (f(t, 8), i(t), 0, 4, True, 1e4, 40.0, 4096, 32.0, 1.0, 1.0),
        "core.concat": ([f(t, 8), f(t, 4)],),
        "core.embed": (i(t), f(9, 8)),
        "core.gather_rows": (f(t, 8), i(2)),
        "quant.linear": (f(t, 8), f(9, 8), torch.float32),
        "mla.attend": (
            f(t, heads, 8),
            f(t, heads, 4),
            f(heads * 20, dim),
            f(n, page, dim + 4),
            i(t, 32),
            *paging,
            0.1,
        ),
        "dsa.index_logits": (f(t, heads, dim), f32(t, heads), f(n, page, dim), *paging, 0.1),
        "dsa.topk": (f32(t, p * page), 32),
        "moe.route": (f32(t, 8), f32(8), i(t), 2, 4, 2, True, 2.5),
        "moe.experts": (f(t, 8), i(t, 2), f32(t, 2), f(4, 9, 8), f(4, 9, 8), f(4, 8, 9), act),
        "kv.append": (f(n, page, 12), [f(t, 8), f(t, 4)], i(t)),
        "sample.pick": (f32(2, 9), f32(2), i(2), i(2)),
        "sample.penalise": (f32(2, 9), i(5, 9), i(2), i(2, 3), f32(2), f32(2), f32(2)),
        "sample.bias": (f32(2, 9), f32(5, 9), i(2)),
        "sample.mask": (f32(2, 9), i(5, 1), i(2)),
        "sample.nucleus": (f32(2, 9), f32(2), i(2), f32(2), f32(2)),
        "sample.logprob": (f32(2, 9), i(2)),
        "sample.score": (f32(2, 9), i(2), 5),
    }[name]


@pytest.mark.parametrize("name", names())
def test_schemas_and_fake_kernels_pass_torchs_own_check(name: str):
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch_op(name), example(name), test_utils=tests)


def test_the_captured_model_uses_every_op():
    module = capture(parse_config(MTP)).module
    assert set(names()) <= {op.name for op in module.walk()}
