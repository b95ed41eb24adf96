"""Runs ops, functions and a captured module by their references: the executable fp64 model.

Each result is rounded to its type and nowhere else. Knows no particular op: `family.verb` is the
function `verb` (or `verb_`, where Python has the name) of `lostwax.ir.reference.family`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from importlib import import_module
from typing import Any

from xdsl.dialects import builtin, func
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import IRDLOperation, VarOperandDef
from xdsl.traits import SymbolTable

from lostwax.ir.dialects.core import CallOp
from lostwax.ir.reference.cache_bytes import Cache, CacheBytes
from lostwax.ir.reference.dtype import Array, Scaled, Value, round_to
from lostwax.ir.types import CacheType, TensorType

Bound = Value | CacheBytes
"""What a name of the program stands for."""
Values = MutableMapping[SSAValue, Bound]
WeightProvider = Callable[[str, Attribute], Value]
"""(full weight name, type of the argument) to the weight."""
Caches = MutableMapping[tuple[int, str], Cache]
"""(layer, plane) to that layer's pages [N, page_tokens, row], or their bytes in a scaled layout;
appends replace the entry."""


def meaning(op_name: str) -> Callable[..., Any]:  # Any: each reference has its own signature
    """The reference of an op."""
    family, verb = op_name.split(".", 1)
    try:
        module = import_module(f"lostwax.ir.reference.{family}")
    except ModuleNotFoundError as error:
        raise NotImplementedError(
            f"{op_name} has no reference; write it in ir/reference/{family}.py"
        ) from error
    found = getattr(module, f"{verb}_", None) or getattr(module, verb, None)
    if found is None:
        raise NotImplementedError(
            f"{op_name} has no reference; add the function {verb!r} to ir/reference/{family}.py"
        )
    return found


def _quantised_to(kind: TensorType, env: Mapping[str, int]) -> dict[str, Any]:
    assert kind.block_scale is not None  # the op's verifier
    return {"dtype": kind.dtype_name, "block": kind.block_scale.cols.data}


TOLD_BY_RESULT: dict[str, Callable[[TensorType, Mapping[str, int]], dict[str, Any]]] = {
    "core.reshape": lambda kind, env: {"shape": (-1, *kind.at(env)[1:])},
    "quant.quantise": _quantised_to,
}
"""Ops whose meaning is partly in their result's type, and what it tells the reference.

A reshape has as many rows as its operand leaves: a sample's are not those of the step's type.
"""


def plain(attribute: Attribute) -> int | float | bool | str:
    """A property as a Python value."""
    match attribute:
        case builtin.IntegerAttr():
            is_bool = attribute.type == builtin.i1
            return bool(attribute.value.data) if is_bool else attribute.value.data
        case builtin.FloatAttr():
            return attribute.value.data
        case builtin.StringAttr():
            return attribute.data
        case _:
            raise TypeError(f"property {attribute} has no plain Python value")


def round_result(kind: Attribute, value: Bound) -> Bound:
    """A result as its type stores it; scaled values and bytes are made so by their op."""
    if isinstance(value, Scaled | CacheBytes):
        return value
    match kind:
        case TensorType():
            return round_to(value, kind.dtype_name)
        case CacheType():
            assert kind.form.element is not None  # other layouts' caches are CacheBytes
            return round_to(value, kind.form.element)
        case _:
            raise TypeError(f"a value of type {kind} has no numpy form")


def _call_reference(
    op: IRDLOperation, values: Mapping[SSAValue, Bound], env: Mapping[str, int]
) -> tuple[Bound, ...]:
    operands: dict[str, Bound | list[Bound]] = {}
    for name, definition in op.get_irdl_definition().operands:
        bound = getattr(op, name)
        variadic = isinstance(definition, VarOperandDef)
        operands[name] = [values[v] for v in bound] if variadic else values[bound]
    constants = {name: plain(a) for name, a in op.properties.items()}
    if op.name in TOLD_BY_RESULT:
        kind = op.results[0].type
        assert isinstance(kind, TensorType)
        constants |= TOLD_BY_RESULT[op.name](kind, env)
    results: Any = meaning(op.name)(**operands, **constants)  # one array, or a tuple of them
    return results if len(op.results) > 1 else (results,)


def evaluate_ops(ops: Iterable[Operation], values: Values, env: Mapping[str, int]) -> None:
    """Add the results of `ops`, in their order, to `values`, each rounded to its type.

    env gives the symbols that reshapes need (`T`, …).
    """
    for op in ops:
        if not isinstance(op, IRDLOperation):
            raise TypeError(f"{op.name} is not a registered op; load its dialect before parsing")
        results = _call_reference(op, values, env)
        for result, value in zip(op.results, results, strict=True):
            values[result] = round_result(result.type, value)


def bind_symbols(kinds: Sequence[Attribute], values: Sequence[Bound]) -> dict[str, int]:
    """Symbol values implied by the arguments' shapes (`T`, `B + 1`); ValueError on a clash."""
    env: dict[str, int] = {}
    for kind, value in zip(kinds, values, strict=True):
        sizes = kind.sizes if isinstance(kind, TensorType) else ()
        if isinstance(kind, CacheType):
            sizes = (kind.pages.data,)
        for size, extent in zip(sizes, value.shape, strict=isinstance(kind, TensorType)):
            terms = size.terms
            constant = terms.pop((), 0)
            if len(terms) != 1:
                continue
            ((monomial, factor),) = terms.items()
            if len(monomial) != 1 or factor != 1:
                continue
            bound = env.setdefault(monomial[0], extent - constant)
            if bound != extent - constant:
                raise ValueError(
                    f"{kind} was given shape {value.shape}, but {monomial[0]} is already {bound}"
                )
    return env


