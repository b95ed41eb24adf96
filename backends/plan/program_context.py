"""One program to compile: its graph, segment, bucket and guard. Knows no lowering, no memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from xdsl.dialects import builtin, func
from xdsl.ir import BlockArgument, SSAValue

from lostwax.backends.plan.row_axes import Axes
from lostwax.backends.plan.state_rows import StateRows
from lostwax.ir.contract.program import Bucket, Guard, Segment
from lostwax.ir.contract.scale_layout import StoredFormat
from lostwax.ir.contract.target import Target
from lostwax.ir.dialects.core import CallOp
from lostwax.ir.scale_layouts import STORED, StoredAttr


@dataclass(frozen=True, eq=False)
class BlockFunction:
    """A block kind's function, with what its arguments stand for."""

    function: func.FuncOp

    @property
    def name(self) -> str:
        """The block kind."""
        return self.function.sym_name.data

    def _argument_attr(self, value: SSAValue, key: str) -> str | None:
        if not isinstance(value, BlockArgument) or self.function.arg_attrs is None:
            return None
        attr = self.function.arg_attrs.data[value.index].data.get(key)
        return attr.data if isinstance(attr, builtin.StringAttr) else None

    def weight_name(self, value: SSAValue) -> str | None:
        """The logical weight name (relative to the call's prefix) of an argument, else None."""
        return self._argument_attr(value, "lostwax.weight")

    def stored_format(self, value: BlockArgument) -> StoredFormat | None:
        """How the checkpoint stores a weight argument, None where the module does not say."""
        attrs = self.function.arg_attrs
        found = attrs.data[value.index].data.get(STORED) if attrs else None
        return found.format if isinstance(found, StoredAttr) else None

    def input_name(self, value: SSAValue) -> str | None:
        """The step input of an argument, else None."""
        return self._argument_attr(value, "lostwax.input")

    def carry_name(self, value: SSAValue) -> str | None:
        """`delta` or `residual` for the carried arguments, else None."""
        return self._argument_attr(value, "lostwax.carry")

    def state_name(self, value: SSAValue) -> str | None:
        """The state that outlives the step (`HIDDEN`) of an argument, else None."""
        return self._argument_attr(value, "lostwax.state")

    @cached_property
    def state_results(self) -> dict[SSAValue, str]:
        """Returned values that outlive the step, with the state's name."""
        returned, attrs = self.function.body.block.last_op, self.function.res_attrs
        assert isinstance(returned, func.ReturnOp)
        found: dict[SSAValue, str] = {}
        for value, each in zip(returned.arguments, attrs.data if attrs else (), strict=False):
            if isinstance(name := each.data.get("lostwax.state"), builtin.StringAttr):
                found[value] = name.data
        return found


@dataclass(frozen=True, eq=False)
class ProgramContext:
    """A specialised module with the sizes of one bucket under one guard."""

    module: builtin.ModuleOp
    target: Target
    segment: Segment
    bucket: Bucket
    guard: Guard
    states: StateRows | None = None
    """Of the states that it shares with its artifact's other programs; None where there is no
    artifact: `StateRows.least`."""

    @cached_property
    def env(self) -> dict[str, int]:
        """Symbol values. N (pages of the cache) is known only when serving, and stays out."""
        b, states = self.bucket, self.states or StateRows.least(self.bucket)
        return {"T": b.tokens, "B": b.reqs, "P": b.pages, "R": b.rows, **states.env}

    @cached_property
    def axes(self) -> Axes:
        """What first axes of its values are."""
        return Axes(self.bucket.rows_a_req if self.segment == "decode" else None)

    @cached_property
    def functions(self) -> dict[str, func.FuncOp]:
        """Every function of the module by name."""
        return {f.sym_name.data: f for f in self.module.ops if isinstance(f, func.FuncOp)}

    @cached_property
    def calls(self) -> tuple[CallOp, ...]:
        """The segment's block calls in order."""
        return tuple(
            o for o in self.functions[self.segment].body.block.ops if isinstance(o, CallOp)
        )

    @cached_property
    def blocks(self) -> dict[str, BlockFunction]:
        """The block kinds that the segment calls, in order of first use."""
        names = dict.fromkeys(c.callee.root_reference.data for c in self.calls)
        return {n: BlockFunction(self.functions[n]) for n in names}

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.segment} {self.bucket} under {self.guard}"
