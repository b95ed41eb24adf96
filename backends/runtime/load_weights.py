"""Makes stored weights from a checkpoint by plan: memory-mapped safetensors, never pickle."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lostwax.backends.runtime.allocation import allocated
from lostwax.backends.runtime.checkpoint_content import CheckpointMismatch
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.form_weight import Read, SourceTensors, form, form_into, wants_scales
from lostwax.backends.runtime.staging import Staging
from lostwax.backends.runtime.tensors import TORCH_DTYPES
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.dtypes import packed_bytes
from lostwax.ir.contract.foreign_file import DAMAGE, BadFile, reason, require_regular
from lostwax.ir.contract.ranks import ALONE, Rank
from lostwax.ir.contract.weights import Source, StoredTensor, StoredWeight, WeightPlan

WeightBuffers = dict[tuple[str, str], torch.Tensor]
"""u8 buffers by (prefix, stored name)."""


class _Files:
    """Open safetensors files of one checkpoint."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._open: dict[str, Any] = {}  # safe_open has no public type

    def _tensor(self, file: str, name: str) -> torch.Tensor:
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

    def readers(self, stored: StoredWeight, parts: Sequence[Sequence[Source]]) -> list[list[Read]]:
        """What reads each source of each part when its turn comes."""
        with_scales = wants_scales(stored.steps)
        return [[partial(self._source, source, with_scales) for source in p] for p in parts]

    def _source(self, source: Source, with_scales: bool) -> SourceTensors:
        """A tensor of weights as the plan says it lies, with its scales where they are wanted."""
        values = self._stored(source)
        if not with_scales or source.scale is None:
            return SourceTensors(values)
        scales = self._stored(source.scale)
        if not bool(torch.isfinite(scales.float()).all()):
            raise CheckpointMismatch(
                f"{source.scale.tensor} holds NaN or infinity, so {source.tensor} has no values;"
                " download the checkpoint again, or quantise it again"
            )
        return SourceTensors(values, scales)

    def _stored(self, stored: StoredTensor) -> torch.Tensor:
        tensor = self._tensor(stored.file, stored.tensor)
        found = (tuple(tensor.shape), tensor.dtype)
        if found != (stored.shape, TORCH_DTYPES[stored.dtype]):
            raise CheckpointMismatch(
                f"{stored.tensor} in {stored.file} is {found[1]} {list(found[0])}, the artifact was"
                f" compiled for {stored.dtype} {list(stored.shape)}; give that one, or recompile"
            )
        return tensor


@contextmanager
def _naming(weight: str) -> Generator[None]:
    """A plan whose steps cannot be taken with what the checkpoint has says so by the weight."""
    try:
        yield
    except CheckpointMismatch:
        raise
    except Inconsistent as error:
        raise CheckpointMismatch(
            f"{weight} cannot be made as weights.json plans it: {error}; recompile"
        ) from error
    except (*DAMAGE, RuntimeError) as error:  # RuntimeError: torch's
        raise CheckpointMismatch(
            f"{weight} cannot be made as weights.json plans it ({reason(error)}); recompile"
        ) from error


@contextmanager
def _reading(checkpoint: Path) -> Generator[_Files]:
    """The checkpoint's files, each opened when it is first asked for."""
    with ExitStack() as stack, torch.no_grad():
        yield _Files(checkpoint, stack)


def _wanted(plan: WeightPlan) -> Iterator[tuple[str, StoredWeight, list[tuple[Source, ...]]]]:
    for prefix, group in plan.groups.items():
        for stored in plan.stored[group]:
            missing = [p.name for p in stored.parts if prefix + p.name not in plan.sources]
            if missing:
                raise CheckpointMismatch(
                    f"the artifact plans {prefix}{missing[0]} without a checkpoint tensor: it was"
                    " compiled from a configuration alone; compile a checkpoint to serve"
                )
            yield prefix, stored, [plan.sources[prefix + p.name] for p in stored.parts]


def load_weights(
    plan: WeightPlan, checkpoint: Path, driver: Driver, rank: Rank = ALONE
) -> WeightBuffers:
    """Every stored weight of every layer in the driver's memory, its rank's slice where split.

    Sources are mapped, one at a time, and written into their places: beside the weights the host
    holds no more than a piece in the making and two staging buffers.
    """
    buffers: WeightBuffers = {}
    staging = Staging(driver)
    with _reading(checkpoint) as files:
        for prefix, stored, parts in _wanted(plan):
            num_bytes = packed_bytes(stored.dtype, prod(stored.shape))
            buffer = allocated(driver, num_bytes, f"a weight {prefix}{stored.name}")
            typed = buffer.view(TORCH_DTYPES[stored.dtype]).view(stored.shape)
            with _naming(prefix + stored.name):
                form_into(typed, stored, files.readers(stored, parts), rank, staging.write)
            buffers[prefix, stored.name] = buffer
        staging.finish()
    return buffers


def form_sources(
    checkpoint: Path, wanted: Iterable[tuple[StoredWeight, Source]]
) -> Iterator[torch.Tensor]:
    """One stored weight of one source after the other, in host memory; none is kept."""
    with _reading(checkpoint) as files:
        for stored, source in wanted:
            with _naming(stored.name):
                yield form(stored, files.readers(stored, [(source,)]))
