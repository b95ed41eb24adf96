"""What a path names: an artifact, or a checkpoint that is compiled beside itself first."""

from __future__ import annotations

from pathlib import Path

from lostwax.backends.runtime.say import say
from lostwax.backends.runtime.whole_folder import recover
from lostwax.cli.compile_apart import compile_apart
from lostwax.cli.named_paths import is_artifact


def named_artifact(path: Path, target: str, dtype: str, drafts: int) -> Path:
    """What was named (`named_paths.Model`), compiled first if it is a checkpoint."""
    recover(path)
    if is_artifact(path):
        return path
    return _compiled(path, target, dtype, drafts)


def _compiled(checkpoint: Path, target: str, dtype: str, drafts: int) -> Path:
    """The artifact of a checkpoint, compiled unless one of the same inputs lies beside it."""
    drafting = f"-drafts{drafts}" if drafts else ""
    out = checkpoint.parent / f"{checkpoint.name}.{target}-{dtype}{drafting}.lostwax"
    if _is_current(out, checkpoint, drafts):
        say(f"using {out}")
        return out
    say(f"compiling {checkpoint} to {out}")
    compile_apart(checkpoint, out, target=target, dtype=dtype, drafts=drafts)
    return out


def _is_current(artifact: Path, checkpoint: Path, drafts: int) -> bool:
    """Whether the artifact was compiled from this checkpoint by this lostwax, at these sizes."""
    if not is_artifact(artifact):
        return False
    import lostwax
    from lostwax.backends.plan.sizes import Sizes, limits_of
    from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
    from lostwax.backends.runtime.checkpoint_content import CheckpointMismatch, require_content
    from lostwax.backends.runtime.require_target import require_target
    from lostwax.frontend.checkpoint import open_checkpoint

    try:
        reader = ArtifactReader(artifact)
        reader.verify()
        require_target(artifact, reader.manifest.target)
        manifest, note = reader.manifest, reader.note()
        require_content(checkpoint, note.files if note else {})
    except (ArtifactError, CheckpointMismatch):
        return False
    same_model = manifest.model.digest == open_checkpoint(checkpoint).digest
    same_sizes = manifest.limits == limits_of(manifest.model, Sizes(max_drafts=drafts))
    same_lostwax = manifest.toolchain.get("lostwax") == lostwax.__version__
    return same_model and same_sizes and same_lostwax
