"""Compiles Triton kernels for any GPU on any machine. Knows no artifact and no driver."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from lostwax.backends.gpu_kernels.fixed_addresses import fixed_addresses
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.runtime.library_loading import loading
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Swizzle

TRITON_SCRATCH_POINTERS = 2
"""Triton's kernels take two pointers after their own parameters: global and profile scratch."""

TILE_SWIZZLE: Swizzle = "128B"
"""How the tiles of every tensor map lie in shared memory: Triton's way for rows of 128 bytes."""
_TILE_SWIZZLE_CODE = 3  # CU_TENSOR_MAP_SWIZZLE_128B

_SETTLE = "SETTLE"
"""The constant of `arrival.settled`, which no launch gives: the vendor decides it."""

_ASSEMBLERS = {"cuda": ("ptxas", "ptxas_blackwell"), "hip": ()}
"""Programs that Triton starts for a vendor's GPUs: the first up to sm_90, the second above."""


class TritonCompiler:
    """Triton for one arch: 90 or 100 with `cuda`, `gfx942` or `gfx950` with `hip`.

    `compile` may be called from several threads at once.
    """

    def __init__(self, vendor: Literal["cuda", "hip"], arch: int | str, wave_size: int) -> None:
        self._vendor = vendor
        self._arch = arch
        self._wave_size = wave_size
        self._reproducible = _Reproducible(_ASSEMBLERS[vendor])

    @property
    def version(self) -> str:
        """Triton's."""
        return _import_triton().__version__

    def compile(self, source: KernelSource) -> tuple[bytes, int]:
        """The device binary and its dynamic shared memory; the same bytes in any folder."""
        compiled = self._compiled(source)
        return compiled.asm[
            "cubin" if self._vendor == "cuda" else "hsaco"
        ], compiled.metadata.shared

    def text(self, source: KernelSource) -> str:
        """The assembly of what `compile` gives, for people: PTX, or AMD's own."""
        text: str = self._compiled(source).asm["ptx" if self._vendor == "cuda" else "amdgcn"]
        return text

    def _compiled(self, source: KernelSource) -> Any:  # Triton's result is untyped
        triton = _import_triton()
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        function = getattr(import_module(source.path), source.symbol)
        if not isinstance(function, triton.runtime.JITFunction):
            raise KernelCompileError(
                f"{source.path}:{source.symbol} is no compilable Triton kernel in this process"
                " (TRITON_INTERPRET must not be set while compiling)"
            )
        names = list(function.arg_names)
        signature, aligned = _split_signature(source, [n for n in names if n != _SETTLE])
        given = dict(source.constants)
        if _SETTLE in names:
            signature[_SETTLE], given[_SETTLE] = "constexpr", int(self._vendor == "hip")
        places = ((i, n) for i, n in enumerate(function.arg_names) if signature[n] == "constexpr")
        constants = {(i,): given[n] for i, n in places}
        with self._reproducible.entered(triton), fixed_addresses():
            compiled = triton.compile(
                ASTSource(
                    fn=function,
                    signature=signature,
                    constexprs=constants,
                    attrs={path: [["tt.divisibility", 16]] for path in aligned},
                ),
                target=GPUTarget(self._vendor, self._arch, self._wave_size),
                options={
                    "num_warps": source.num_warps,
                    "num_stages": source.num_stages,
                    "enable_fp_fusion": True,
                },
            )
        metadata = compiled.metadata
        if getattr(metadata, "global_scratch_size", 0) or metadata.profile_scratch_size:
            raise KernelCompileError(
                f"{source.symbol} wants scratch memory of Triton's, which launches do not provide:"
                " write the kernel without tensor descriptors made on the device"
            )
        _require_tiles(source, metadata)
        return compiled


