"""Puts block functions together: `@step` and `@step_scores` call one a layer. Knows no torch."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import builtin, func
from xdsl.ir import Block, Region, SSAValue

from lostwax.ir.contract.step import STEP_INPUTS
from lostwax.ir.dialects.core import CallOp
from lostwax.ir.size import Size
from lostwax.ir.types import TensorType


def assemble(blocks: Sequence[func.FuncOp], layers: Sequence[str]) -> builtin.ModuleOp:
    """The whole model. `layers` names the block of each layer, in order."""
    by_name = {b.sym_name.data: b for b in blocks}
    steps = [
        _step("step", by_name, layers, "head"),
        _step("step_scores", by_name, layers, "head_scores"),
    ]
    return builtin.ModuleOp([*blocks, *steps])


def _step(
    name: str, blocks: dict[str, func.FuncOp], layers: Sequence[str], head: str
) -> func.FuncOp:
    body = Block(arg_types=[_input_type(n) for n in STEP_INPUTS])
    values: dict[str, SSAValue] = dict(zip(STEP_INPUTS, body.args, strict=True))
    for hint, argument in values.items():
        argument.name_hint = hint

    def call(callee: str, layer: int, prefix: str) -> tuple[SSAValue, ...]:
        op = _call(blocks[callee], values, layer, prefix)
        body.add_op(op)
        return tuple(op.res)

    results = call("embed", 0, "")
    for layer, kind in enumerate(layers):
        values["delta"], values["residual"] = results
        results = call(kind, layer, f"model.layers.{layer}.")
    values["delta"], values["residual"] = results
    results = call(head, 0, "")
    body.add_op(func.ReturnOp(*results))
    attrs = [builtin.DictionaryAttr({"lostwax.input": builtin.StringAttr(n)}) for n in STEP_INPUTS]
    return func.FuncOp(
        name,
        ([a.type for a in body.args], [r.type for r in results]),
        Region(body),
        arg_attrs=builtin.ArrayAttr(attrs),
    )


def _call(block: func.FuncOp, values: dict[str, SSAValue], layer: int, prefix: str) -> CallOp:
    """Bind the block's carries and step inputs by name; weights and caches bind at run time."""
    operands: list[SSAValue] = []
    assert block.arg_attrs is not None
    for attrs in block.arg_attrs.data:
        assert isinstance(attrs, builtin.DictionaryAttr)
        name = attrs.data.get("lostwax.carry") or attrs.data.get("lostwax.input")
        if isinstance(name, builtin.StringAttr):
            operands.append(values[name.data])
    results = [t for t in block.function_type.outputs if isinstance(t, TensorType)]
    return CallOp(
        operands=[operands],
        properties={
            "callee": builtin.SymbolRefAttr(block.sym_name),
            "layer": builtin.IntegerAttr(layer, 64),
            "prefix": builtin.StringAttr(prefix),
        },
        result_types=[results],
    )


def _input_type(name: str) -> TensorType:
    spec = STEP_INPUTS[name]
    return TensorType.of([_size(d) for d in spec.dims], spec.dtype)


def _size(dim: str) -> Size:
    """`B + 1` or a single symbol."""
    total = Size.of(0)
    for term in dim.split(" + "):
        total = total + Size.of(int(term) if term.isdigit() else term)
    return total
