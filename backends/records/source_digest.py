"""The digest of the code behind a lowering: what invalidates its records. Runs no kernel.

Digested are the launches and kernel requests as emitted for the candidate (at the first setting of
the knobs, and at every other value of one of them), the file of the function that emits them, the
files of every host function and kernel that they name, and every module of ours that those import.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

from msgspec import structs
from xdsl.ir import SSAValue

from lostwax.backends.gpu_kernels.cuda_files import cuda_files
from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.kernel_requests import stand_in
from lostwax.backends.plan.storage import Storage
from lostwax.backends.plan.views import (
    cache_view,
    dense,
    input_view,
    scale_shape,
    zeroed_view,
)
from lostwax.backends.plan.want import Want, want_of
from lostwax.backends.plan.weight_type import weight_types
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import HostCall, Launch, View
from lostwax.ir.contract.step import StepOp
from lostwax.ir.contract.step_kernel import Prepared, StepKernel
from lostwax.ir.contract.target import Target
from lostwax.ir.types import CacheType, TensorType

TORCH = "torch"
"""What every host call runs."""


class _DryPlacement:
    """Satisfies `Placement` of `plan/candidate.py`: views that lie nowhere, no compiler.

    Each is named by the operand that it is: which of a model's weights it is does not count.
    """

    def __init__(self, candidate: Candidate, knobs: Mapping[str, int]) -> None:
        wants = [want_of(candidate, operand) for operand in candidate.weight_operands]
        chosen: tuple[Want, ...] = tuple(w for w in wants if w is not None)
        self._storage = Storage(weight_types(candidate.block.function), chosen)
        self._knobs = knobs
        self.sources: list[KernelSource] = []

    def value(self, value: SSAValue, candidate: Candidate, operand: str, scale: bool) -> View:
        """A dense view of the right shape."""
        view = self._view(value, candidate, operand, scale)
        bound = candidate.region.values[operand]
        place = f"[{bound.index(value)}]" if isinstance(bound, tuple) else ""
        return structs.replace(view, name=f"{operand}{place}{':scale' * scale}")

    def _view(self, value: SSAValue, candidate: Candidate, operand: str, scale: bool) -> View:
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
        for op in _lowering(candidate).prepare(candidate, self._knobs):
            for output, dtype, shape in op.outputs:
                if output == name:
                    return dense("arena", f"step {name}", dtype, shape)
        raise KeyError(f"{candidate.name} asks for step value {name!r}, which it never prepared")

    def step_input(self, candidate: Candidate, name: str) -> View:
        """A step input."""
        return input_view(name, candidate.bucket)

    def workspace(self, candidate: Candidate) -> View | None:
        """The declared workspace."""
        need = _lowering(candidate).workspace(candidate, self._knobs)
        return dense("arena", "workspace", "u8", (need,)) if need else None

    def zeroed(self, candidate: Candidate) -> View | None:
        """The declared zeroed workspace."""
        return zeroed_view(_lowering(candidate).zeroed(candidate, self._knobs))

    def build(self, source: KernelSource) -> CompiledKernel:
        """Remember the source, whose digest stands for the binary; nothing is compiled."""
        self.sources.append(source)
        return stand_in(source)


def _lowering(candidate: Candidate) -> Lowering:
    assert candidate.lowering is not None  # views have no key
    return candidate.lowering


def _settings(lowering: Lowering) -> Iterator[dict[str, int]]:
    """The first setting, then every other value of one knob."""
    first = lowering.default_knobs()
    yield first
    for knob in lowering.knobs:
        yield from (first | {knob.name: value} for value in knob.values[1:])


@dataclass(frozen=True)
class _Emitted:
    """What a lowering emits, for all its settings."""

    launches: list[tuple[Launch, ...]] = field(default_factory=list[tuple[Launch, ...]])
    prepared: list[Prepared] = field(default_factory=list[Prepared])
    sources: list[KernelSource] = field(default_factory=list[KernelSource])

    @property
    def host_functions(self) -> frozenset[str]:
        """What its launches and its prepares call on the host, as `module:name`."""
        calls = (each for some in self.launches for each in some if isinstance(each, HostCall))
        prepared = (op for op in self.prepared if isinstance(op, StepOp))
        return frozenset(call.function for call in (*calls, *prepared))


def _emitted(candidate: Candidate) -> _Emitted:
    lowering, found = _lowering(candidate), _Emitted()
    for knobs in _settings(lowering):
        placement = _DryPlacement(candidate, knobs)
        found.launches.append(lowering.emit(replace(candidate, placement=placement), knobs))
        prepared = lowering.prepare(candidate, knobs)
        found.prepared.extend(prepared)
        made = [op.source for op in prepared if isinstance(op, StepKernel)]
        found.sources.extend((*placement.sources, *made))
    return found


def _module_file(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"module {module!r}, named by a lowering, has no source file")
    return Path(spec.origin)


def _imports(module: str) -> frozenset[str]:
    """Modules that a file imports, wherever in it."""
    package = module if _module_file(module).name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(_module_file(module).read_bytes())):
        if isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(found)


@cache
def _imported(module: str) -> frozenset[str]:
    """Modules of our own (of the same top-level package) behind a module's code, itself too."""
    own = module.partition(".")[0]
    found, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] != own or not _is_module(name):
            continue
        found.add(name)
        waiting += _imports(name)
    return frozenset(found)


