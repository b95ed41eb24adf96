"""Makes stored weights from a checkpoint by plan: memory-mapped safetensors, never pickle."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lostwax.backends.runtime.allocation import allocated
from lostwax.backends.runtime.checkpoint_content import CheckpointMismatch
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.form_weight import Unformable, formed
from lostwax.backends.runtime.tensors import TORCH_DTYPES
from lostwax.ir.contract.foreign_file import DAMAGE, BadFile, reason, require_regular
from lostwax.ir.contract.program import DTYPE_BYTES
from lostwax.ir.contract.ranks import ALONE, Rank
from lostwax.ir.contract.weights import Source, StoredWeight, WeightPlan

SCALE_BLOCK = 128  # config: quantization_config.weight_block_size

WeightBuffers = dict[tuple[str, str], torch.Tensor]
"""u8 buffers by (prefix, stored name)."""


class _Files:
    """Open safetensors files of one checkpoint."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._open: dict[str, Any] = {}  # safe_open has no public type

    def tensor(self, file: str, name: str) -> torch.Tensor:
        try:
            if file not in self._open:
                require_regular(self._folder / file)
                handle = safe_open(self._folder / file, framework="pt")
                self._open[file] = self._stack.enter_context(handle)
            return self._open[file].get_tensor(name)
        except (OSError, BadFile, SafetensorError) as error:
            raise CheckpointMismatch(
                f"cannot read {name} from {self._folder / file} ({error}); give the checkpoint that"
                " was compiled with --checkpoint DIR, or recompile"
            ) from error


def dequantise(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """values [..., N, K] times scales [..., ceil(N/128), ceil(K/128)], in f32."""
    rows, cols = values.shape[-2:]
    wide = scales.float().repeat_interleave(SCALE_BLOCK, -2).repeat_interleave(SCALE_BLOCK, -1)
    return values.float() * wide[..., :rows, :cols]


def reencode(values: torch.Tensor) -> torch.Tensor:
    """e4m3fn as e4m3fnuz: the same bits, which mean half (scales double). -0 becomes 0, NaN NaN."""
    bits = values.view(torch.uint8)
    is_nan = (bits & 0x7F) == 0x7F
    made = bits.masked_fill(bits == 0x80, 0).masked_fill(is_nan, 0x80)
    return made.view(torch.float8_e4m3fnuz)


def _read(files: _Files, source: Source, want: StoredWeight) -> torch.Tensor:
    """One source in the stored dtype."""
    reencoded = any(step.kind == "reencode" for step in want.steps)
    if want.scale:
        scales = _scales(files, source)
        return scales * 2 if reencoded else scales
    values = files.tensor(source.file, source.tensor)
    found = (tuple(values.shape), values.dtype)
    if found != (source.shape, TORCH_DTYPES[source.dtype]):
        raise CheckpointMismatch(
            f"{source.tensor} in {source.file} is {found[1]} {list(found[0])}, the artifact was"
            f" compiled for {source.dtype} {list(source.shape)}; give that one, or recompile"
        )
    dtype = TORCH_DTYPES[want.dtype]
    if values.dtype == dtype:
        return values
    if reencoded:
        return reencode(values)
    if source.scale is not None:
        values = dequantise(values, _scales(files, source))
    return values.to(dtype)


def _scales(files: _Files, source: Source) -> torch.Tensor:
    """A source's block scales in f32, all of them finite."""
    assert source.scale is not None
    scales = files.tensor(source.scale_file or source.file, source.scale).float()
    *batch, rows, cols = source.shape
    want = (*batch, -(-rows // SCALE_BLOCK), -(-cols // SCALE_BLOCK))
    if tuple(scales.shape) != want:
        raise CheckpointMismatch(
            f"{source.scale} has shape {list(scales.shape)}, {source.tensor} needs {list(want)};"
            " give the checkpoint that was compiled, or recompile"
        )
    if not bool(torch.isfinite(scales).all()):
        raise CheckpointMismatch(
            f"{source.scale} holds NaN or infinity, so {source.tensor} has no values; download the"
            " checkpoint again, or quantise it again"
        )
    return scales


def _slice(
    read: torch.Tensor, source: Source, want: StoredWeight, axis: int | None, rank: Rank
) -> torch.Tensor:
    """The rank's slice of a source: of its values, or of the blocks that they lie in."""
    if axis is None:
        return read
    start, stop = rank.bounds(source.shape[axis], SCALE_BLOCK if want.scale else 1)
    return read.narrow(axis, start, stop - start)


def _make(
    files: _Files, want: StoredWeight, parts: list[tuple[Source, ...]], rank: Rank
) -> torch.Tensor:
    """The stored tensor of one layer."""
    made: list[torch.Tensor] = []
    for sources, axis in zip(parts, want.splits or (None,) * len(parts), strict=True):
        each = [_slice(_read(files, s, want), s, want, axis, rank) for s in sources]
        made.append(each[0] if len(each) == 1 else torch.stack(each))
    return formed(made, want)


@contextmanager
def _naming(weight: str) -> Generator[None]:
    """A plan whose steps cannot be taken with what the checkpoint has says so by the weight."""
    try:
        yield
    except CheckpointMismatch:
        raise
    except Unformable as error:
        raise CheckpointMismatch(f"weights.json: {error}; recompile") from error
    except (*DAMAGE, RuntimeError) as error:  # RuntimeError: torch's
        raise CheckpointMismatch(
            f"{weight} cannot be made as weights.json plans it ({reason(error)}); recompile"
        ) from error


def _wanted(plan: WeightPlan) -> Iterator[tuple[str, StoredWeight, list[tuple[Source, ...]]]]:
    for prefix, group in plan.groups.items():
        for stored in plan.stored[group]:
            missing = [p for p in stored.parts if prefix + p not in plan.sources]
            if missing:
                raise CheckpointMismatch(
                    f"the artifact plans {prefix}{missing[0]} without a checkpoint tensor: it was"
                    " compiled from a configuration alone; compile a checkpoint to serve"
                )
            yield prefix, stored, [plan.sources[prefix + p] for p in stored.parts]


def load_weights(
    plan: WeightPlan, checkpoint: Path, driver: Driver, rank: Rank = ALONE
) -> WeightBuffers:
    """Every stored weight of every layer in the driver's memory, its rank's slice where split."""
    buffers: WeightBuffers = {}
    with ExitStack() as stack, torch.no_grad():
        files = _Files(checkpoint, stack)
        for prefix, stored, parts in _wanted(plan):
            num_bytes = prod(stored.shape) * DTYPE_BYTES[stored.dtype]
            buffer = allocated(driver, num_bytes, f"a weight {prefix}{stored.name}")
            typed = buffer.view(TORCH_DTYPES[stored.dtype]).view(stored.shape)
            with _naming(prefix + stored.name):
                typed.copy_(_make(files, stored, parts, rank))
            buffers[prefix, stored.name] = buffer
    return buffers


def read_sources(
    checkpoint: Path, wanted: Iterable[tuple[StoredWeight, Source]]
) -> Iterator[torch.Tensor]:
    """One checkpoint tensor after the other, each in its stored dtype; none is kept."""
    with ExitStack() as stack, torch.no_grad():
        files = _Files(checkpoint, stack)
        for stored, source in wanted:
            yield _read(files, source, stored)
