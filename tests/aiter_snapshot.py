"""Writes what the functions take that lostwax may call of amd-aiter, read from a wheel's sources.

    pip download --no-deps -d .lostwax/wheels amd-aiter==0.1.7.post2.dev18
    python tests/aiter_snapshot.py .lostwax/wheels/amd_aiter-*.whl

`./dev rocm` brings the wheel and compares. Imports nothing of it: at import it wants a GPU.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

from lostwax.backends.runtime.argument_contract import signatures

PACKAGE = "amd-aiter"
SNAPSHOT = Path(__file__).parent / "backends" / "aiter_signatures.json"
FUNCTIONS = {
    "aiter/mla.py": ("mla_decode_fwd", "mla_prefill_fwd"),
    "aiter/fused_moe.py": ("fused_moe",),
    "aiter/ops/topk.py": (
        "biased_grouped_topk", "top_k_per_row_decode", "top_k_per_row_prefill",
    ),
    "aiter/ops/rmsnorm.py": (
        "rmsnorm2d_fwd_with_add", "rmsnorm2d_fwd_with_dynamicquant",
        "rmsnorm2d_fwd_with_add_dynamicquant",
    ),
    "aiter/ops/triton/fused_fp8_quant.py": ("fused_rms_fp8_group_quant",),
    "aiter/ops/triton/fp8_mqa_logits.py": ("fp8_mqa_logits",),
    "aiter/ops/triton/pa_mqa_logits.py": ("deepgemm_fp8_paged_mqa_logits",),
    "aiter/ops/triton/unified_attention_sparse_mla.py": ("unified_attention_sparse_mla",),
}  # fmt: skip
"""Those of the ops that V3.2 has: decode, experts, selection, norms with quantising, logits."""


def described(wheel: Path) -> dict[str, Any]:
    """The snapshot of a wheel; KeyError where it lacks a file or a function."""
    found: dict[str, dict[str, bool]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for file, names in FUNCTIONS.items():
            every = signatures(archive.read(file).decode())
            found |= {f"{file}:{name}": every[name] for name in names}
    return {"version": wheel.name.split("-")[1], "required": found}


def main() -> None:
    """Write the snapshot of the wheel that is given."""
    made = described(Path(sys.argv[1]))
    SNAPSHOT.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"{SNAPSHOT}: {len(made['required'])} functions of {made['version']}")


if __name__ == "__main__":
    main()