def _is_module(name: str) -> bool:
    """Whether a module, not a name in one, is called so; only packages on the way are imported."""
    package = name.rpartition(".")[0]
    if package and not _is_package(package):
        return False
    return find_spec(name) is not None


def _is_package(name: str) -> bool:
    spec = find_spec(name) if _is_module(name) else None
    return spec is not None and spec.submodule_search_locations is not None


def _digest_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kernel_files(source: KernelSource, target: Target) -> tuple[Path, ...]:
    """The files that hold a kernel's code, those that they import too."""
    if source.language == "triton":
        return tuple(_module_file(module) for module in sorted(_imported(source.path)))
    folder = _module_file(f"lostwax.backends.{target.backend}.kernels").parent
    return tuple(folder / name for name in cuda_files(folder, source.path))


def kernel_code(source: KernelSource, target: Target) -> str:
    """sha256 over the kernel's files, in order of content: no path may get in."""
    each = sorted(map(_digest_of_file, kernel_files(source, target)))
    return hashlib.sha256("".join(each).encode()).hexdigest()


def _digests(candidate: Candidate, emitted: _Emitted) -> Iterator[tuple[str, str]]:
    """Names and digests of everything that decides what the candidate's launches do."""
    lowering = _lowering(candidate)
    code = {function.split(":")[0] for function in emitted.host_functions}
    code |= {s.path for s in emitted.sources if s.language == "triton"}
    for module in {lowering.emit.__module__}.union(*map(_imported, code)):
        yield module, _digest_of_file(_module_file(module))
    for source in emitted.sources:
        yield f"{candidate.target.arch} {source.symbol}", source.digest()
        if source.language == "cuda":
            for file in kernel_files(source, candidate.target):
                yield file.name, _digest_of_file(file)
    # What a helper that emits for many lowerings was told: constants, argument order, forms.
    yield "launches", hashlib.sha256(canonical(emitted.launches)).hexdigest()
    yield "prepared", hashlib.sha256(canonical(emitted.prepared)).hexdigest()


@dataclass(frozen=True, slots=True)
class Code:
    """What is behind a lowering: sha256 over names and bytes, the packages that it calls, and its
    host functions (`module:name`)."""

    digest: str
    libraries: tuple[str, ...]
    host_functions: frozenset[str]


def code_behind(candidate: Candidate) -> Code:
    """The code and the packages behind a candidate's lowering; every host call is torch's."""
    lowering, emitted = _lowering(candidate), _emitted(candidate)
    lines = sorted({f"{name} {digest}" for name, digest in _digests(candidate, emitted)})
    calls_torch = bool(emitted.host_functions)
    libraries = {*lowering.requires, *((TORCH,) if calls_torch else ())}
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return Code(digest, tuple(sorted(libraries)), emitted.host_functions)
