"""Builds a function body out of ONNX operators, as plain data. Knows no op of ours, no onnx.

Operators mean what ONNX says of those names; `ir/onnx.py` prints the result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lostwax.ir.size import Size

Array = NDArray[Any]  # Any: constants of every element type
Number = int | float


def fixed(size: Size) -> int:
    """A size without symbols: what a verifier has made sure of."""
    if size.constant is None:
        raise ValueError(f"size {size} must be a constant here")
    return size.constant


@dataclass(frozen=True, slots=True)
class Ref:
    """A node's attribute that is the function's attribute of this name."""

    name: str
    kind: Literal["value_int", "value_float", "value_ints"]


@dataclass(frozen=True, slots=True)
class Graph:
    """A subgraph (of `Scan`): inputs (name, dtype), outputs (name, dtype, number of axes).

    It sees the body's values too.
    """

    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str, int], ...]
    nodes: tuple[Node, ...]


Attr = int | str | tuple[int, ...] | Array | Ref | Graph


@dataclass(frozen=True, slots=True)
class Node:
    """One ONNX operator; attributes called `to` name a dtype as our types do."""

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attr]


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the body; arithmetic with it adds nodes. Numbers take its dtype."""

    body: Body
    name: str
    dtype: str

    def _with(self, op_type: str, other: Value | Number, dtype: str = "") -> Value:
        right = other if isinstance(other, Value) else self.body.constant(other, self.dtype)
        return self.body(op_type, self, right, dtype=dtype or self.dtype)

    def __add__(self, other: Value | Number) -> Value:
        return self._with("Add", other)

    def __sub__(self, other: Value | Number) -> Value:
        return self._with("Sub", other)

    def __mul__(self, other: Value | Number) -> Value:
        return self._with("Mul", other)

    def __truediv__(self, other: Value | Number) -> Value:
        return self._with("Div", other)

    def __floordiv__(self, other: Value | Number) -> Value:
        """ONNX's integer `Div` truncates: only for operands that are not negative."""
        return self._with("Div", other)

    def __mod__(self, other: Value | Number) -> Value:
        """ONNX's integer `Mod`: the sign of the divisor."""
        return self._with("Mod", other)

    def __matmul__(self, other: Value) -> Value:
        return self._with("MatMul", other)

    def __lt__(self, other: Value | Number) -> Value:
        return self._with("Less", other, "bool")

    def __le__(self, other: Value | Number) -> Value:
        return self._with("LessOrEqual", other, "bool")

    def __gt__(self, other: Value | Number) -> Value:
        return self._with("Greater", other, "bool")

    def __ge__(self, other: Value | Number) -> Value:
        return self._with("GreaterOrEqual", other, "bool")

    def __and__(self, other: Value) -> Value:
        return self._with("And", other)

    def equals(self, other: Value | Number) -> Value:
        """Elementwise equality."""
        return self._with("Equal", other, "bool")

    def to(self, dtype: str) -> Value:
        """Cast; fp8 saturates. Nothing where the dtype is the same."""
        if dtype == self.dtype:
            return self
        return self.body("Cast", self, dtype=dtype, to=dtype)

    def at(self, *axes: int) -> Value:
        """New axes of size 1 (`Unsqueeze`)."""
        return self.body("Unsqueeze", self, self.body.ints(*axes))

    def reshape(self, *shape: int) -> Value:
        """The same elements in another shape; -1 is inferred."""
        return self.body("Reshape", self, self.body.ints(*shape))

    def transpose(self, *perm: int) -> Value:
        """Axes permuted."""
        return self.body("Transpose", self, perm=perm)

    def columns(self, start: int, stop: int, axis: int = -1) -> Value:
        """Elements start..stop-1 of an axis (`Slice`)."""
        ints = self.body.ints
        return self.body("Slice", self, ints(start), ints(stop), ints(axis))

    def gather(self, index: Value, axis: int = 0) -> Value:
        """Entries of an axis by index (`Gather`)."""
        return self.body("Gather", self, index, axis=axis)

    def extent(self, axis: int) -> Value:
        """The size of an axis, as a vector of one i64."""
        end: dict[str, Attr] = {} if axis == -1 else {"end": axis + 1}
        return self.body("Shape", self, dtype="i64", start=axis, **end)