def _evaluate_block(
    function: func.FuncOp,
    values: Values,
    env: Mapping[str, int],
    run_call: Callable[[CallOp, Values], None],
) -> func.ReturnOp:
    for op in function.body.block.ops:
        match op:
            case func.ReturnOp():
                return op
            case CallOp():
                run_call(op, values)
            case _:
                evaluate_ops([op], values, env)
    raise ValueError(f"function {function.sym_name.data!r} does not end in func.return")


def _refuse_call(op: CallOp, values: Values) -> None:
    raise ValueError("core.call needs weights and caches; use evaluate_step")


def evaluate_function(
    function: func.FuncOp, arguments: Sequence[Bound], env: Mapping[str, int] | None = None
) -> tuple[Bound, ...]:
    """Results of a block function; symbols are taken from the arguments' shapes and `env`."""
    block = function.body.block
    kinds = [a.type for a in block.args]
    symbols = {**bind_symbols(kinds, arguments), **(env or {})}
    values: dict[SSAValue, Bound] = dict(zip(block.args, arguments, strict=True))
    end = _evaluate_block(function, values, symbols, _refuse_call)
    return tuple(values[v] for v in end.operands)


def argument_attribute(function: func.FuncOp, index: int, name: str) -> str | None:
    """A string attribute of one argument (`lostwax.weight`, `lostwax.input`, …)."""
    if function.arg_attrs is None:
        return None
    found = function.arg_attrs.data[index].data.get(name)
    return found.data if isinstance(found, builtin.StringAttr) else None


def _weight_name(function: func.FuncOp, index: int) -> str:
    name = argument_attribute(function, index, "lostwax.weight")
    if name is None:
        raise ValueError(
            f"argument {index} of @{function.sym_name.data} carries no `lostwax.weight` attribute"
        )
    return name


def _run_call(op: CallOp, values: Values, weights: WeightProvider, caches: Caches) -> None:
    callee = SymbolTable.lookup_symbol(op, op.callee)
    if not isinstance(callee, func.FuncOp):
        raise ValueError(f"core.call: no function {op.callee}")
    layer = op.layer.value.data
    given = [values[v] for v in op.arguments]
    for index, argument in enumerate(callee.body.block.args):
        if index < len(op.arguments):
            continue
        if isinstance(argument.type, CacheType):
            given.append(caches[layer, argument.type.plane.data])
        else:
            name = op.prefix.data + _weight_name(callee, index)
            given.append(weights(name, argument.type))
    returned = evaluate_function(callee, given)
    kinds = callee.function_type.outputs.data
    tensors: list[Bound] = []
    for kind, value in zip(kinds, returned, strict=True):
        if isinstance(kind, CacheType):
            assert not isinstance(value, Scaled)  # caches are plain arrays
            caches[layer, kind.plane.data] = value
        else:
            tensors.append(value)
    values.update(zip(op.res, tensors, strict=True))


def evaluate_step(
    module: builtin.ModuleOp,
    entry: str,
    inputs: Mapping[str, Array],
    weights: WeightProvider,
    caches: Caches,
) -> tuple[Bound, ...]:
    """Results of the module's step function `entry`; `caches` are updated.

    inputs: step inputs by name, which are the arguments' `lostwax.input` or name hints.
    """
    function = SymbolTable.lookup_symbol(module, entry)
    if not isinstance(function, func.FuncOp):
        raise ValueError(f"the module has no step function @{entry}")
    given = [inputs[_input_name(function, i)] for i in range(len(function.body.block.args))]
    env = bind_symbols([a.type for a in function.body.block.args], given)
    values: dict[SSAValue, Bound] = dict(zip(function.body.block.args, given, strict=True))
    end = _evaluate_block(
        function, values, env, lambda op, now: _run_call(op, now, weights, caches)
    )
    return tuple(values[v] for v in end.operands)


def _input_name(function: func.FuncOp, index: int) -> str:
    hint = function.body.block.args[index].name_hint
    name = argument_attribute(function, index, "lostwax.input") or hint
    if name is None:
        raise ValueError(f"argument {index} of @{function.sym_name.data} names no step input")
    return name
