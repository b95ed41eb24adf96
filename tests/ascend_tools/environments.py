"""Makes the environments of Ascend's tools: torch_npu, Triton's build for Ascend, and TileLang's.

They cannot live beside lostwax: torch_npu loads itself into every torch and wants CANN's libraries,
triton-ascend installs itself as `triton`, and tilelang-ascend is for another processor, which is
emulated. Run as `./dev ascend`, which also runs the tests marked `ascend`. Each environment lies in
.lostwax/ascend/ and is made once for its pins.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a program this knows its own folder alone

from emulated_python import make as make_emulated
from tool_environment import make_environment, python_in

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".lostwax" / "ascend"
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    # torch exactly as the core has it; msgspec and ml_dtypes are what lostwax's kernels import
    "npu": (
        "torch==2.13.0",
        "torch-npu==2.13.0",
        "numpy",
        "pyyaml",
        "msgspec",
        "ml_dtypes",
    ),
    "triton": (
        "torch==2.13.0",
        "triton-ascend==3.2.0",
        "ascendnpu-ir==1.2.0",
        "pybind11",
        "numpy",
    ),
    # emulated, without what these ask for; torch 2.6.0 is the newest of its CPU builds there
    "tilelang": (
        "tilelang-ascend==0.1.4",
        "torch==2.6.0",
        *("numpy==2.2.6", "tqdm", "typing_extensions", "cloudpickle", "ml_dtypes", "psutil"),
        *("decorator", "attrs", "scipy==1.15.3", "tornado", "sympy", "mpmath", "networkx"),
        *("jinja2", "markupsafe", "fsspec", "filelock", "pyyaml", "packaging", "setuptools"),
    ),
}
"""Packages by environment, with the versions that the tests were written for."""


def python_of(name: str) -> Path:
    """The environment's interpreter, whether it exists or not."""
    return python_in(FOLDER / name)


def make(name: str) -> None:
    """Make the environment unless it is there. Raises as `make_environment` does."""
    fill = make_emulated if name == "tilelang" else None
    make_environment(FOLDER / name, ENVIRONMENTS[name], fill)


if __name__ == "__main__":
    for each in sys.argv[1:] or ENVIRONMENTS:
        make(each)
        print(f"{each}: {FOLDER / each}")
