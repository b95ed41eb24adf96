"""A deliberately wrong ONNX body disagrees with its op's reference."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_body import Body, Change
from onnx_places import DENSE, SCORE, SPARSE, cases, certified, places

from lostwax.backends.proof.check import NotConformant


def _becomes(old: str, new: str, nth: int = 0, **attributes: int | str) -> Change:
    """The nth operator `old` becomes `new`, with some attributes changed."""

    def change(proto: Body) -> None:
        node = [n for n in proto.node if n.op_type == old][nth]
        node.op_type = new
        for name, value in attributes.items():
            kept = [a for a in node.attribute if a.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def _takes(op_type: str, position: int, constant: int, nth: int = 0) -> Change:
    """The constant that the nth operator `op_type` reads at `position` becomes another."""

    def change(proto: Body) -> None:
        node = [n for n in proto.node if n.op_type == op_type][nth]
        made = next(n for n in proto.node if node.input[position] in n.output)
        assert made.op_type == "Constant"
        old = numpy_helper.to_array(made.attribute[0].t)
        made.attribute[0].t.CopyFrom(numpy_helper.from_array(np.full_like(old, constant)))

    return change


def _reversed(op_type: str) -> Change:
    """The first operator `op_type` reads its inputs in reverse."""

    def change(proto: Body) -> None:
        node = next(n for n in proto.node if n.op_type == op_type)
        names = list(reversed(node.input))
        del node.input[:]
        node.input.extend(names)

    return change


def _in_scan(change: Change) -> Change:
    """The change, in the body of the function's loop."""

    def inner(proto: Body) -> None:
        (scan,) = (n for n in proto.node if n.op_type == "Scan")
        (body,) = (a for a in scan.attribute if a.name == "body")
        change(body.g)

    return inner


def _written(reduction: str) -> Change:
    return _becomes("ScatterND", "ScatterND", reduction=reduction)


_last_of_equals = _becomes("ArgMax", "ArgMax", select_last_index=1)

# (format, op, what is wrong with it, how)
SPOILT: list[tuple[str, str, str, Change]] = [
    ("f32", "core.add", "subtracts", _becomes("Add", "Sub")),
    ("f32", "core.rms_norm", "forgets the width", _becomes("ReduceMean", "ReduceSum")),
    ("f32", "core.layer_norm", "subtracts the bias", _becomes("Add", "Sub", 1)),
    ("f32", "core.silu_mul", "uses another curve", _becomes("Sigmoid", "Tanh")),
    ("f32", "core.rope", "pairs halves as neighbours", _takes("Equal", 1, 0)),
    ("f32", "core.gather_rows", "takes row 0 for padding", _becomes("GreaterOrEqual", "Greater")),
    ("fp8", "quant.linear", "takes another block's scale", _takes("Div", 1, 256)),
    ("fp8-656", "quant.quantise", "has no least scale", _becomes("Max", "Min")),
    ("fp8-656", "dsa.hadamard", "takes other signs", _becomes("BitwiseAnd", "BitwiseOr")),
    ("f32", "kv.append", "adds to what is there", _written("add")),
    ("f32", "kv.append", "swaps the parts", _reversed("Concat")),
    ("f32", "dsa.index_logits", "keeps negative scores", _becomes("Relu", "Identity")),
    ("f32", "dsa.index_logits", "hides a row from itself", _becomes("Greater", "GreaterOrEqual")),
    ("f32", "dsa.topk", "lets NaN rank first", _becomes("IsNaN", "IsInf")),
    ("f32", "dsa.topk", "gives positions descending", _becomes("TopK", "TopK", 1, largest=1)),
    ("f32", "dsa.all", "hides a row from itself", _becomes("LessOrEqual", "Less")),
    ("f32", "mla.attend", "never sees position 0", _becomes("GreaterOrEqual", "Greater")),
    ("f32", "mla.attend", "reads another's pages", _becomes("LessOrEqual", "Less")),
    ("f32", "moe.route", "scores a group by its best", _becomes("ReduceSum", "ReduceMax")),
    ("f32", "moe.experts", "keeps the largest", _in_scan(_written("max"))),
    ("f32", "sample.pick", "lets the last of equals win", _last_of_equals),
    ("f32", "sample.mask", "forbids where there is no mask", _becomes("Or", "And")),
    ("f32", "sample.mask", "shifts bits the other way", _becomes("Div", "Mul")),
    ("f32", "sample.nucleus", "counts an id's own mass", _becomes("CumSum", "CumSum", exclusive=0)),
    ("f32", "sample.nucleus", "keeps the least likely", _becomes("TopK", "TopK", largest=0)),
    ("f32", "sample.logprob", "gives the probability", _becomes("LogSoftmax", "Softmax")),
    ("f32", "sample.score", "gives the least likely", _becomes("TopK", "TopK", largest=0)),
]


@pytest.mark.parametrize(
    ("name", "op", "fault", "change"), SPOILT, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_wrong_decomposition_is_caught(name: str, op: str, fault: str, change: Change) -> None:
    in_head = op == "core.gather_rows" or op.startswith("sample.")
    variant = SCORE if in_head else DENSE if op == "dsa.all" else SPARSE
    matches = [m for m in places(name, variant) if m.ops["op"].name == op]
    assert matches
    caught = False
    for match in matches:
        try:
            certified(match, cases(name, variant), change=change)
        except NotConformant:
            caught = True
        except (IndexError, StopIteration):
            continue  # this signature's body has no such operator
    assert caught
