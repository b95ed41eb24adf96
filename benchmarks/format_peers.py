"""The portable kernels that stood for one of the fp8 formats', on a case's buffers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from format_cases import EPS, LAYOUT, Tensors

from lostwax.backends.portable.kernels import cache, elementwise, fp8, hadamard, norms, rope
from lostwax.ir.contract.scale_layout import FP8_BLOCK


def _quantise(x: torch.Tensor, t: Tensors, node: str, scale_fmt: str = "ue8m0") -> None:
    fp8.quantise(x, t[node], t[f"{node}:scale"], scale_fmt=scale_fmt, block=FP8_BLOCK)


def _append(op: str, t: Tensors, node: str, *parts: torch.Tensor) -> None:
    slots = t["slots"].long()
    given = (t[f"{node}:scale"], t[node], *parts)
    cache.append_scaled(t["cache_in"], slots, *given, layout=LAYOUT[op])


def _latent(t: Tensors) -> None:
    norms.rms_norm(t["x"], t["weight"], t["normed"], eps=EPS)
    rope.rotate(t["k_pe"], t["table"], t["op"], offset=0, interleaved=True)
    _quantise(t["normed"], t, "quantised", "fp32")
    _append("append_latent", t, "quantised", t["op"])


def _index_key(t: Tensors, signs: torch.Tensor) -> None:
    norms.layer_norm(t["x"], t["weight"], t["bias"], t["normed"], eps=EPS)
    _rotate(t["normed"], t, signs)
    _append("append_index_key", t, "quantised")


def _rotate(x: torch.Tensor, t: Tensors, signs: torch.Tensor) -> None:
    rope.rotate(x, t["table"], t["op"], offset=0, interleaved=False)
    hadamard.hadamard(t["op"], signs, t["rotated"])
    _quantise(t["rotated"], t, "quantised")


def _norm(op: str, t: Tensors) -> None:
    if op == "rms_norm_quantise":
        norms.rms_norm(t["x"], t["weight"], t["normed"], eps=EPS)
    else:
        given = (t["residual"], t["delta"], t["weight"], t["residual_out"], t["normed"])
        norms.add_norm(*given, eps=EPS)
    _quantise(t["normed"], t, "quantised")


def _silu_mul(t: Tensors) -> None:
    elementwise.silu_mul(t["gate"], t["up"], t["product"])
    _quantise(t["product"], t, "quantised")


def portable(op: str, t: Tensors) -> Callable[[], None]:
    """What an artifact launched for this before."""
    signs = torch.empty(0)
    if "hadamard" in op or op == "append_index_key":
        signs = torch.empty((t["x"].shape[-1],) * 2, device=t["x"].device)
        hadamard.signs(signs)
    calls: dict[str, Callable[[], None]] = {
        "quantise": lambda: _quantise(t["x"], t, "op.out"),
        "silu_mul_quantise": lambda: _silu_mul(t),
        "hadamard": lambda: hadamard.hadamard(t["x"], signs, t["op.out"]),
        "rope_hadamard_quantise": lambda: _rotate(t["x"], t, signs),
        "append_scaled": lambda: _append(op, t, "rows.0", t["rows.1"]),
        "append_fp8": lambda: cache.append(
            t["cache_in"], t["slots"].long(), t["rows.0"], t["rows.1"]
        ),
        "append_latent": lambda: _latent(t),
        "append_index_key": lambda: _index_key(t, signs),
    }
    return calls.get(op, lambda: _norm(op, t))
