"""Refuses options that would change nothing of the model that was named, or that it cannot take.

Looks at folders and manifests only, so that no refusal waits for a compile or an engine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lostwax.cli.default_target import DEFAULT_TARGET
from lostwax.cli.named_paths import is_artifact
from lostwax.cli.option_types import OptionRefused

if TYPE_CHECKING:
    from lostwax.backends.runtime.artifact_reader import ArtifactReader


def require_used(
    path: Path | None,
    *,
    checkpoint: Path | None,
    cache: Path | None,
    target: str | None,
    dtype: str | None,
) -> None:
    """OptionRefused where an option says nothing of what is named; None is the default model."""
    if path is None:
        if checkpoint is not None:
            raise OptionRefused(
                "--checkpoint goes with an artifact; name that, or give the checkpoint's folder in"
                " its place"
            )
        return
    if cache is not None:
        raise OptionRefused(
            f"--cache is where the default model's artifact is kept, and {path} was named; leave"
            " it out"
        )
    if not is_artifact(path):
        if checkpoint is not None:
            raise OptionRefused(f"--checkpoint goes with an artifact, and {path} is a checkpoint")
        return
    given = [n for n, value in (("--target", target), ("--dtype", dtype)) if value is not None]
    if given:
        raise OptionRefused(
            f"{path} is compiled already, and {' and '.join(given)} would change nothing; leave"
            " it out, or name the checkpoint, which is compiled as you say"
        )


def require_runnable(path: Path | None, target: str | None) -> None:
    """DeviceUnavailable where what will be compiled, or is compiled already, cannot run here.

    The default model and a checkpoint are compiled for `target`, an artifact says for what it was.
    Raises ArtifactError where that is not installed, or is another by now.
    """
    from lostwax.backends.registry import find_target
    from lostwax.backends.runtime.artifact_reader import ArtifactReader
    from lostwax.backends.runtime.require_device import require_device
    from lostwax.backends.runtime.require_target import require_target

    if path is not None and is_artifact(path):
        made_for = ArtifactReader(path).manifest.target
        require_target(path, made_for)
        require_device(made_for)
    else:
        require_device(find_target(target or DEFAULT_TARGET)[1])


def require_checkpoint(reader: ArtifactReader, given: Path | None) -> None:
    """OptionRefused where the weights are not where they were, nor where --checkpoint says.

    Raises CheckpointMismatch where what lies there is not what was compiled.
    """
    from lostwax.backends.runtime.checkpoint_content import require_content

    folder = reader.checkpoint(given)
    if not folder.is_dir():
        raise OptionRefused(
            f"the checkpoint of {reader.folder} is not at {folder}; give --checkpoint DIR"
        )
    note = reader.note()
    require_content(folder, note.files if note else {})


def require_fits(
    artifact: Path,
    *,
    drafts: int | None,
    num_pages: int | None,
    max_running_requests: int | None = None,
) -> None:
    """OptionRefused where the artifact drafts fewer tokens or runs fewer requests, or the cache is
    larger than memory.

    Raises ArtifactError where the artifact cannot be read.
    """
    from lostwax.backends.runtime.artifact_reader import ArtifactReader
    from lostwax.ir.contract.caches import bytes_per_page

    manifest = ArtifactReader(artifact).manifest
    most = manifest.limits.max_drafts
    if drafts is not None and drafts > most:
        raise OptionRefused(
            f"--drafts {drafts}: {artifact} was compiled with --drafts {most}; ask for 0 to {most},"
            " or compile it anew"
        )
    runs = manifest.limits.max_reqs
    if max_running_requests is not None and max_running_requests > runs:
        raise OptionRefused(
            f"--max-running-requests {max_running_requests}: {artifact} was compiled with"
            f" --max-reqs {runs}; ask for 1 to {runs}, or compile it anew"
        )
    if num_pages is None or manifest.target.replay == "graph":  # a device's memory is asked there
        return
    wanted = num_pages * bytes_per_page(manifest.planes) * manifest.world_size
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > there:
        raise OptionRefused(
            f"--num-pages {num_pages} takes {wanted / 2**30:.1f} GiB of cache and this machine has"
            f" {there / 2**30:.1f} GiB; give fewer"
        )
