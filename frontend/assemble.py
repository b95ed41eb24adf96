"""Puts block functions together into segments: `@body` calls one a layer, `@draft` the MTP layer,
and each head one that reads their hidden rows. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import builtin, func
from xdsl.ir import Block, Region, SSAValue

from lostwax.ir.contract.program import HEADS
from lostwax.ir.contract.step import DRAFT_INPUTS, HEAD_INPUTS, HIDDEN, STEP_INPUTS, operands_of
from lostwax.ir.dialects.core import CallOp
from lostwax.ir.size import Size
from lostwax.ir.types import TensorType

BODY_INPUTS = operands_of("extend")


def assemble(
    blocks: Sequence[func.FuncOp], layers: Sequence[str], mtp_layers: Sequence[int] = ()
) -> builtin.ModuleOp:
    """The whole model. `layers` names the block of each layer, in order."""
    by_name = {b.sym_name.data: b for b in blocks}
    segments = [_body(by_name, layers)]
    segments += [_draft(by_name, layer) for layer in mtp_layers]
    segments += [_head(by_name, head) for head in HEADS]
    return builtin.ModuleOp([*blocks, *segments])


class _Step:
    """A step function that grows by one call of a block after another."""

    def __init__(self, blocks: dict[str, func.FuncOp], inputs: Sequence[str]) -> None:
        self.blocks, self.inputs = blocks, inputs
        self.body = Block(arg_types=[_input_type(n) for n in inputs])
        self.values: dict[str, SSAValue] = dict(zip(inputs, self.body.args, strict=True))
        self.arg_attrs = [{"lostwax.input": n} for n in inputs]
        for hint, argument in self.values.items():
            argument.name_hint = hint

    def states_of(self, block: str) -> None:
        """More arguments: the states that the block takes, as it takes them."""
        function = self.blocks[block]
        assert function.arg_attrs is not None
        for attrs, argument in zip(function.arg_attrs.data, function.body.block.args, strict=True):
            state = attrs.data.get("lostwax.state")
            if isinstance(state, builtin.StringAttr):
                value = self.body.insert_arg(argument.type, len(self.body.args))
                value.name_hint = state.data
                self.values[state.data] = value
                self.arg_attrs.append({"lostwax.state": state.data})

    def call(self, callee: str, layer: int, prefix: str) -> tuple[SSAValue, ...]:
        """Results of a block with one layer's weights."""
        op = _call(self.blocks[callee], self.values, layer, prefix)
        self.body.add_op(op)
        return tuple(op.res)

    def function(self, name: str, results: Sequence[SSAValue], *, gives_hidden: bool):
        """The finished function; with `gives_hidden` its result is the hidden state."""
        self.body.add_op(func.ReturnOp(*results))
        res_attrs = [{"lostwax.state": HIDDEN} for _ in results] if gives_hidden else None
        return func.FuncOp(
            name,
            ([a.type for a in self.body.args], [r.type for r in results]),
            Region(self.body),
            arg_attrs=_texts(self.arg_attrs),
            res_attrs=None if res_attrs is None else _texts(res_attrs),
        )


def _texts(dictionaries: Sequence[dict[str, str]]) -> builtin.ArrayAttr[builtin.DictionaryAttr]:
    return builtin.ArrayAttr(
        [
            builtin.DictionaryAttr({k: builtin.StringAttr(v) for k, v in d.items()})
            for d in dictionaries
        ]
    )


def _body(blocks: dict[str, func.FuncOp], layers: Sequence[str]) -> func.FuncOp:
    step = _Step(blocks, BODY_INPUTS)
    results = step.call("embed", 0, "")
    for layer, kind in enumerate(layers):
        step.values["delta"], step.values["residual"] = results
        results = step.call(kind, layer, f"model.layers.{layer}.")
    step.values["delta"], step.values["residual"] = results
    return step.function("body", step.call("norm", 0, ""), gives_hidden=True)


def _draft(blocks: dict[str, func.FuncOp], layer: int) -> func.FuncOp:
    step = _Step(blocks, (*BODY_INPUTS, *DRAFT_INPUTS))
    step.states_of("mtp")
    step.values["delta"], step.values["residual"] = step.call("embed", 0, "")
    hidden = step.call("mtp", layer, f"model.layers.{layer}.")
    return step.function("draft", hidden, gives_hidden=True)


def _head(blocks: dict[str, func.FuncOp], name: str) -> func.FuncOp:
    step = _Step(blocks, HEAD_INPUTS)
    step.states_of(f"{name}_head")
    return step.function(name, step.call(f"{name}_head", 0, ""), gives_hidden=False)


def _call(block: func.FuncOp, values: dict[str, SSAValue], layer: int, prefix: str) -> CallOp:
    """Bind the block's carries, states and step inputs by name; weights and caches bind at run
    time.
    """
    operands: list[SSAValue] = []
    assert block.arg_attrs is not None
    for attrs in block.arg_attrs.data:
        assert isinstance(attrs, builtin.DictionaryAttr)
        for role in ("carry", "state", "input"):
            name = attrs.data.get(f"lostwax.{role}")
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


def _size(dim: str | int) -> Size:
    """A number, `B + 1` or a single symbol."""
    total = Size.of(0)
    for term in str(dim).split(" + "):
        total = total + Size.of(int(term) if term.isdigit() else term)
    return total