def _require_tiles(source: KernelSource, metadata: Any) -> None:  # Triton's metadata are untyped
    """Raise KernelCompileError where tiles are not read as their launches encode tensor maps."""
    asked = [t.partition("[")[2].rstrip(">") for t in source.signature.values() if "<" in t]
    maps = list(getattr(metadata, "tensordesc_meta", None) or ())
    found = [str(list(m["block_size"])).removeprefix("[") for m in maps]
    if asked != found or any(m["swizzle"] != _TILE_SWIZZLE_CODE for m in maps):
        raise KernelCompileError(
            f"{source.symbol} asks for tiles {asked}, Triton reads {maps}: give tiles whose rows"
            f" take 128 bytes, which lie with swizzle {TILE_SWIZZLE}"
        )


Types = str | tuple[str, ...]


def parts_of(kind: str) -> tuple[str, ...]:
    """The types of what a parameter stands for: of `(*fp8e4nv:16, i32)` both, else itself."""
    return tuple(kind[1:-1].split(", ")) if kind.startswith("(") else (kind,)


def num_parameters(source: KernelSource) -> int:
    """What a binary takes of `source` without the scratch pointers, where tiles are no maps."""
    kinds = (kind for kind in source.signature.values() if kind != "constexpr")
    return sum(len(parts_of(kind)) for kind in kinds)


def _split_signature(
    source: KernelSource, names: list[str]
) -> tuple[dict[str, Types], tuple[tuple[int, ...], ...]]:
    """Types by parameter, and the paths to what is a multiple of 16 (written `*bf16:16`)."""
    if list(source.signature) != names:
        raise KernelCompileError(
            f"{source.symbol} takes {names}, its KernelSource names {list(source.signature)}"
        )
    types: dict[str, Types] = {}
    aligned: list[tuple[int, ...]] = []
    for i, (name, kind) in enumerate(source.signature.items()):
        parts, is_tuple = parts_of(kind), kind.startswith("(")
        plain = tuple(part.removesuffix(":16") for part in parts)
        types[name] = plain if is_tuple else plain[0]
        hinted = [j for j, part in enumerate(parts) if part.endswith(":16")]
        aligned += [(i, j) if is_tuple else (i,) for j in hinted]
    return types, tuple(aligned)


def _import_triton() -> Any:  # Triton's modules are untyped
    try:
        with loading("triton"):
            return import_module("triton")
    except ImportError as error:
        raise KernelCompileError(
            "Triton kernels need the package triton, and it is not installed:"
            " pip install -c constraints.txt -e '.[aot]'"
        ) from error


class _Reproducible:
    """Triton's global settings while a compiler works: set by its first thread, undone by its last.

    No source paths in the binary, and no cache of earlier builds outside a throw-away folder. The
    assemblers (knobs of `triton.knobs.nvidia`) are started by links in that folder: ptxas keeps
    its own name in memory, and the longer the path that Triton is installed at, the further
    lies what else it keeps, by which it chooses registers.
    """

    def __init__(self, assemblers: tuple[str, ...]) -> None:
        self._assemblers = assemblers
        self._lock = threading.Lock()
        self._inside = 0
        self._settings = ExitStack()

    @contextmanager
    def entered(self, triton: Any) -> Generator[None]:  # Triton's knobs are untyped
        """Settings that hold until every thread has left."""
        with self._lock:
            if self._inside == 0:
                self._settings = self._set(triton.knobs)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._settings.close()

    def _set(self, knobs: Any) -> ExitStack:
        stack = ExitStack()
        work = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(knobs.compilation.scope())
        stack.enter_context(knobs.cache.scope())
        knobs.compilation.disable_line_info = True
        knobs.compilation.always_compile = True
        knobs.cache.dir = work
        stack.enter_context(knobs.nvidia.scope())
        for name in self._assemblers:
            program = Path(getattr(knobs.nvidia, name).path)
            link = Path(work, program.name)
            link.symlink_to(program.absolute())
            setattr(knobs.nvidia, name, str(link))
        return stack
