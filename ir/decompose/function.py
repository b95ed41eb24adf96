"""The function of an op: declares its operands and attributes, asks its family for the body.

Knows no particular op: `family.verb` is the function `verb` (or `verb_`, where Python has the name)
of `lostwax.ir.decompose.family`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Literal

from xdsl.dialects import builtin
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation, VarOperandDef

from lostwax.ir.decompose.body import Body, Function, Node, Value
from lostwax.ir.decompose.cache_bytes import element_of
from lostwax.ir.types import CacheType, TensorType

Constant = int | float | str | list[int]
Kind = Literal["int", "float", "string", "ints"]


class NoDecomposition(NotImplementedError):
    """An op or type has no meaning in ONNX operators yet; the message says where to write it."""


def _meaning(op_name: str) -> Callable[..., Value | tuple[Value, ...]]:
    family, verb = op_name.split(".", 1)
    try:
        module = import_module(f"lostwax.ir.decompose.{family}")
    except ModuleNotFoundError as error:
        raise NoDecomposition(
            f"{op_name} has no decomposition; write it in ir/decompose/{family}.py"
        ) from error
    found = getattr(module, f"{verb}_", None) or getattr(module, verb, None)
    if found is None:
        raise NoDecomposition(
            f"{op_name} has no decomposition; add the function {verb!r} to ir/decompose/{family}.py"
        )
    return found


def dtypes_of(kind: Attribute) -> tuple[str, ...]:
    """Element types of the ONNX tensors that hold a value: two where it has block scales."""
    match kind:
        case TensorType() if kind.block_scale is not None:
            return kind.dtype_name, str(kind.block_scale.dtype)
        case TensorType():
            return (kind.dtype_name,)
        case CacheType():
            return (element_of(kind),)
        case _:
            raise NoDecomposition(f"a value of type {kind} has no ONNX form")


def operands_of(op: IRDLOperation) -> Iterator[tuple[str, SSAValue]]:
    """Operands by field, those of a variadic field as `field_0`, `field_1`, …"""
    for name, definition in op.get_irdl_definition().operands:
        bound = getattr(op, name)
        if isinstance(definition, VarOperandDef):
            yield from ((f"{name}_{i}", value) for i, value in enumerate(bound))
        else:
            yield name, bound


def inputs_of(op: IRDLOperation) -> dict[str, str]:
    """The function's inputs and their element types: `field`, and `field_scale` where scaled."""
    return {n: d for field, v in operands_of(op) for n, d in _tensors(field, v.type)}


def outputs_of(op: IRDLOperation) -> dict[str, str]:
    """The function's outputs and their element types: `result_out`, and `result_out_scale`."""
    names = [f"{name}_out" for name, _ in op.get_irdl_definition().results]
    results = zip(names, op.results, strict=True)
    return {n: d for field, v in results for n, d in _tensors(field, v.type)}


def _tensors(name: str, kind: Attribute) -> Iterator[tuple[str, str]]:
    return zip((name, f"{name}_scale"), dtypes_of(kind), strict=False)


def constants_of(op: IRDLOperation) -> dict[str, Constant]:
    """An op's properties as ONNX attributes; a reshape's shape (-1: what is symbolic) is one."""
    found: dict[str, Constant] = {}
    for name, value in op.properties.items():
        match value:
            case builtin.IntegerAttr():
                number = value.value.data
                found[name] = number & 1 if value.type == builtin.i1 else number
            case builtin.FloatAttr():
                found[name] = value.value.data
            case builtin.StringAttr():
                found[name] = value.data
            case _:
                raise NoDecomposition(f"{op.name}: property {name} = {value} has no ONNX form")
    if op.name == "core.reshape":
        kind = op.results[0].type
        assert isinstance(kind, TensorType)
        sizes = [-1 if s.constant is None else s.constant for s in kind.sizes]
        if sizes.count(-1) > 1:
            raise NoDecomposition(f"core.reshape to {kind}: ONNX infers one symbolic size at most")
        found["shape"] = sizes
    return found


KINDS: dict[type, Kind] = {int: "int", float: "float", str: "string", list: "ints"}


def signature(op: IRDLOperation) -> str:
    """The op's name and the element types of its operands and results."""
    sides = ((v.type for v in values) for values in (op.operands, op.results))
    types = [", ".join(" * ".join(dtypes_of(kind)) for kind in side) for side in sides]
    return f"{op.name} ({types[0]}) -> ({types[1]})"


def decompose(op: IRDLOperation, compute: str = "f32") -> Function:
    """The op in ONNX operators; real numbers are computed in `compute`, f32 or f64."""
    constants: Mapping[str, Constant] = constants_of(op)
    body = Body(compute, attributes={n: KINDS[type(c)] for n, c in constants.items()})
    for name, dtype in inputs_of(op).items():
        body.input(name, dtype)
    given = _meaning(op.name)(body, op)
    values = (given,) if isinstance(given, Value) else given
    outputs = outputs_of(op)
    for (name, dtype), value in zip(outputs.items(), values, strict=True):
        stored = value.to(dtype)  # rounds as the result's type says
        body.nodes.append(Node("Identity", (stored.name,), (name,), {}))
    return Function(
        name=op.name.replace(".", "_"),
        inputs=tuple(body.inputs),
        outputs=tuple(outputs),
        attributes=tuple(constants),
        nodes=tuple(body.nodes),
        signature=signature(op),
    )
