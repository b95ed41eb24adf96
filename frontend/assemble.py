"""Puts block functions together: `@step` and `@step_scores` call one a layer, `@draft` the MTP
layer. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import builtin, func
from xdsl.ir import Block, Region, SSAValue

from lostwax.ir.contract.step import DRAFT_INPUTS, HIDDEN, STEP_INPUTS
from lostwax.ir.dialects.core import CallOp
from lostwax.ir.size import Size
from lostwax.ir.types import TensorType

MAIN_INPUTS = tuple(name for name in STEP_INPUTS if name not in DRAFT_INPUTS)


def assemble(
    blocks: Sequence[func.FuncOp], layers: Sequence[str], mtp_layers: Sequence[int] = ()
) -> builtin.ModuleOp:
    """The whole model. `layers` names the block of each layer, in order."""
    by_name = {b.sym_name.data: b for b in blocks}
    steps = [
        _main(by_name, layers, "step", "head"),
        _main(by_name, layers, "step_scores", "head_scores"),
    ]
    steps += [_draft(by_name, layer) for layer in mtp_layers]
    return builtin.ModuleOp([*blocks, *steps])


class _Step:
    """A step function that grows by one call of a block after another."""

    def __init__(self, blocks: dict[str, func.FuncOp], inputs: Sequence[str]) -> None:
        self.blocks, self.inputs = blocks, inputs
        self.body = Block(arg_types=[_input_type(n) for n in inputs])
        self.values: dict[str, SSAValue] = dict(zip(inputs, self.body.args, strict=True))
        self.arg_attrs = [{"lostwax.input": n} for n in inputs]
        for hint, argument in self.values.items():
            argument.name_hint = hint

    def state(self, name: str, kind: TensorType) -> None:
        """One argument more: rows that an earlier step left."""
        self.values[name] = self.body.insert_arg(kind, len(self.body.args))
        self.values[name].name_hint = name
        self.arg_attrs.append({"lostwax.state": name})

    def call(self, callee: str, layer: int, prefix: str) -> tuple[SSAValue, ...]:
        """Results of a block with one layer's weights."""
        op = _call(self.blocks[callee], self.values, layer, prefix)
        self.body.add_op(op)
        return tuple(op.res)

    def function(self, name: str, results: Sequence[SSAValue], state: SSAValue | None):
        """The finished function; `state` is the result that outlives the step."""
        self.body.add_op(func.ReturnOp(*results))
        res_attrs = [{"lostwax.state": HIDDEN} if r is state else {} for r in results]
        return func.FuncOp(
            name,
            ([a.type for a in self.body.args], [r.type for r in results]),
            Region(self.body),
            arg_attrs=_texts(self.arg_attrs),
            res_attrs=None if state is None else _texts(res_attrs),
        )


def _texts(dictionaries: Sequence[dict[str, str]]) -> builtin.ArrayAttr[builtin.DictionaryAttr]:
    return builtin.ArrayAttr(
        [
            builtin.DictionaryAttr({k: builtin.StringAttr(v) for k, v in d.items()})
            for d in dictionaries
        ]
    )


def _main(
    blocks: dict[str, func.FuncOp], layers: Sequence[str], name: str, head: str
) -> func.FuncOp:
    step = _Step(blocks, MAIN_INPUTS)
    results = step.call("embed", 0, "")
    for layer, kind in enumerate(layers):
        step.values["delta"], step.values["residual"] = results
        results = step.call(kind, layer, f"model.layers.{layer}.")
    step.values["delta"], step.values["residual"] = results
    results = step.call(head, 0, "")
    keeps_hidden = blocks[head].res_attrs is not None
    return step.function(name, results, results[-1] if keeps_hidden else None)


def _draft(blocks: dict[str, func.FuncOp], layer: int) -> func.FuncOp:
    step = _Step(blocks, tuple(STEP_INPUTS))
    mtp = blocks["mtp"]
    attrs = mtp.arg_attrs
    assert attrs is not None
    (place,) = [i for i, a in enumerate(attrs.data) if "lostwax.state" in a.data]
    kind = mtp.body.block.args[place].type
    assert isinstance(kind, TensorType)
    step.state(HIDDEN, kind)
    step.values["delta"], step.values["residual"] = step.call("embed", 0, "")
    (hidden,) = step.call("mtp", layer, f"model.layers.{layer}.")
    step.values[HIDDEN] = hidden
    results = step.call("draft_head", 0, "")
    return step.function("draft", (*results, hidden), hidden)


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


def _size(dim: str) -> Size:
    """`B + 1` or a single symbol."""
    total = Size.of(0)
    for term in dim.split(" + "):
        total = total + Size.of(int(term) if term.isdigit() else term)
    return total
