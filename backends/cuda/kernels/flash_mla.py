"""Host functions that call FlashMLA, as sgl-flash-mla packages it. Imported without it, too.

Both give attended latents of absorbed queries over selected rows of the cache. The library counts
shapes only, launches on the current stream and allocates by torch: nothing is read on the host, so
that both may be captured.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch

from lostwax.backends.cuda.flash_mla_calls import (
    CALLS,
    MAJOR,
    MODULE,
    PACKAGE,
    padded_heads,
    unfit,
)
from lostwax.backends.runtime.error_causes import with_causes
from lostwax.backends.runtime.library_loading import loading
from lostwax.backends.runtime.require_packages import (
    MissingPackage,
    installed_version,
    remedy_of,
    require_fit,
    require_version,
)


def _taken(function: Callable[..., object]) -> dict[str, bool]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(function).parameters.values()
    return {p.name: p.default is p.empty for p in found if p.kind in named}


def require_library() -> None:
    """MissingPackage unless the package is there as it was when these calls were written."""
    version = require_version(PACKAGE, installed_version(PACKAGE), MAJOR, "flashmla_*")
    try:
        with loading(MODULE):
            module = import_module(MODULE)
    except Exception as error:  # a library may raise anything
        raise MissingPackage(
            f"{PACKAGE} {version} does not load beside torch {torch.__version__}:"
            f" {with_causes(error)}"
        ) from error
    for name in CALLS:
        function = getattr(module, name, None)
        reason = f"it has no {name}" if function is None else unfit(name, _taken(function))
        require_fit(PACKAGE, version, reason)
    if not module.has_legacy():
        raise MissingPackage(
            f"{PACKAGE} {version} was built without its kernels for Hopper"
            f" (FLASH_MLA_BUILD_LEGACY=0); {remedy_of(PACKAGE)}"
        )


@cache
def _library() -> Any:
    require_library()
    return import_module(MODULE)


def _joined(query: torch.Tensor, q_pe: torch.Tensor) -> torch.Tensor:
    """bf16 [T, padded heads, C + R]: each head's absorbed query, then its rope part."""
    heads, rows, rank = query.shape
    padded = padded_heads(heads)
    make = torch.empty if padded == heads else torch.zeros
    shape = (rows, padded, rank + q_pe.shape[2])
    joined = make(shape, dtype=torch.bfloat16, device=query.device)
    joined[:, :heads, :rank] = query.transpose(0, 1)
    joined[:, :heads, rank:] = q_pe
    return joined


def attend_kv(
    query: torch.Tensor,
    q_pe: torch.Tensor,
    stored: torch.Tensor,
    slots: torch.Tensor,
    latent: torch.Tensor,
    *,
    scale: float,
) -> None:
    """`flash_mla_with_kvcache` over fp8_656 rows, each row of the step a request of its own.

    query [H, T, 512] f32, q_pe [T, H, 64] bf16, stored u8 [pages, 64, 656], slots i32 [T, K] (page
    * 64 + token, -1 for none), latent [H, T, 512] bf16, written. The plan of splits is made anew:
    it holds nothing but sizes, but lies in memory that a graph must own.
    """
    library = _library()
    heads, _, rank = query.shape
    out, _ = library.flash_mla_with_kvcache(
        q=_joined(query, q_pe)[:, None],
        k_cache=stored[:, :, None],
        block_table=None,
        cache_seqlens=None,
        head_dim_v=rank,
        tile_scheduler_metadata=library.get_mla_metadata()[0],
        softmax_scale=scale,
        is_fp8_kvcache=True,
        indices=slots[:, None],
        use_legacy=True,
    )
    latent.copy_(out[:, 0, :heads].transpose(0, 1))


def attend_sparse(
    query: torch.Tensor,
    q_pe: torch.Tensor,
    stored: torch.Tensor,
    slots: torch.Tensor,
    latent: torch.Tensor,
    *,
    scale: float,
) -> None:
    """`flash_mla_sparse_fwd`: as `attend_kv`, but for stored, which is bf16 [pages, 64, 576]."""
    heads, _, rank = query.shape
    out = _library().flash_mla_sparse_fwd(
        q=_joined(query, q_pe),
        kv=stored.view(-1, 1, stored.shape[2]),
        indices=slots[:, None],
        sm_scale=scale,
        d_v=rank,
        use_legacy=True,
    )[0]
    latent.copy_(out[:, :heads].transpose(0, 1))
