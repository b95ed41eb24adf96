"""The `core`, `quant` and `kv` references against torch and small re-derivations."""

from typing import Any

import numpy as np
import pytest
import torch

from lostwax.ir.reference import core, kv, quant
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Scaled, round_to, widen
from lostwax.ir.reference.yarn import correction_range, inverse_frequencies, magnitude

V32_ROPE: dict[str, Any] = {
    "theta": 10000.0,
    "factor": 40.0,
    "original_len": 4096,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_norms_equal_torch():
    x, w, b = normal(3, 10), normal(10, seed=1), normal(10, seed=2)
    tx, tw, tb = map(torch.from_numpy, (x, w, b))
    rms = torch.nn.functional.rms_norm(tx, (10,), tw, 1e-6)
    layer = torch.nn.functional.layer_norm(tx, (10,), tw, tb, 1e-6)
    np.testing.assert_allclose(core.rms_norm(x, w, eps=1e-6), rms, rtol=1e-12)
    np.testing.assert_allclose(core.layer_norm(x, w, b, eps=1e-6), layer, rtol=1e-12)


def test_silu_mul_equals_torch_and_does_not_overflow():
    gate, up = np.array([-800.0, -1.0, 0.0, 2.0, 800.0]), np.arange(5.0)
    want = torch.nn.functional.silu(torch.from_numpy(gate)) * torch.from_numpy(up)
    np.testing.assert_allclose(core.silu_mul(gate, up), want, rtol=1e-12, atol=1e-300)


def test_yarn_numbers_of_deepseek_v32():
    assert correction_range(64, 10000.0, 4096, 32, 1) == (10, 23)
    m = magnitude(40, 1.0)
    assert m == pytest.approx(1.3688879454, abs=1e-10)
    assert 192**-0.5 * m * m == pytest.approx(0.1352337788, abs=1e-10)


def test_yarn_keeps_fast_pairs_and_divides_slow_ones():
    f = inverse_frequencies(64, **V32_ROPE)
    plain = 10000.0 ** (-np.arange(32) / 32)
    np.testing.assert_allclose(f[:11], plain[:11], rtol=1e-14)
    np.testing.assert_allclose(f[23:], plain[23:] / 40, rtol=1e-14)
    ramp = (15 - 10) / 13
    assert f[15] == pytest.approx(plain[15] / 40 * ramp + plain[15] * (1 - ramp))


@pytest.mark.parametrize("interleaved", [True, False])
def test_rope_is_a_complex_rotation_of_its_own_dims_only(interleaved: bool):
    x, positions = normal(4, 3, 20), np.array([0, 1, 77, 5000])
    got = core.rope(
        x, positions, offset=6, dim=12, interleaved=interleaved, magnitude=1.5, **V32_ROPE
    )
    part = x[..., 6:18]
    z = (
        part[..., 0::2] + 1j * part[..., 1::2]
        if interleaved
        else part[..., :6] + 1j * part[..., 6:]
    )
    z = 1.5 * z * np.exp(1j * positions[:, None] * inverse_frequencies(12, **V32_ROPE))[:, None]
    rotated = (
        np.stack([z.real, z.imag], -1).reshape(part.shape)
        if interleaved
        else np.concatenate([z.real, z.imag], -1)
    )
    np.testing.assert_allclose(got[..., 6:18], rotated, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(got[..., :6], x[..., :6])
    np.testing.assert_array_equal(got[..., 18:], x[..., 18:])


def test_minus_one_gathers_zeros():
    table = normal(5, 4)
    got = core.embed(np.array([2, -1, 4], np.int32), table)
    np.testing.assert_array_equal(got, np.stack([table[2], np.zeros(4), table[4]]))


def test_linear_multiplies_scales_in_and_takes_a_half_block():
    rng = np.random.default_rng(0)
    values = round_to(rng.standard_normal((576, 130)) * 50, "f8E4M3FN")
    scales = rng.uniform(0.5, 2.0, (5, 2)).astype(np.float32)
    weight = Scaled(values, scales, 128, 128)
    x = normal(3, 130)
    dense = np.array(
        [
            [float(values[i, j]) * float(scales[i // 128, j // 128]) for j in range(130)]
            for i in range(576)
        ]
    )
    np.testing.assert_allclose(quant.linear(x, weight), x @ dense.T, rtol=1e-12)
    with pytest.raises(ValueError, match=r"need scales of shape \(5, 2\)"):
        Scaled(values, scales[:4], 128, 128)


def test_append_writes_rows_at_slots_and_nothing_else():
    cache, slots = normal(3, 4, 5), np.array([9, 6], np.int32)
    c, k_pe = normal(2, 3, seed=1), normal(2, 2, seed=2)
    got = kv.append(cache, [c, k_pe], slots)
    want = cache.copy()
    want[2, 1], want[1, 2] = np.r_[c[0], k_pe[0]], np.r_[c[1], k_pe[1]]
    np.testing.assert_array_equal(got, want)


def test_rounding_to_bf16_rounds_once():
    tie_then_up = 1 + 2**-8 + 2**-40  # f32 drops the last term, then a tie would go to even
    assert float(round_to(np.array([tie_then_up]), "bf16")[0]) == 1 + 2**-7
    x = normal(1000)
    via_torch = torch.from_numpy(x.astype(np.float32)).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(round_to(x.astype(np.float32), "bf16").astype("f4"), via_torch)


def test_fp8_saturates_and_fnuz_is_another_encoding():
    x = np.array([1e9, -1e9, 0.3, np.nan])
    np.testing.assert_array_equal(widen(round_to(x, "f8E4M3FN")), [448, -448, 0.3125, np.nan])
    np.testing.assert_array_equal(widen(round_to(x, "f8E4M3FNUZ"))[:2], [240, -240])


def test_unknown_element_type_is_named():
    with pytest.raises(ValueError, match="unknown element type 'fp8'"):
        round_to(np.zeros(1), "fp8")


@pytest.mark.parametrize("name", ["f8E4M3FN", "f8E4M3FNUZ", "f8E8M0FNU"])
def test_fp8_is_widened_to_what_each_byte_stands_for(name: str) -> None:
    every = np.arange(256, dtype=np.uint8).view(NUMPY_DTYPES[name])
    for values in (every, every.reshape(16, 16).T, every[::3], every[7:8].reshape(())):
        want = values.astype(np.float64)
        assert widen(values).shape == want.shape
        np.testing.assert_array_equal(widen(values), want)
