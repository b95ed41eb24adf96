"""What our code raises over an artifact's graphs is the artifact's fault, and said so."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.ir.contract.foreign_file import DAMAGE, reason
from lostwax.ir.contract.one_line import one_line


@contextmanager
def blaming(reader: ArtifactReader, lowering: str) -> Generator[None]:
    """A graph and choices that our lowerings do not understand are the artifact's fault."""
    try:
        yield
    except ArtifactError:
        raise
    except DAMAGE as error:
        raise ArtifactError(
            f"{reader.folder}: its graphs and choices.json do not say where {one_line(lowering)}"
            f" stands ({reason(error)}); recompile the artifact"
        ) from error