@dataclass
class Body:
    """A body in the making: call it with an operator's name and its inputs.

    `compute` is the dtype that real numbers are computed in.
    """

    compute: str
    inputs: dict[str, Value] = field(default_factory=dict[str, Value])
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    nodes: list[Node] = field(default_factory=list[Node])
    _count: int = 0

    def __call__(
        self, op_type: str, *inputs: Value, dtype: str | None = None, **attributes: Attr
    ) -> Value:
        """The one result of an operator, in the first input's dtype unless told otherwise."""
        given = dtype or inputs[0].dtype
        return self.several(op_type, inputs, (given,), **attributes)[0]

    def several(
        self, op_type: str, inputs: Sequence[Value], dtypes: Sequence[str], **attributes: Attr
    ) -> tuple[Value, ...]:
        """The results of an operator, with their dtypes."""
        outputs = tuple(self._fresh(d) for d in dtypes)
        names = tuple(v.name for v in inputs)
        self.nodes.append(Node(op_type, names, tuple(o.name for o in outputs), attributes))
        return outputs

    def _fresh(self, dtype: str) -> Value:
        self._count += 1
        return Value(self, f"v{self._count}", dtype)

    def input(self, name: str, dtype: str) -> None:
        """Declare an operand of the function."""
        self.inputs[name] = Value(self, name, dtype)

    def value(self, name: str) -> Value:
        """An operand as it comes."""
        return self.inputs[name]

    def real(self, name: str) -> Value:
        """An operand widened to the dtype that is computed in."""
        return self.inputs[name].to(self.compute)

    def index(self, name: str) -> Value:
        """An integer operand as i64."""
        return self.inputs[name].to("i64")

    def attribute(self, name: str, dtype: str | None = None) -> Value:
        """An attribute of the function as a scalar: floats in `compute`, integers in i64."""
        kind = self.attributes[name]
        if kind == "ints":
            return self("Constant", dtype="i64", value_ints=Ref(name, "value_ints"))
        if kind == "int":
            return self("Constant", dtype="i64", value_int=Ref(name, "value_int")).to(
                dtype or "i64"
            )
        return self("Constant", dtype="f32", value_float=Ref(name, "value_float")).to(
            dtype or self.compute
        )

    def constant(self, value: Number | bool | Array, dtype: str) -> Value:
        """A constant tensor."""
        numpy_dtype = {"f32": "f4", "f64": "f8", "i64": "i8", "i32": "i4", "bool": "?", "u8": "u1"}
        return self("Constant", dtype=dtype, value=np.asarray(value, numpy_dtype[dtype]))

    def ints(self, *values: int) -> Value:
        """A vector of i64."""
        return self.constant(np.asarray(values, np.int64), "i64")

    def counting(self, stop: Value) -> Value:
        """0 .. stop-1 for an i64 scalar, or a vector of one."""
        return self("Range", self.constant(0, "i64"), self.scalar(stop), self.constant(1, "i64"))

    def scalar(self, value: Value) -> Value:
        """The element of a vector of one, as a scalar; scalars stay."""
        shape = Value(self, self.constant(np.empty(0, np.int64), "i64").name, "i64")
        return self("Reshape", value, shape)

    def where(self, condition: Value, yes: Value | Number, no: Value | Number) -> Value:
        """`Where`; a number takes the dtype of the other choice."""
        dtype = next((v.dtype for v in (yes, no) if isinstance(v, Value)), "i64")
        a, b = (v if isinstance(v, Value) else self.constant(v, dtype) for v in (yes, no))
        return self("Where", condition, a, b, dtype=dtype)

    def top(self, x: Value, k: Value, *, largest: bool = True) -> tuple[Value, Value]:
        """Values and indexes of the k best of the last axis, sorted; the lowest index wins ties."""
        values, indexes = self.several(
            "TopK", (x, k), (x.dtype, "i64"), axis=-1, largest=int(largest), sorted=1
        )
        return values, indexes

    def scan(
        self,
        states: Sequence[Value],
        scanned: Sequence[Value],
        step: Callable[..., Sequence[Value]],
        axes: Sequence[int],
    ) -> tuple[Value, ...]:
        """Run `step(*states, *slices) -> states` over the first axis of `scanned` (`Scan`).

        `axes` counts each state's axes, which onnxruntime wants declared.
        """
        with self._subgraph() as nodes:
            inputs = [self._fresh(v.dtype) for v in (*states, *scanned)]
            outputs = [self("Identity", v) for v in step(*inputs)]
        graph = Graph(
            tuple((v.name, v.dtype) for v in inputs),
            tuple((v.name, v.dtype, n) for v, n in zip(outputs, axes, strict=True)),
            tuple(nodes),
        )
        return self.several(
            "Scan",
            (*states, *scanned),
            [s.dtype for s in states],
            num_scan_inputs=len(scanned),
            body=graph,
        )

    @contextmanager
    def _subgraph(self) -> Generator[list[Node]]:
        outer, self.nodes = self.nodes, []
        try:
            yield self.nodes
        finally:
            self.nodes = outer


@dataclass(frozen=True, slots=True)
class Function:
    """An op in ONNX operators: what a FunctionProto holds."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    nodes: tuple[Node, ...]
    signature: str
