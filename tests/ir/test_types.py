"""Types keep shape, dtype, scales and layouts apart, and count their bytes."""

from __future__ import annotations

import pytest
from xdsl.dialects import builtin
from xdsl.utils.exceptions import VerifyException

from lostwax.ir.op import row_bytes, type_bytes
from lostwax.ir.scale_layouts import BlockScaleAttr
from lostwax.ir.size import Size
from lostwax.ir.types import CacheType, TensorType, tensor

BLOCKS = BlockScaleAttr(builtin.IntAttr(128), builtin.IntAttr(128), builtin.f32)


def test_the_two_fp8_encodings_are_different_types() -> None:
    assert TensorType.of([8], "f8E4M3FN") != TensorType.of([8], "f8E4M3FNUZ")


def test_a_half_block_of_scales_counts_as_a_whole_one() -> None:
    # kv_a_proj_with_mqa: 576 rows are 4.5 blocks of 128, stored with 5 rows of scales
    kv_a = TensorType.of([576, 7168], "f8E4M3FN", BLOCKS)
    assert type_bytes(kv_a, {}) == 576 * 7168 + 5 * 56 * 4


def test_stacked_experts_carry_scales_each() -> None:
    stacked = TensorType.of([4, 130, 128], "f8E4M3FN", BLOCKS)
    assert type_bytes(stacked, {}) == 4 * (130 * 128 + 2 * 1 * 4)


def test_bytes_follow_the_symbols() -> None:
    logits = TensorType.of(["T", Size.of(64) * Size.of("P")], "f32")
    assert type_bytes(logits, {"T": 8192, "P": 2560}) == 8192 * 64 * 2560 * 4


def test_cache_rows_count_every_part_in_the_layouts_dtype() -> None:
    assert row_bytes(CacheType.of("latent", "N", 64, [512, 64], "bf16")) == 576 * 2
    assert row_bytes(CacheType.of("latent", "N", 64, [512, 64], "f32")) == 576 * 4


def test_substitution_keeps_dtype_and_scales() -> None:
    weight = TensorType.of(["T", 8], "f8E4M3FN", BLOCKS)
    assert weight.substitute({"T": Size.of(4)}) == TensorType.of([4, 8], "f8E4M3FN", BLOCKS)


def test_an_unknown_cache_layout_is_refused_with_the_known_ones() -> None:
    with pytest.raises(VerifyException, match="'fp9' is not one of f32, bf16"):
        CacheType.of("latent", "N", 64, [512, 64], "fp9")


def test_narrowing_names_the_value_that_is_no_tensor() -> None:
    with pytest.raises(TypeError, match=r"operand x: expected a !lostwax\.tensor, got i32"):
        tensor(builtin.i32, "operand x")
