"""Whether an artifact's target is one that is installed, fact by fact. Loads facts, nothing else.

An artifact brings the facts that it was compiled for, and its launches are checked against them:
so they count only where the installed target has the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec import structs

from lostwax.backends.registry import Backend, backends
from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.ir.contract.one_line import one_line
from lostwax.ir.contract.target import Target


def collectives_of(artifact: Path) -> str:
    """torch.distributed's backend on the artifact's target. Raises as `require_target` does."""
    return require_target(artifact, ArtifactReader(artifact).manifest.target).collectives


def require_target(artifact: Path, target: Target, extra: Iterable[Backend] = ()) -> Backend:
    """The backend of an artifact's target, of those installed and those in `extra`.

    Raises ArtifactError where none provides it, or where a fact of it is another.
    """
    backend = backends(extra).get(target.backend)
    if backend is None:
        raise ArtifactError(
            f"{artifact} was compiled for {target.name}, and no installed package provides the"
            f" target folder {target.backend!r}; install the one that does, or compile for a target"
            " that is here (`lostwax doctor` lists them)"
        )
    here: tuple[Target, ...] = backend.load(backend.targets)
    installed = next((each for each in here if each.name == target.name), None)
    if installed is None:
        raise ArtifactError(
            f"{artifact} was compiled for {target.name}, which the installed target folder"
            f" {target.backend!r} does not have; recompile it for one of"
            f" {', '.join(each.name for each in here)}"
        )
    for fact, own in structs.asdict(target).items():
        known = getattr(installed, fact)
        if own != known:
            raise ArtifactError(
                f"{artifact} was compiled for a {target.name} whose {fact} is {one_line(own)}, and"
                f" the {target.name} that is installed has {one_line(known)}: another version of"
                " lostwax compiled it, or it was altered; recompile it with this version"
            )
    return backend
