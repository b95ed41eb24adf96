"""A ragged step of the indexer's logits over the kernels in a folder, in two forms and with keys in
fp8 and in bf16, on the CPU; one of long contexts, and the lists of many rows and of none.

python run_index_step.py FOLDER KERNELS
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

from index_steps import (
    LONG,
    LONG_PAGES,
    MANY,
    RAGGED,
    STORED,
    Step,
    require_listed,
    require_right,
    score,
)
from twin_launches import Twins

FORMS = (7, 8)
"""Two turns over the pages, and two groups of rows: those with fewest threads."""

UNITS = 2


def main(folder: Path, kernels: Path) -> None:
    """AssertionError, or the end of the process, where the kernels are wrong."""
    twins = Twins(folder, kernels)
    for listed in (Step(MANY), Step([(0, 0)])):
        require_listed(listed, twins, folder, UNITS, form=1)
    for stored, form in product(STORED, FORMS):
        step = Step(RAGGED, reqs=8, unreal=2, stored=stored, out_of_range=(1, 70))
        require_right(step, score(step, twins, folder, UNITS, form=form, stages=4))
    far = Step(LONG, pages=LONG_PAGES)
    require_right(far, score(far, twins, folder, 1, form=FORMS[0], stages=4))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
