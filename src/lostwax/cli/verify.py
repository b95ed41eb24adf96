"""`lostwax verify`: every file of an artifact against its digest, and the checkpoint's identity."""

from __future__ import annotations

import json

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

    reader = ArtifactReader(artifact)
    reader.verify_all()
    note = reader.note()
    noted = note.files if note else {}
    if noted:
        require_content(reader.checkpoint(checkpoint), noted)
    manifest = reader.manifest
    if json_:
        report = {"artifact": str(artifact), "digest": manifest.digest}
        counts = {"files": len(manifest.files) + 1, "checkpoint_files": len(noted)}
        print(json.dumps(report | counts))
        return
    compared = (
        f"{len(noted)} checkpoint files are those that were compiled"
        if noted
        else "it does not say what its checkpoint held, so none was compared"
    )
    print(f"{artifact}: {len(manifest.files) + 1} files whole, digest {manifest.digest[:16]}")
    print(compared)
