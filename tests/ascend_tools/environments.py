"""Makes the environments of Ascend's tools: torch_npu, Triton's build for Ascend, and TileLang's.

They cannot live beside lostwax: torch_npu loads itself into every torch and wants CANN's libraries,
triton-ascend installs itself as `triton`, and tilelang-ascend is for another processor, which is
emulated. Run as `./dev ascend`, which also runs the tests marked `ascend`. Each environment lies in
.lostwax/ascend/ and is made once for its pins.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

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
    return FOLDER / name / "bin" / "python"


def make(name: str) -> None:
    """Make the environment unless it is there. Raises CalledProcessError, with pip's message."""
    packages = ENVIRONMENTS[name]
    wanted = hashlib.sha256("\n".join(packages).encode()).hexdigest()
    stamp = FOLDER / name / "made-of"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if name == "tilelang":
        from emulated import make as make_emulated  # beside this, which tests import by its package

        make_emulated(FOLDER / name, packages)
        stamp.write_text(wanted)
        return
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", FOLDER / name], check=True)
    # torch is a CPU build here: torch_npu brings the device, and nothing of CUDA is wanted
    pip = [python_of(name), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--only-binary", ":all:", *packages], check=True)
    stamp.write_text(wanted)


if __name__ == "__main__":
    for each in sys.argv[1:] or ENVIRONMENTS:
        make(each)
        print(f"{each}: {FOLDER / each}")
