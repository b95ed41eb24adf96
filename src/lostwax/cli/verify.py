"""`lostwax verify`: every file of an artifact against its digest, its target against the installed
one, and the checkpoint's identity."""

from __future__ import annotations

from lostwax.backends.runtime.say import result, result_json
from lostwax.cli.named_paths import Artifact, Checkpoint
from lostwax.cli.option_types import Json


def verify(
    artifact: Artifact,
    /,
    *,
    checkpoint: Checkpoint | None = None,
    json_: Json = False,
) -> None:
    """Check every file of an artifact, and that its checkpoint is the one that was compiled.

    Its target has to be one that is installed, with the facts that the artifact was compiled for.
    Of the checkpoint, every file's header and samples of every tensor are compared, so that the
    command takes seconds; a single number changed elsewhere is not noticed.

    Parameters
    ----------
    artifact
        The artifact folder.
    checkpoint
        Where the artifact's checkpoint lies, if not where it was when compiled.
    json_
        Print the result as JSON on standard output.
    """
    from lostwax.backends.runtime.artifact_reader import ArtifactReader
    from lostwax.backends.runtime.checkpoint_content import require_content
    from lostwax.backends.runtime.require_target import require_target

    reader = ArtifactReader(artifact)
    require_target(artifact, reader.manifest.target)
    reader.verify_all()
    note = reader.note()
    noted = note.files if note else {}
    if noted:
        require_content(reader.checkpoint(checkpoint), noted)
    manifest = reader.manifest
    if json_:
        report = {"artifact": str(artifact), "digest": manifest.digest}
        counts = {"files": len(manifest.files) + 1, "checkpoint_files": len(noted)}
        result_json(report | counts)
        return
    compared = (
        f"{len(noted)} checkpoint files are those that were compiled"
        if noted
        else "it does not say what its checkpoint held, so none was compared"
    )
    result(f"{artifact}: {len(manifest.files) + 1} files whole, digest {manifest.digest[:16]}")
    result(compared)
