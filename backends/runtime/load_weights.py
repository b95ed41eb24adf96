"""Makes stored weights from a checkpoint by plan: memory-mapped safetensors, never pickle."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lostwax.backends.runtime.allocation import allocated
from lostwax.backends.runtime.bound_program import WeightBuffers
from lostwax.backends.runtime.checkpoint_content import CheckpointMismatch
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.form_weight import Read, SourceTensors, form_into, wants_scales
from lostwax.backends.runtime.memory import WeightMaker
from lostwax.backends.runtime.weight_steps import Values
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.dtypes import packed_bytes
from lostwax.ir.contract.foreign_file import DAMAGE, BadFile, reason
from lostwax.ir.contract.ranks import ALONE, Rank
from lostwax.ir.contract.weights import Source, StoredTensor, StoredWeight, WeightPlan


class Sources:
    """The tensors of one checkpoint, whose files are opened when they are first asked for."""

    def __init__(self, folder: Path, maker: WeightMaker) -> None:
        self._folder = folder
        self._maker = maker
        self._open: dict[str, Any] = {}  # files of either kind

    def _tensor(self, file: str, name: str) -> Values:
        try:
            if file not in self._open:
                self._open[file] = self._maker.open(self._folder / file)
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
        if not self._maker.numbers.all_finite(scales):
            raise CheckpointMismatch(
                f"{source.scale.tensor} holds NaN or infinity, so {source.tensor} has no values;"
                " download the checkpoint again, or quantise it again"
            )
        return SourceTensors(values, scales)

    def _stored(self, stored: StoredTensor) -> Values:
        tensor = self._tensor(stored.file, stored.tensor)
        found = (tuple(tensor.shape), tensor.dtype)
        if found != (stored.shape, self._maker.numbers.dtypes[stored.dtype]):
            raise CheckpointMismatch(
                f"{stored.tensor} in {stored.file} is {found[1]} {list(found[0])}, the artifact was"
                f" compiled for {stored.dtype} {list(stored.shape)}; give that one, or recompile"
            )
        return tensor


@contextmanager
def naming(weight: str) -> Generator[None]:
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

    Sources are mapped, one at a time, and written into their places.
    """
    buffers: WeightBuffers = {}
    sizes = {
        (prefix, stored.name): packed_bytes(stored.dtype, prod(stored.shape))
        for prefix, group in plan.groups.items()
        for stored in plan.stored[group]
    }
    with driver.memory.weights(sum(sizes.values())) as maker:
        sources = Sources(checkpoint, maker)
        for prefix, stored, parts in _wanted(plan):
            key = prefix, stored.name
            buffers[key] = allocated(driver, sizes[key], f"a weight {prefix}{stored.name}")
            typed = maker.typed(buffers[key], stored.dtype, stored.shape)
            with naming(prefix + stored.name):
                readers = sources.readers(stored, parts)
                form_into(typed, stored, readers, rank, maker.write, maker.numbers)
    return buffers
