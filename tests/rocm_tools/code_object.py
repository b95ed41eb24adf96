"""Compiles HIP source to an AMD code object without ROCm: a compile check, never to be run.

Debian's clang 22 with HIP's headers as the triton wheel has them, TileLang's templates, Debian's
device libraries, and `shims/` for three headers that neither has. Shims of fp8 hold no conversion:
a kernel that needs one does not compile here, rather than compile wrongly.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SHIMS = Path(__file__).with_name("shims")
CLANG = 22
PACKAGES = f"clang-{CLANG} lld-{CLANG} llvm-{CLANG} rocm-device-libs libamdhip64-dev"
_ISA_VERSION = {"gfx942": 9402, "gfx950": 9500}
"""What device libraries ask about the device: Debian's end at gfx940, so a module of our own."""
_LIBRARIES = (
    "ocml", "ockl", "oclc_daz_opt_off", "oclc_unsafe_math_off", "oclc_finite_only_off",
    "oclc_correctly_rounded_sqrt_on", "oclc_wavefrontsize64_on", "oclc_abi_version_500",
)  # fmt: skip


def bitcode() -> Path | None:
    """Where Debian's device libraries lie, None where they are not installed."""
    listed = subprocess.run(["dpkg", "-L", "rocm-device-libs"], capture_output=True, text=True)
    found = [Path(line) for line in listed.stdout.splitlines() if line.endswith("/ocml.bc")]
    return found[0].parent if found else None


def tools_are_here() -> bool:
    """Whether everything that `compile_hip` calls is installed."""
    names = (f"clang++-{CLANG}", f"ld.lld-{CLANG}", f"llvm-as-{CLANG}", f"llvm-objdump-{CLANG}")
    return all(map(shutil.which, names)) and bitcode() is not None


def compile_hip(source: Path, arch: str, packages: Path) -> Path:
    """The code object beside the source; `packages` are those of TileLang's environment.

    Raises CalledProcessError, with clang's message.
    """
    libraries, out = bitcode(), source.with_suffix(".hsaco")
    assert libraries is not None
    isa = source.with_suffix(".isa.ll")
    isa.write_text(
        'target triple = "amdgcn-amd-amdhsa"\n'
        "@__oclc_ISA_version = linkonce_odr protected local_unnamed_addr addrspace(4)"
        f" constant i32 {_ISA_VERSION[arch]}, align 4\n"
    )
    subprocess.run([f"llvm-as-{CLANG}", isa, "-o", isa.with_suffix(".bc")], check=True)
    linked: list[str | Path] = []
    for each in (*(libraries / f"{name}.bc" for name in _LIBRARIES), isa.with_suffix(".bc")):
        linked += ["-Xclang", "-mlink-builtin-bitcode", "-Xclang", each]
    includes = (SHIMS, packages / "triton/backends/amd/include", packages / "tilelang/src")
    command = [
        f"clang++-{CLANG}", "-x", "hip", f"--offload-arch={arch}", "--offload-device-only",
        "--no-gpu-bundle-output", "-nogpulib", "-nogpuinc", "-O3", "-std=c++17", "-w",
        "-D__AMDGCN_WAVEFRONT_SIZE=64", "-D__HIP_PLATFORM_AMD__", "-D__HIP_PLATFORM_HCC__",
        "-include", SHIMS / "prelude.h", *(f"-I{folder}" for folder in includes),
        *linked, source, "-o", out,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def instructions(code_object: Path) -> str:
    """Its code as text."""
    done = subprocess.run(
        [f"llvm-objdump-{CLANG}", "-d", code_object], capture_output=True, text=True, check=True
    )
    return done.stdout
