"""What a field of an op may hold beside its shape: constraints for operand and result definitions.

`TensorType` itself in a field allows any dtype, with or without block scales: stored weights.
"""

from __future__ import annotations

from xdsl.dialects import builtin
from xdsl.irdl import (
    AnyAttr,
    AttrConstraint,
    EqAttrConstraint,
    MessageConstraint,
    ParamAttrConstraint,
)

from lostwax.ir.types import DTYPES, TensorType

_UNSCALED = EqAttrConstraint(builtin.NoneAttr())


def _of_dtype(name: str) -> AttrConstraint[TensorType]:
    wanted = ParamAttrConstraint(TensorType, (AnyAttr(), EqAttrConstraint(DTYPES[name]), _UNSCALED))
    return MessageConstraint(wanted, f"a plain {name} tensor is needed")


PLAIN: AttrConstraint[TensorType] = MessageConstraint(
    ParamAttrConstraint(TensorType, (AnyAttr(), AnyAttr(), _UNSCALED)),
    "a tensor without block scales is needed",
)
"""Values of any dtype; block-scaled ones are refused."""

F32 = _of_dtype("f32")
I32 = _of_dtype("i32")
