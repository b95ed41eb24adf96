"""Runs the fp8 products of many rows against the fp64 reference: `fp8_products.cu` as its twin on
the CPU, what stands around it in Triton's interpreter.

A program of its own because Triton decides at import whether it interprets. Arguments: a folder for
libraries, maybe a folder of kernels that stand in for those of the package, and maybe the name of
the only case. Output: as of `run_fp8_cases.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from many_rows_cases import cases
from products_twin import KERNELS, ProductsTwin
from run_fp8_cases import error


def main() -> None:
    """Print the errors."""
    folder, *rest = sys.argv[1:]
    twin = ProductsTwin(Path(folder).resolve(), Path(rest[0]).resolve() if rest else KERNELS)
    chosen = {n: case for n, case in cases().items() if n in rest[1:] or not rest[1:]}
    print(json.dumps({name: error(case, twin.bind) for name, case in chosen.items()}))


if __name__ == "__main__":
    main()
