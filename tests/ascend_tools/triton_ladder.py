"""Takes Triton kernels of this project to CANN's compiler, in Triton's environment for Ascend.

Run with a folder and a chip: each case of `CASES` becomes FOLDER/NAME.mlir (linalg and HFusion, by
Triton's adapter) and, by bishengir-compile, FOLDER/NAME.hivm.mlir, in which every buffer has its
place in the chip's memories. There the published compiler ends: what makes device binaries of it,
`hivmc`, is CANN's own. FOLDER/report.json has each case's errors.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton.backends.ascend.compiler as ascend  # pyright: ignore
from triton._C.libtriton import ir  # pyright: ignore
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lostwax.backends.gpu_kernels import norms, route

COMPILER = Path(sysconfig.get_paths()["purelib"]) / "ascendnpuir" / "bin" / "bishengir-compile"
FLAGS = (
    "--enable-auto-multi-buffer=true", "--enable-hfusion-compile=true",
    "--enable-hivm-compile=true", "--enable-triton-kernel-compile=true",
)  # fmt: skip
"""What the adapter's own stage for A2 and A3 asks for."""
CONST = "constexpr"


@dataclass(frozen=True)
class Case:
    """A kernel, the types of its parameters and its constants."""

    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, int]


def _norm(width: int, block: int) -> Case:
    signature = {
        "x": "*bf16", "weight": "*bf16", "normed": "*bf16", "real_rows": "*i32",
        "x_stride": "i32", "normed_stride": "i32", "eps": "fp32", "WIDTH": CONST, "BLOCK": CONST,
    }  # fmt: skip
    return Case(norms.rms_norm, signature, {"WIDTH": width, "BLOCK": block})


def _route(groups: int, size: int, kept: int, top_k: int) -> Case:
    signature = {
        "logits": "*fp32", "bias": "*fp32", "positions": "*i32", "ids": "*i32", "weights": "*fp32",
        "real_rows": "*i32", "scale": "fp32", "GROUPS": CONST, "SIZE": CONST, "TOP_GROUPS": CONST,
        "TOP_K": CONST, "NORMALISE": CONST, "BLOCK_TOP": CONST,
    }  # fmt: skip
    constants = {
        "GROUPS": groups, "SIZE": size, "TOP_GROUPS": kept, "TOP_K": top_k, "NORMALISE": 1,
        "BLOCK_TOP": top_k,
    }  # fmt: skip
    return Case(route.route, signature, constants)


CASES = {
    "rms_norm": _norm(7168, 8192),
    "rms_norm_too_wide": _norm(7168, 65536),
    "route": _route(4, 2, 2, 2),
}
"""`route` as the tiny model wants it: two experts a group, which CANN's operator refuses."""


def adapted(case: Case, chip: str) -> str:
    """The kernel as the adapter gives it to CANN's compiler."""
    target = GPUTarget("npu", chip, 0)
    backend = ascend.AscendBackend(target)
    options = backend.parse_options({})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    source = ASTSource(case.kernel, dict(case.signature), dict(case.constants))
    build: Any = source.make_ir  # pyright reads another release of Triton
    functions, modules = backend.get_codegen_implementation(), backend.get_module_map()
    module = build(options, functions, modules, context)
    notes = {"target": target, **options.__dict__}
    module = ascend.make_ttir(module, notes, options)
    # named_ops: bishengir-compile takes no linalg.generic of its own
    text: str = ascend.ttir_to_linalg(module, notes, options, named_ops=True)
    return re.sub(r', mix_mode = "[a-z]+"', "", text)  # an attribute that it does not know


def planned(file: Path, chip: str) -> list[str]:
    """FILE.hivm.mlir beside the file; what bishengir-compile said against it.

    It fails in any case, for want of `hivmc`; that is left out here.
    """
    steps = file.with_suffix(".steps")
    steps.mkdir(exist_ok=True)
    done = subprocess.run(
        [COMPILER, file, f"--target={chip}", *FLAGS, f"--save-temps={steps}", "-o", steps / "o"],
        capture_output=True,
        text=True,
    )
    for found in steps.rglob("module.hivm.opt.mlir"):
        shutil.copy(found, file.with_suffix(".hivm.mlir"))
    said = re.findall(r"error: (.*)", done.stdout + done.stderr)
    return [line for line in said if "hivmc" not in line]


def main(folder: Path, chip: str) -> None:
    """Every case, and the report."""
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, list[str]] = {}
    for name, case in CASES.items():
        file = folder / f"{name}.mlir"
        file.write_text(adapted(case, chip))
        report[name] = planned(file, chip)
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
