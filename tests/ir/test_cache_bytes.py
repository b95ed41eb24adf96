"""The bytes of fp8 caches against the published layouts, written anew with struct and loops."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from xdsl.utils.exceptions import VerifyException

from lostwax.backends.portable.kernels import cache as cache_kernels
from lostwax.backends.portable.kernels import fp8, hadamard
from lostwax.backends.portable.kernels.paging import cached_rows
from lostwax.ir.contract.cache_layout import (
    LAYOUTS,
    in_either_encoding,
    in_encoding,
    row_bytes,
)
from lostwax.ir.reference import dsa, kv, quant
from lostwax.ir.reference.cache_bytes import CacheBytes, empty_cache
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Scaled, round_to, widen
from lostwax.ir.types import CacheType

PAGE, PAGES = 64, 3
TOKENS = np.array([64, 65, 127, 130, 191])  # slots in pages 1 and 2; page 0 is trash


def decoded(code: int, bias: int = 7) -> float:
    """e4m3: sign, four bits of exponent, three of mantissa."""
    sign, exponent, mantissa = -1 if code & 0x80 else 1, code >> 3 & 15, code & 7
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias - 3)
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - bias)


FINITE = [c for c in range(128) if c != 0x7F]


def encoded(x: float) -> int:
    """The nearest code, to even mantissas on ties, saturating at 448."""
    size = min(abs(x), 448.0)
    best = min(FINITE, key=lambda c: (abs(decoded(c) - size), c & 1))
    return best | (0x80 if math.copysign(1, x) < 0 else 0)


def act_quant(values: Sequence[float], fmt: str) -> tuple[bytes, bytes]:
    """Official act_quant of one block: codes, and the scale as f32."""
    amax = np.float32(max(np.float32(1e-4), *(abs(np.float32(v)) for v in values)))
    scale = np.float32(amax / np.float32(448))
    if fmt == "ue8m0":
        mantissa, exponent = math.frexp(scale)  # scale = mantissa * 2^exponent, mantissa in [.5, 1)
        scale = np.float32(2.0 ** (exponent - 1 if mantissa == 0.5 else exponent))
    codes = bytes(encoded(float(np.float32(v) / scale)) for v in values)
    return codes, struct.pack("<f", scale)


def bf16_bytes(x: float) -> bytes:
    """Round to nearest even on the upper half of the f32 bits."""
    (bits,) = struct.unpack("<I", struct.pack("<f", x))
    return struct.pack("<H", (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


def rows_of(width: int, seed: int = 0) -> Any:
    """Rows with outliers, one of zeros, one tiny."""
    rows = np.random.default_rng(seed).standard_normal((len(TOKENS), width)).astype(np.float32)
    rows[1] *= 1000
    rows[2] = 0
    rows[3] *= 1e-7
    return rows


def quantised(rows: Any, fmt: str, dtype: str = "f8E4M3FN") -> Scaled:
    return quant.quantise(rows, scale_fmt=fmt, dtype=dtype, block=128)


def kernel_bytes(layout: str, empty: CacheBytes, scaled: Scaled, *rest: Any) -> Any:
    """What the portable kernel writes."""
    form = empty.form
    shape = (PAGES, -1) if form.is_paged else (PAGES, PAGE, -1)
    pages = torch.from_numpy(empty.data.copy()).view(shape)
    codes = torch.from_numpy(scaled.values.view(np.uint8)).view(torch.float8_e4m3fn)
    parts = [torch.from_numpy(r) for r in rest]
    cache_kernels.append_scaled(
        pages, torch.from_numpy(TOKENS), torch.from_numpy(scaled.scales), codes, *parts,
        layout=layout,
    )  # fmt: skip
    return pages.numpy().reshape(PAGES, -1)


@pytest.mark.parametrize("fmt", ["fp32", "ue8m0"])
def test_a_row_of_fp8_656_is_flashmlas(fmt: str) -> None:
    c, k_pe = rows_of(512), rows_of(64, seed=1)
    want = np.zeros((PAGES, PAGE * 656), np.uint8)
    for token, latent, rope in zip(TOKENS, c, k_pe, strict=True):
        tiles = [act_quant(latent[i : i + 128].tolist(), fmt) for i in range(0, 512, 128)]
        row = b"".join(t[0] for t in tiles) + b"".join(t[1] for t in tiles)
        row += b"".join(bf16_bytes(x) for x in rope)
        assert len(row) == 656
        start = token % PAGE * 656
        want[token // PAGE, start : start + 656] = np.frombuffer(row, np.uint8)
    empty = CacheBytes.zeros("fp8_656", PAGES, PAGE, (512, 64))
    made = kv.append(empty, [quantised(c, fmt), k_pe], TOKENS)
    assert isinstance(made, CacheBytes)
    assert made.data.tobytes() == want.tobytes()
    assert kernel_bytes("fp8_656", empty, quantised(c, fmt), k_pe).tobytes() == want.tobytes()


@pytest.mark.parametrize("fmt", ["fp32", "ue8m0"])
def test_an_index_page_is_64_keys_then_64_scales(fmt: str) -> None:
    keys = rows_of(128)
    paged = np.zeros((PAGES, 8448), np.uint8)
    by_row = np.zeros((PAGES, 8448), np.uint8)
    for token, key in zip(TOKENS, keys, strict=True):
        codes, scale = (np.frombuffer(b, np.uint8) for b in act_quant(key.tolist(), fmt))
        page, o = divmod(int(token), PAGE)
        paged[page, o * 128 : o * 128 + 128] = codes
        paged[page, 8192 + 4 * o : 8196 + 4 * o] = scale
        by_row[page, o * 132 : o * 132 + 128] = codes
        by_row[page, o * 132 + 128 : o * 132 + 132] = scale
    for layout, want in (("index_paged", paged), ("index_row", by_row)):
        empty = CacheBytes.zeros(layout, PAGES, PAGE, (128,))
        made = kv.append(empty, [quantised(keys, fmt)], TOKENS)
        assert isinstance(made, CacheBytes)
        assert made.data.tobytes() == want.tobytes()
        assert kernel_bytes(layout, empty, quantised(keys, fmt)).tobytes() == want.tobytes()


def test_a_row_of_fp8_576_is_codes_alone_and_saturates() -> None:
    c, k_pe = rows_of(512), rows_of(64, seed=1)
    want = bytes(encoded(float(x)) for x in np.concatenate([c[1], k_pe[1]]))
    assert 0x7E in want  # 448: the row is a thousand times too large
    made = kv.append(empty_cache("fp8_576", PAGES, PAGE, (512, 64)), [c, k_pe], TOKENS)
    assert isinstance(made, np.ndarray)
    pages = torch.zeros(PAGES, PAGE, 576, dtype=torch.float8_e4m3fn)
    cache_kernels.append(
        pages, torch.from_numpy(TOKENS), torch.from_numpy(c), torch.from_numpy(k_pe)
    )
    assert round_to(made, "f8E4M3FN")[1, 1].tobytes() == want
    assert bytes(pages[1, 1].view(torch.uint8).tolist()) == want


@pytest.mark.parametrize("layout", in_either_encoding("fp8_656", "index_paged", "index_row"))
@pytest.mark.parametrize("width", [128, 50, 300])
def test_readers_give_what_was_written_at_any_width(layout: str, width: int) -> None:
    row = (width, 10) if layout.startswith("fp8_656") else (width,)
    encoding = LAYOUTS[layout].dtypes[0]
    assert encoding == ("f8E4M3FNUZ" if layout.endswith("_fnuz") else "f8E4M3FN")
    scaled = quantised(rows_of(width), "fp32", encoding)
    rest = [rows_of(w, seed=2) for w in row[1:]]
    empty = CacheBytes.zeros(layout, PAGES, PAGE, row)
    made = kv.append(empty, [scaled, *rest], TOKENS)
    assert isinstance(made, CacheBytes)
    want = np.concatenate([widen(scaled), *(widen(round_to(r, "bf16")) for r in rest)], axis=1)
    np.testing.assert_array_equal(made.rows(TOKENS), want)
    shape = (PAGES, -1) if made.form.is_paged else (PAGES, PAGE, -1)
    reader = cached_rows(torch.from_numpy(made.data).view(shape), layout, row)
    got = reader.at(torch.from_numpy(TOKENS))
    np.testing.assert_array_equal(got.numpy(), want.astype(np.float32))
    pages = reader.of(torch.tensor([2, 1])).view(2, PAGE, -1)
    np.testing.assert_array_equal(pages[1, 1].numpy(), got[1].numpy())
    np.testing.assert_array_equal(pages[0, 63].numpy(), got[4].numpy())


@pytest.mark.parametrize("fmt", ["fp32", "ue8m0"])
def test_quantising_on_torch_is_bit_equal_to_the_reference(fmt: str) -> None:
    x = rows_of(300) * np.logspace(-6, 6, 300, dtype=np.float32)
    x[0, :3] = [448.0, 448.0 * 2**-3, 0.0]
    want = quantised(x, fmt)
    codes = torch.empty(x.shape, dtype=torch.float8_e4m3fn)
    scales = torch.empty(len(x), 3)
    fp8.quantise(torch.from_numpy(x), codes, scales, scale_fmt=fmt, block=128)
    np.testing.assert_array_equal(scales.numpy(), want.scales)
    assert codes.view(torch.uint8).numpy().tobytes() == want.values.tobytes()


def test_a_power_of_two_scale_is_kept_and_any_other_rounded_up() -> None:
    scales = np.array([1.0, 1.0000001, 0.5, 0.75, 3.0, 2.0**-20], np.float32)
    want = [1.0, 2.0, 0.5, 1.0, 4.0, 2.0**-20]
    np.testing.assert_array_equal(quant.power_of_two_above(scales), want)
    np.testing.assert_array_equal(fp8.power_of_two_above(torch.from_numpy(scales)).numpy(), want)


def test_the_rotation_is_orthogonal_and_keeps_products() -> None:
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((5, 128)), rng.standard_normal((7, 128))
    np.testing.assert_allclose(dsa.hadamard(q) @ dsa.hadamard(k).T, q @ k.T, atol=1e-12)
    parity = [[(i & j).bit_count() & 1 for j in range(128)] for i in range(128)]
    want = q @ (1.0 - 2.0 * np.array(parity)) / np.sqrt(128)
    np.testing.assert_allclose(dsa.hadamard(q), want, atol=1e-12)
    signs, out = torch.empty(128, 128), torch.empty(5, 128)
    hadamard.signs(signs)
    hadamard.hadamard(torch.from_numpy(q), signs, out)
    np.testing.assert_allclose(out.numpy(), want, atol=1e-5)


def test_sizes_of_the_published_ranks() -> None:
    assert row_bytes("fp8_656", (512, 64)) == 656
    assert row_bytes("fp8_576", (512, 64)) == 576
    assert row_bytes("index_paged", (128,)) * PAGE == 8448
    assert row_bytes("index_row", (128,)) == 132
    assert row_bytes("bf16", (512, 64)) == 1152


@pytest.mark.parametrize("layout", ["fp8_656", "fp8_576", "index_paged", "index_row"])
def test_the_other_encoding_takes_as_many_bytes_and_its_codes_mean_half(layout: str) -> None:
    """What a page of one target is to another: the codes but minus zero and NaN, scales doubled."""
    row = (512, 64) if layout.startswith("fp8_656") else (128,)
    fnuz = in_encoding(layout, "f8E4M3FNUZ")
    assert fnuz != layout
    assert (in_encoding(fnuz, "f8E4M3FN"), in_encoding(fnuz, None)) == (layout, layout)
    assert in_encoding("bf16", "f8E4M3FNUZ") == "bf16"
    assert row_bytes(fnuz, row) == row_bytes(layout, row)
    numbers = [c for c in range(256) if c & 0x7F != 0x7F and c != 0x80]
    codes = np.array(numbers, np.uint8)
    halves = codes.view(NUMPY_DTYPES["f8E4M3FNUZ"]).astype(float)
    np.testing.assert_array_equal(2 * halves, codes.view(NUMPY_DTYPES["f8E4M3FN"]).astype(float))
    assert [decoded(c, bias=8) for c in numbers] == halves.tolist()


def test_a_layout_of_two_parts_refuses_rows_of_one() -> None:
    with pytest.raises(VerifyException, match="stores 2 parts a row"):
        CacheType.of("index_key", "N", 64, [128], "fp8_656")
    assert set(LAYOUTS) >= {"fp8_656", "fp8_576", "index_paged", "index_row"}
