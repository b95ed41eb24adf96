"""Gives the caches of one function their layouts, with the ops that round what enters and meets
them. Part of assign-formats; knows caches by the ops that read them, never by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from xdsl.dialects import builtin, func
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.exceptions import PassFailedException

from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.dialects.core import CastOp
from lostwax.ir.dialects.dsa import HadamardOp, IndexLogitsOp
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.dialects.quant import QuantiseOp
from lostwax.ir.scale_layouts import BlockScaleAttr
from lostwax.ir.types import DTYPES, CacheType, TensorType, tensor

Op = TypeVar("Op", bound=Operation)

FIRST_ROW = 1
"""Position of kv.append's first row among its operands."""


def _insert(op: Operation, user: Operation, position: int) -> None:
    """Put `op` before its user, which reads it from now on."""
    Rewriter.insert_op(op, InsertPoint.before(user))
    op.results[0].name_hint = user.operands[position].name_hint
    user.operands[position] = op.results[0]


def quantised(x: SSAValue, dtype: str, block: int, scale_fmt: str) -> QuantiseOp:
    """The op that rounds x to 8 bits, one scale a row and block."""
    kind = tensor(x.type, "quant.quantise")
    scale = BlockScaleAttr(builtin.IntAttr(1), builtin.IntAttr(block), builtin.f32)
    return QuantiseOp.create(
        operands=[x],
        properties={"scale_fmt": builtin.StringAttr(scale_fmt)},
        result_types=[TensorType.of(kind.sizes, dtype, scale)],
    )


def _quantise(user: Operation, position: int, layout: str, scale_fmt: str) -> None:
    form = LAYOUTS[layout]
    op = quantised(user.operands[position], form.dtypes[0], form.scale_block, scale_fmt)
    _insert(op, user, position)


def _rotate(user: Operation, position: int) -> None:
    """The Hadamard rotation before what is quantised next."""
    x = user.operands[position]
    width = tensor(x.type, "dsa.hadamard").sizes[-1].constant or 0
    if width < 1 or width & (width - 1):
        raise PassFailedException(
            f"assign-formats: the fp8 indexer rotates heads of a power of two, not of {width}; "
            "use indexer=bf16"
        )
    _insert(HadamardOp.create(operands=[x], result_types=[x.type]), user, position)


def _values_of(argument: SSAValue) -> list[SSAValue]:
    """A cache argument and what appends make of it."""
    found = [argument]
    for value in found:
        users = [use.operation for use in value.uses]
        found += [op.out for op in users if isinstance(op, AppendOp) and op.cache_in is value]
    return found


def _users(values: Sequence[SSAValue], kind: type[Op]) -> Iterator[Op]:
    """The ops of one class that use some of the values, in no particular order."""
    seen: set[Operation] = set()
    for value in values:
        for use in list(value.uses):
            if isinstance(use.operation, kind) and use.operation not in seen:
                seen.add(use.operation)
                yield use.operation


def _lay_out(values: Sequence[SSAValue], layout: str) -> list[SSAValue]:
    """The values that take the place of the given ones: a new type makes a new value."""
    laid: list[SSAValue] = []
    for value in values:
        kind = value.type
        assert isinstance(kind, CacheType)
        if kind.layout.data != layout:
            value = Rewriter.replace_value_with_new_type(value, kind.laid_out(layout))
        laid.append(value)
    return laid


def _set_latent(values: Sequence[SSAValue], layout: str, scale_fmt: str) -> None:
    values = _lay_out(values, layout)
    if LAYOUTS[layout].scale_block:
        for append in _users(values, AppendOp):
            _quantise(append, FIRST_ROW, layout, scale_fmt)


def _set_index_keys(values: Sequence[SSAValue], layout: str, scale_fmt: str) -> None:
    values = _lay_out(values, layout)
    if LAYOUTS[layout].scale_block:
        for append in _users(values, AppendOp):
            _rotate(append, FIRST_ROW)
            _quantise(append, FIRST_ROW, layout, scale_fmt)
        for logits in _users(values, IndexLogitsOp):
            _rotate(logits, 0)
            _quantise(logits, 0, layout, scale_fmt)
        return
    for logits in _users(values, IndexLogitsOp):
        q = tensor(logits.q.type, "dsa.index_logits")
        if q.dtype_name != layout:
            rounded = TensorType.of(q.sizes, DTYPES[layout])
            _insert(CastOp.create(operands=[logits.q], result_types=[rounded]), logits, 0)


def set_caches(
    function: func.FuncOp,
    latent: tuple[str, str] | None,
    index_keys: tuple[str, str] | None,
) -> None:
    """Lay out the caches that mla.attend and dsa.index_logits read: (layout, scale_fmt) each.

    None leaves a cache as it is. Rewrites in place.
    """
    for argument in function.body.block.args:
        if not isinstance(argument.type, CacheType):
            continue
        values = _values_of(argument)
        if latent is not None and any(_users(values, AttendOp)):
            _set_latent(values, *latent)
        if index_keys is not None and any(_users(values, IndexLogitsOp)):
            _set_index_keys(values, *index_keys)
    function.update_function_type()
