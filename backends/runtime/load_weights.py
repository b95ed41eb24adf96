"""Makes stored weights from a checkpoint by plan: memory-mapped safetensors, never pickle."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from lostwax.backends.runtime.usable_cores import usable_cores
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.dtypes import packed_bytes
from lostwax.ir.contract.foreign_file import DAMAGE, BadFile, reason, require_regular
from lostwax.ir.contract.ranks import ALONE, Rank
from lostwax.ir.contract.weights import Source, StoredTensor, StoredWeight, WeightPlan

MAX_READERS = 16
"""Weights that are formed at once: more fill no link."""

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
    plan: WeightPlan,
    checkpoint: Path,
    driver: Driver,
    rank: Rank = ALONE,
    num_readers: int | None = None,
) -> WeightBuffers:
    """Every stored weight of every layer in the driver's memory, its rank's slice where split.

    `num_readers` weights are read and formed at once, each by one thread (None: as many as there
    are cores, MAX_READERS at most). Sources are mapped, one at a time for each,
    and written into their places: beside the weights the host holds no more than a piece in the
    making for each reader, and a staging buffer more than there are readers.

    Raises CheckpointMismatch for a checkpoint that is not the plan's: what the first weight in the
    plan's order says that fails; NotEnoughMemory before anything is read.
    """
    wanted = list(_wanted(plan))
    buffers: WeightBuffers = {}
    for prefix, stored, _ in wanted:
        num_bytes = packed_bytes(stored.dtype, prod(stored.shape))
        what = f"a weight {prefix}{stored.name}"
        buffers[prefix, stored.name] = allocated(driver, num_bytes, what)
    count = num_readers or min(usable_cores(), MAX_READERS)
    staging = Staging(driver, num_buffers=1 + count)

    def make(prefix: str, stored: StoredWeight, parts: Sequence[Sequence[Source]]) -> None:
        typed = buffers[prefix, stored.name].view(TORCH_DTYPES[stored.dtype]).view(stored.shape)
        with _reading(checkpoint) as files, _naming(prefix + stored.name):
            form_into(typed, stored, files.readers(stored, parts), rank, staging.write)

    if count == 1:
        for each in wanted:
            make(*each)
    else:
        _in_threads(make, wanted, count)
    staging.finish()
    return buffers


def _in_threads(
    make: Callable[[str, StoredWeight, Sequence[Sequence[Source]]], None],
    wanted: Sequence[tuple[str, StoredWeight, Sequence[Sequence[Source]]]],
    count: int,
) -> None:
    """Make all, `count` at once; the first that fails is told of once none is under way."""
    num_threads = torch.get_num_threads()
    with ThreadPoolExecutor(count, "load weights", torch.set_num_threads, (1,)) as pool:
        making = [pool.submit(make, *each) for each in wanted]
        try:
            for each in making:
                each.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            torch.set_num_threads(num_threads)  # what threads that begin later have


def form_sources(
    checkpoint: Path, wanted: Iterable[tuple[StoredWeight, Source]]
) -> Iterator[torch.Tensor]:
    """One stored weight of one source after the other, in host memory; none is kept."""
    with _reading(checkpoint) as files:
        for stored, source in wanted:
            with _naming(stored.name):
                yield form(stored, files.readers(stored, [(source,)]))
