"""The digest of the code behind a lowering: what invalidates its records. Runs no kernel.

Digested are the launches as emitted for the candidate, the files of the function that emits them,
of every host function and kernel that they name, and of the `kernels` modules that those import.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from xdsl.ir import SSAValue

from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.storage import Storage
from lostwax.backends.plan.views import cache_view, dense, scale_shape
from lostwax.backends.plan.want import Want, want_of
from lostwax.backends.plan.weight_type import weight_types
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import HostCall, View
from lostwax.ir.contract.target import Target
from lostwax.ir.types import CacheType, TensorType


class _DryPlacement:
    """Satisfies `Placement` of `plan/candidate.py`: views that lie nowhere, no compiler."""

    def __init__(self, candidate: Candidate) -> None:
        wants = [want_of(candidate, operand) for operand in candidate.weight_operands]
        chosen: tuple[Want, ...] = tuple(w for w in wants if w is not None)
        self._storage = Storage(weight_types(candidate.block.function), chosen)
        self.sources: list[KernelSource] = []

    def value(self, value: SSAValue, candidate: Candidate, operand: str, scale: bool) -> View:
        """A dense view of the right shape."""
        if candidate.block.weight_name(value) is not None:
            return self._storage.view(value, candidate, operand, scale)
        kind = value.type
        if isinstance(kind, CacheType):
            return cache_view(kind, kind.plane.data)
        assert isinstance(kind, TensorType)
        shape = kind.at(candidate.context.env)
        if scale:
            return dense("arena", "", "f32", scale_shape(kind, shape))
        return dense("arena", "", kind.dtype_name, shape)

    def step(self, candidate: Candidate, name: str) -> View:
        """A step value of the lowering's own prepare."""
        assert candidate.lowering is not None
        for op in candidate.lowering.prepare(candidate):
            for output, dtype, shape in op.outputs:
                if output == name:
                    return dense("arena", "", dtype, shape)
        raise KeyError(f"{candidate.name} asks for step value {name!r}, which it never prepared")

    def workspace(self, candidate: Candidate) -> View | None:
        """The declared workspace."""
        lowering = candidate.lowering
        assert lowering is not None
        need = lowering.workspace(candidate, lowering.default_knobs())
        return dense("arena", "", "u8", (need,)) if need else None

    def build(self, source: KernelSource) -> CompiledKernel:
        """Remember the source; nothing is compiled."""
        self.sources.append(source)
        return CompiledKernel(
            binary="",
            symbol=source.symbol,
            digest="",
            num_warps=source.num_warps,
            shared_bytes=0,
            registers=0,
        )


def _module_file(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"module {module!r}, named by a lowering, has no source file")
    return Path(spec.origin)


@cache
def _kernel_imports(module: str) -> tuple[str, ...]:
    """Modules of `kernels` packages that a module imports, those of its imports too."""
    tree = ast.parse(_module_file(module).read_bytes())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        for name in names:
            if "kernels." in name and _is_module(name):
                found |= {name, *_kernel_imports(name)}
    return tuple(sorted(found))


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # a function of a module, not a module
        return False


@cache
def _digest_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kernel_file(source: KernelSource, target: Target) -> Path:
    """The file that holds a kernel's code."""
    if source.language == "triton":
        return _module_file(source.path)
    folder = _module_file(f"lostwax.backends.{target.backend}.kernels").parent
    return folder / source.path


def _parts(candidate: Candidate) -> Iterator[tuple[str, str]]:
    """Names and digests of everything that decides what the candidate's launches do."""
    lowering = candidate.lowering
    assert lowering is not None
    placement = _DryPlacement(candidate)
    launches = lowering.emit(replace(candidate, placement=placement), lowering.default_knobs())
    modules = {lowering.emit.__module__}
    modules |= {op.function.split(":")[0] for op in lowering.prepare(candidate)}
    modules |= {la.function.split(":")[0] for la in launches if isinstance(la, HostCall)}
    modules |= {s.path for s in placement.sources if s.language == "triton"}
    for module in modules | {m for name in modules for m in _kernel_imports(name)}:
        yield module, _digest_of_file(_module_file(module))
    for source in placement.sources:
        if source.language == "cuda":
            yield source.path, _digest_of_file(kernel_file(source, candidate.target))
    # What a helper that emits for many lowerings was told: constants, argument order, forms.
    yield "launches", hashlib.sha256(canonical(launches)).hexdigest()


def source_digest(candidate: Candidate) -> str:
    """sha256 over names and bytes of the files behind a candidate's lowering."""
    lines = sorted({f"{name} {digest}" for name, digest in _parts(candidate)})
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
