"""A Match of values given as plain data: what a lowering sees, without IR. Plans no memory.

Lets a kernel be compiled, launched and timed by itself; every boundary value and the workspace is
a buffer of its own (space `input`, by its pattern name).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from lostwax.backends.kernel_compiler import KernelCompiler
from lostwax.backends.lowering import Knobs, Lowering, Work
from lostwax.backends.plan.views import input_view, zeroed_view
from lostwax.ir.contract.cache_layout import row_bytes
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import Bucket, Const, Guard, Launch, View
from lostwax.ir.contract.scale_layout import ScaleLayout
from lostwax.ir.contract.target import Target

WORKSPACE = "workspace"


@dataclass(frozen=True, slots=True)
class Value:
    """A boundary or inner value; no strides means row-major, `parts` make it a cache.

    A cache's shape is (pages of the cache, page_tokens, row), or in a paged layout (pages, bytes of
    a page). `pages` of one request is the bucket's. Scales, where it has any, are a value of their
    own, `NAME:scale`.
    """

    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...] = ()
    parts: tuple[int, ...] = ()
    scale: ScaleLayout | None = None
    layout: str = ""
    """Byte layout of a cache, where it is not just its element type."""

    @property
    def page_tokens(self) -> int:
        """Tokens of a cache's page."""
        if len(self.shape) == 3:
            return self.shape[1]
        return self.shape[1] // row_bytes(self.layout, self.parts)

    @property
    def num_bytes(self) -> int:
        """Bytes from the first element to the last."""
        reach = sum((n - 1) * s for n, s in zip(self.shape, self.dense_strides, strict=True))
        return (reach + 1) * DTYPE_BYTES[self.dtype]

    @property
    def dense_strides(self) -> tuple[int, ...]:
        """Strides in elements."""
        dense = tuple(prod(self.shape[i + 1 :]) for i in range(len(self.shape)))
        return self.strides or dense


@dataclass
class PlainMatch:
    """Satisfies `lostwax.backends.lowering.Match`; kernels are built into `folder`.

    `built` (by source, may be shared by matches) spares compiling one again; `compiled` lists by
    file name what this match launches. `stored` has the weights that lie in a form of the
    lowering's, joined with others: what their views give, where `values` say what they are.
    """

    target: Target
    bucket: Bucket
    values: Mapping[str, Value]
    attributes: Mapping[tuple[str, str], Const]
    compiler: KernelCompiler
    folder: Path
    segment: str = "decode"
    guard: Guard = field(default_factory=lambda: Guard("always"))
    workspace_bytes: int = 0
    zeroed_bytes: int = 0
    compiled: dict[str, CompiledKernel] = field(default_factory=dict[str, CompiledKernel])
    built: dict[str, CompiledKernel] = field(default_factory=dict[str, CompiledKernel])
    stored: Mapping[str, Value] = field(default_factory=dict[str, Value])

    def shape(self, value: str) -> tuple[int, ...]:
        """Shape of a tensor; (pages of one request, page_tokens, row) of a cache."""
        found = self.values[value]
        if not found.parts:
            return found.shape
        return (self.bucket.pages, found.page_tokens, sum(found.parts))

    def dtype(self, value: str) -> str:
        """Element type."""
        return self.values[value].dtype

    def layout(self, value: str) -> str:
        """Byte layout of a cache: its element type where no other was given."""
        return self.values[value].layout or self.values[value].dtype

    def parts(self, value: str) -> tuple[int, ...]:
        """Widths of the parts of a cache's row."""
        return self.values[value].parts

    def is_scaled(self, value: str) -> bool:
        """Whether it was given with scales."""
        return self.values[value].scale is not None

    def scale(self, value: str) -> ScaleLayout | None:
        """How its scales lie."""
        return self.values[value].scale

    def is_rows(self, value: str) -> bool:
        """Whether there are as many as the bucket has rows."""
        return self.values[value].shape[0] == self.bucket.most_rows

    def attr(self, node: str, name: str) -> Const:
        """A property of a node's op."""
        return self.attributes[node, name]

    def work(self) -> Work:
        """Bytes of all values; no operations are counted."""
        return Work(sum(v.num_bytes for v in self.values.values()), 0)

    def view(self, value: str) -> View:
        """The whole buffer of a value."""
        v = self.stored.get(value) or self.values[value]
        return View(
            space="input", name=value, dtype=v.dtype, shape=v.shape, strides=v.dense_strides
        )

    def views(self, value: str) -> tuple[View, ...]:
        """A variadic operand, given as `NAME.0`, `NAME.1`, …; else a single one."""
        name, colon, scale = value.partition(":")
        names = [f"{name}.{i}{colon}{scale}" for i in range(len(self.values))]
        return tuple(self.view(n) for n in names if n in self.values) or (self.view(value),)

    def step(self, name: str) -> View:
        """Outputs of prepare are values too."""
        return self.view(name)

    def step_input(self, name: str) -> View:
        """A buffer of its own, too; under its own name."""
        return input_view(name, self.bucket)

    @property
    def workspace(self) -> View | None:
        """The declared workspace."""
        if not self.workspace_bytes:
            return None
        shape = (self.workspace_bytes,)
        return View(space="input", name=WORKSPACE, dtype="u8", shape=shape, strides=(1,))

    @property
    def zeroed(self) -> View | None:
        """The declared zeroed workspace."""
        return zeroed_view(self.zeroed_bytes)

    def build(self, source: KernelSource) -> CompiledKernel:
        """Compile once per distinct source."""
        key = repr(source)
        if key not in self.built:
            self.built[key] = self.compiler.compile(source, self.folder)
        kernel = self.compiled[self.built[key].binary] = self.built[key]
        return kernel

    def emit(self, lowering: Lowering, knobs: Knobs | None = None) -> tuple[Launch, ...]:
        """The lowering's launches here; raises ValueError with the predicate that refuses."""
        refusal = lowering.when.refusal(self)
        if refusal is not None:
            raise ValueError(f"{lowering.name}: {refusal}")
        chosen = lowering.default_knobs() | dict(knobs or {})
        self.workspace_bytes = lowering.workspace(self, chosen)
        self.zeroed_bytes = lowering.zeroed(self, chosen)
        return lowering.emit(self, chosen)
