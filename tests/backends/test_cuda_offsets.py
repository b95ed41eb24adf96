"""No address of a CUDA C++ kernel is computed in 32 bits where a full-width model needs more.

Running cannot show it: the tensors that overflow have gigabytes. So the sources are read
(`cuda_offsets.py`), as Triton's are in `test_kernel_offsets.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cuda_offsets import Offsets, given_narrow, given_wide, pointers_of, without_comments

import lostwax.backends.cuda.kernels

KERNELS = Path(lostwax.backends.cuda.kernels.__file__).parent
SOURCES = sorted([*KERNELS.rglob("*.cu"), *KERNELS.rglob("*.h")])
NAMES = [str(path.relative_to(KERNELS)) for path in SOURCES]


@pytest.fixture(scope="module")
def known() -> tuple[set[str], set[str]]:
    """Names that are 64-bit wherever they are declared, and pointers."""
    texts = [without_comments(path.read_text()) for path in SOURCES]
    narrow = set[str]().union(*map(given_narrow, texts))
    wide = set[str]().union(*map(given_wide, texts)) - narrow
    return wide, set[str]().union(*map(pointers_of, texts))


@pytest.mark.parametrize("name", NAMES)
def test_offsets_of_a_kernel_are_wide_enough(known: tuple[set[str], set[str]], name: str) -> None:
    assert Offsets((KERNELS / name).read_text(), *known).found() == []


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("index_logits/load.h", "out + row * out_stride", "out + row * (int)out_stride"),
        (
            "index_logits/load.h",
            "out + row * out_stride",
            "out + row * static_cast<int>(out_stride)",
        ),
        (
            "index_logits/load.h",
            "tile.request * page_table_stride",
            "(int)(tile.request * page_table_stride)",
        ),
        ("index_logits/load.h", "float* out, long long out_stride", "float* out, int out_stride"),
        ("index_logits/score.h", "first_row) * scores.out_stride", "first_row) * 4096"),
        ("gather_latents.cu", "latents + (long long)row * LATENT", "latents + row * LATENT"),
        ("gather_latents.cu", "cache + page * page_bytes", "cache + page * (PAGE * ROW_BYTES)"),
        ("gather_latents.cu", "cache + page * page_bytes", "cache + page * (u32)page_bytes"),
        (
            "gather_latents.cu",
            "uint4* latent = (uint4*)(latents + (long long)row * LATENT",
            "const int at = row * LATENT;\n  uint4* latent = (uint4*)(latents + at",
        ),
        ("selection_bits.cu", "bits[(long long)row * words + i]", "bits[row * words + i]"),
        ("fp8_products/write_queries.h", "const long long at = row", "const int at = row"),
        ("fp8_products/write.h", "  long long stride;", "  int stride;"),
    ],
)
def test_a_narrow_offset_is_found(
    known: tuple[set[str], set[str]], name: str, before: str, after: str
) -> None:
    text = (KERNELS / name).read_text()
    assert text.count(before) == 1
    assert Offsets(text.replace(before, after), *known).found()
